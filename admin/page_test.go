package admin

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"stsmap/policy"
)

// nasty is what a stranger might put where we show text.
const nasty = `<script>alert(1)</script>"'&<img src=x onerror=a()>` + "\x1b[31m\u202e"

// nastyStatus is one in which all that comes from elsewhere is nasty.
func nastyStatus() Status {
	s := fullStatus()
	s.Since = time.Now()
	s.Resolver.Servers, s.Resolver.Answering = []string{nasty}, Condition{Error: nasty}
	s.Postfix = PostfixStatus{Release: nasty, Error: nasty}
	s.Store = StoreStatus{Name: nasty, Reading: Condition{Error: nasty}}
	s.DANE.Reasons = []string{nasty}
	s.Checks = []Check{{Name: "store", Error: nasty}}
	s.Reload.Error = nasty
	s.Listen = []string{nasty}
	s.Failures = []Trouble{{Domain: "secret.example" + nasty, Message: "policy could not be retrieved", Error: "secret.example " + nasty, InForce: true}}
	s.Changes = []Change{{Domain: "secret.example" + nasty, Message: "policy found", Text: "mx secret.example" + nasty, Count: 2}}
	s.Overrides.List = []OverrideStatus{{Domain: "secret.example", Reason: nasty}}
	s.Cache.Lapsing, s.Cache.Soonest = 1, []Lapsing{{Domain: "secret.example" + nasty, Mode: "enforce", Error: "secret.example " + nasty}}
	return s
}

// nastyExplanation is one in which all that comes from elsewhere is nasty.
func nastyExplanation(key string) Explanation {
	now := time.Now()
	if key == ".example" {
		return Explanation{Key: key, Reply: ReplyText{Status: "NOTFOUND"}}
	}
	return Explanation{
		Key: key, NextHop: key, Domain: key, Map: nasty, Decision: "enforce", Reason: nasty, Until: now.Add(time.Hour), Reply: ReplyText{"OK", nasty},
		Override: &OverrideStatus{Domain: nasty, Action: "exempt", Reason: nasty},
		Others:   []OverrideStatus{{Domain: nasty, Until: now}},
		Record:   &Record{Domain: key, Mode: "enforce", ID: nasty, Policy: "version: STSv1\r\n" + nasty + "\n", Fetched: now, Expires: now.Add(time.Hour), Error: nasty, Failures: 2, Result: nasty},
		DANE:     &DANEFindings{State: "on", Reasons: []string{nasty}, Looked: true, MXSecure: true, Error: nasty, Hosts: []DANEHost{{Name: nasty, State: "usable", Error: nasty}}},
		History:  []Change{{Time: now, First: now, Count: 3, Message: "policy found", Text: nasty}},
	}
}

// newPage returns the page of a daemon that is so.
func newPage(s Status, domains bool) *Page {
	x := newMetrics(s)
	return &Page{
		Status: func() Status { return s }, Minutes: NewMinutes(x), Names: []string{"mail.example.net", "mail"}, Domains: func() bool { return domains },
		Explain: func(_ context.Context, key string) Explanation { return nastyExplanation(key) },
	}
}

// get asks a handler.
func get(h http.Handler, method, host, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.Host = host
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// TestPageEscapes: text from other hosts never becomes markup or a comment in
// the source, and the page loads nothing from elsewhere.
func TestPageEscapes(t *testing.T) {
	h := newPage(nastyStatus(), true).Handler(false)
	for _, path := range []string{"/", "/domain?name=secret.example" + url.QueryEscape(nasty), "/domain?name=secret.example"} {
		checkEscapes(t, get(h, "GET", "localhost", path).Body.String())
	}
}

func checkEscapes(t *testing.T, text string) {
	t.Helper()
	for _, no := range []string{"<script", "<img", "\x1b", "\u202e", "ZgotmplZ", "bug:"} {
		if strings.Contains(text, no) {
			t.Errorf("the page has %q", no)
		}
	}
	if !strings.Contains(text, "&lt;script&gt;") || !strings.Contains(text, "secret.example") {
		t.Error("the page does not show what it should")
	}
	if m := regexp.MustCompile(`(?:src|href|url|action)\s*=?[("' ]*(?:https?:|//)[^"]*`).FindString(text); m != "" {
		t.Errorf("the page leads elsewhere: %s", m)
	}
	tags := strings.Join(regexp.MustCompile(`<[^>]*>`).FindAllString(text, -1), "\n")
	if m := regexp.MustCompile(` style=| on\w+=`).FindString(tags); m != "" {
		t.Errorf("the page has %q, which its policy forbids", m)
	}
}

// TestPageNamesNoDomain: unless the administrator wants it.
func TestPageNamesNoDomain(t *testing.T) {
	h := newPage(nastyStatus(), false).Handler(false)
	if text := get(h, "GET", "127.0.0.1:8462", "/").Body.String(); strings.Contains(text, "secret.example") || strings.Contains(text, "/domain") {
		t.Error("a domain is named, or can be asked for")
	}
	if w := get(h, "GET", "127.0.0.1:8462", "/domain?name=secret.example"); w.Code != http.StatusNotFound {
		t.Errorf("status %d for the page of a domain", w.Code)
	}
}

// TestDomainPage: all that an Explanation has, and no page elsewhere has browsers
// ask for it.
func TestDomainPage(t *testing.T) {
	h := newPage(fullStatus(), true).Handler(false)
	text := get(h, "GET", "localhost", "/domain?name=example.com").Body.String()
	for _, want := range []string{"<h1>example.com</h1>", "What Postfix is told", "Overrides", "The policy", "version: STSv1\n", "DANE", "MX records", "What happened", "(3 times since "} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q", want)
		}
	}
	if text := get(h, "GET", "localhost", "/domain?name=.example").Body.String(); !strings.Contains(text, "has no policy domain") || strings.Contains(text, "The policy") {
		t.Error("a key without a domain is not told of")
	}
	for from, ok := range map[string]bool{"": true, "none": true, "same-origin": true, "same-site": false, "cross-site": false} {
		r := httptest.NewRequest("GET", "/domain?name=example.com", nil)
		r.Host = "localhost"
		r.Header.Set("Sec-Fetch-Site", from)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if (w.Code == http.StatusOK) != ok {
			t.Errorf("from %q: status %d", from, w.Code)
		}
	}
}

// TestFailuresWithoutNames: where no domain is named, failures are counted by what
// they are, and their number stays right.
func TestFailuresWithoutNames(t *testing.T) {
	now := time.Now()
	s := Status{Omitted: 7, Failures: []Trouble{
		{Domain: "a.example", Message: "x", Since: now.Add(-time.Hour)}, {Domain: "b.example", Message: "y"}, {Domain: "c.example", Message: "x"},
		{Domain: "d.example", Message: "x", InForce: true},
	}}
	all, more := failures(s, false, now)
	var got []string
	for _, f := range all {
		got = append(got, fmt.Sprint(f.Number, f.What, f.InForce, f.Domain))
	}
	if want := []string{"2xfalse", "1yfalse", "1xtrue"}; !slices.Equal(got, want) || more != 7 || all[0].Since != "1h0m ago" {
		t.Errorf("%v and %d more, %+v", got, more, all[0])
	}
}

// TestHost: the page refuses names that an attacker can make resolve to this
// host, for all paths.
func TestHost(t *testing.T) {
	page := newPage(fullStatus(), false)
	public := (&Public{Metrics: newMetrics(fullStatus()), Status: page.Status, Page: page}).Handler()
	for host, ok := range map[string]bool{
		"localhost": true, "localhost:8462": true, "LOCALHOST.": true, "127.0.0.1:8462": true, "[::1]:8462": true, "192.0.2.1": true,
		"mail:8462": true, "Mail.Example.net": true, "mail.example.net.": true,
		"": false, "rebind.example": false, "rebind.example:8462": false, "localhost.example": false, "127.0.0.1.example": false,
		"mail.evil.example": false, "mail.example.net.evil.example": false, "a@localhost": false, "localhost:1:2": false,
	} {
		for _, path := range []string{"/", "/style.css", "/domain", "/x"} {
			if w := get(public, "GET", host, path); (w.Code != http.StatusMisdirectedRequest) != ok {
				t.Errorf("host %q, path %s: status %d, want it shown: %v", host, path, w.Code, ok)
			}
		}
		// Prometheus may call this host by any name.
		if w := get(public, "GET", host, "/metrics"); w.Code != http.StatusOK {
			t.Errorf("host %q: metrics have status %d", host, w.Code)
		}
	}
	if w := get(page.Handler(true), "GET", "anything.example", "/"); w.Code != http.StatusOK {
		t.Errorf("on the control socket: status %d", w.Code)
	}
}

// TestPageHeaders: what browsers are held to, whatever they ask for; and nothing
// is answered but looking.
func TestPageHeaders(t *testing.T) {
	h := newPage(fullStatus(), false).Handler(false)
	for _, path := range []string{"/", "/style.css", "/x"} {
		got := get(h, "GET", "localhost", path).Result().Header
		csp := got.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "style-src 'self'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: the policy %q has no %s", path, csp, want)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "script-src") {
			t.Errorf("%s: the policy is %q", path, csp)
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "X-Frame-Options": "DENY"} {
			if got.Get(name) != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got.Get(name), want)
			}
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
		if w := get(h, method, "localhost", "/"); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: status %d", method, w.Code)
		}
	}
}

// TestChart: parts become bars with the right heights, what waits is seen however
// little it is, and no time is drawn in which nothing was.
func TestChart(t *testing.T) {
	var quiet, busy, few tally
	busy[secure], busy[notFound], busy[invalid] = 60, 40, 1000
	few[notFound], few[temporary] = 9, 1
	c := newChart("Test", "then", []tally{quiet, busy, few}, time.Minute, time.Now())
	if c.Total != 110 || c.Protected != 60 || c.Waits != 1 || c.Rest() != 49 || c.Top != 100 || len(c.Bars) != 2 {
		t.Errorf("%+v", c)
	}
	for i, want := range []string{"protected 44.0 66.0, other 0.0 44.0", "waits 108.0 2.0, other 98.1 9.9"} {
		var got []string
		for _, p := range c.Bars[i].Parts {
			got = append(got, fmt.Sprintf("%s %.1f %.1f", p.Class, p.Y, p.Height))
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("bar %d is %v, want %s", i, got, want)
		}
	}
	if !strings.Contains(c.Bars[1].Words, "just now: 10 lookups, 0 protected, 1 made to wait") {
		t.Errorf("%q", c.Bars[1].Words)
	}
}

// TestPageCounts: the numbers on the page are those that were counted.
func TestPageCounts(t *testing.T) {
	s := fullStatus()
	x := newMetrics(s)
	p := &Page{Status: func() Status { return s }, Minutes: NewMinutes(x), Domains: func() bool { return true }}
	for range 3 {
		x.Zone("postfix").Count(&policy.Decision{Kind: policy.Enforce}, false, 0, 0)
	}
	x.Zone("QUERY").Count(&policy.Decision{Kind: policy.Failed}, false, 0, 0)
	v := p.view(time.Now())
	if v.Hour.Total != 4 || v.Hour.Protected != 3 || v.Charts[1].Waits != 1 || v.Results[secure] != (resultView{"policy enforced", 3, 3, 3}) {
		t.Errorf("%+v", v)
	}
}

// TestContrast computes the contrast of the colours in style.css by WCAG 2.2: 4.5
// for text (1.4.3), 3 for what is drawn (1.4.11), in both schemes.
func TestContrast(t *testing.T) {
	css, err := pageFiles.ReadFile("page/style.css")
	if err != nil {
		t.Fatal(err)
	}
	light, dark, ok := strings.Cut(string(css), "prefers-color-scheme: dark")
	if !ok {
		t.Fatal("there is one scheme")
	}
	dark, _, _ = strings.Cut(dark, "* { box-sizing")
	for name, text := range map[string]string{"light": light, "dark": dark} {
		colors := make(map[string]float64)
		for _, m := range regexp.MustCompile(`--(\w+): #([0-9a-f]{6});`).FindAllStringSubmatch(text, -1) {
			colors[m[1]] = luminance(t, m[2])
		}
		want := []string{"bad", "good", "ground", "line", "link", "other", "protected", "quiet", "raised", "text", "waits", "warn"}
		if got := slices.Sorted(maps.Keys(colors)); !slices.Equal(got, want) {
			t.Fatalf("%s has the colours %v", name, got)
		}
		for _, ground := range []string{"ground", "raised"} {
			for _, c := range []string{"text", "quiet", "link", "good", "warn", "bad"} {
				if r := contrast(colors[c], colors[ground]); r < 4.5 {
					t.Errorf("%s: %s on %s has a contrast of %.2f", name, c, ground, r)
				}
			}
			for _, c := range []string{"protected", "other", "waits"} {
				if r := contrast(colors[c], colors[ground]); r < 3 {
					t.Errorf("%s: %s on %s has a contrast of %.2f", name, c, ground, r)
				}
			}
		}
	}
	// No colour is named but in these lists.
	rest := regexp.MustCompile(`--\w+: #[0-9a-f]{6};`).ReplaceAllString(string(css), "")
	if m := regexp.MustCompile(`#[0-9a-f]{3,8}\b|rgba?\(|@import|url\(`).FindString(rest); m != "" {
		t.Errorf("style.css has %s", m)
	}
}

// luminance is that of a colour as hexadecimal digits (WCAG 2.2, relative
// luminance).
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	part := func(s string) float64 {
		n, err := strconv.ParseUint(s, 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		c := float64(n) / 255
		if c <= 0.04045 {
			return c / 12.92
		}
		return math.Pow((c+0.055)/1.055, 2.4)
	}
	return 0.2126*part(hex[:2]) + 0.7152*part(hex[2:4]) + 0.0722*part(hex[4:])
}

func contrast(a, b float64) float64 { return (max(a, b) + 0.05) / (min(a, b) + 0.05) }
