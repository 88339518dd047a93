package admin

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

//go:embed page
var pageFiles embed.FS

// A Page is the status page: HTML that is made here, needs no JavaScript and loads
// nothing but its style. All fields but Names must be set.
type Page struct {
	// Status says how the daemon is, and Minutes what it answered.
	Status  func() Status
	Minutes *Minutes
	// Names are what the page may be asked for as, beside addresses and
	// localhost: the names of this host. The first is shown.
	Names []string
	// Domains reports whether the page names domains; Handler calls it for each
	// request.
	Domains func() bool
	// Explain tells about a domain, as Private.Explained does.
	Explain func(ctx context.Context, key string) Explanation
}

// Handler returns what answers requests for the page. anyHost is for a socket
// that no browser can be led to.
func (p *Page) Handler(anyHost bool) http.Handler {
	style, _ := pageFiles.ReadFile("page/style.css")
	pages := template.Must(template.New("").Funcs(template.FuncMap{"px": px, "in": in, "plain": oneLine, "lines": lineList}).ParseFS(pageFiles, "page/*.html"))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		_, _ = w.Write(style)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { show(w, pages, "page.html", p.view(time.Now())) })
	mux.HandleFunc("GET /domain", func(w http.ResponseWriter, r *http.Request) {
		if !p.Domains() {
			http.NotFound(w, r)
			return
		}
		// Explaining a domain that is not known asks it. No page elsewhere is to
		// have browsers do that.
		if from := r.Header.Get("Sec-Fetch-Site"); from != "" && from != "same-origin" && from != "none" {
			deny(w, http.StatusForbidden, "A page elsewhere has sent you here. Type the address if you mean it.")
			return
		}
		unbounded(w) // the Engine has limits of its own
		show(w, pages, "domain.html", p.domainView(p.Explain(r.Context(), r.URL.Query().Get("name")), time.Now()))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		guard(w.Header())
		if !anyHost && !p.hasName(r.Host) {
			// Else a page elsewhere, whose name its owner lets resolve to
			// 127.0.0.1, could read this one by the browser of an administrator.
			deny(w, http.StatusMisdirectedRequest, "The status page is shown to who asks for it by an address, by localhost, or by the name of this host: "+
				strings.Join(p.Names, ", ")+".\nWhat is in front of it has to send such a Host field.")
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// deny says why a page is not shown.
func deny(w http.ResponseWriter, code int, why string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, why+"\n")
}

// guard sets the header fields that restrict browsers: the page loads its own
// style and nothing else, runs no script, is shown in no frame, and sends no
// Referer.
func guard(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// show answers with a page, which is made as a whole before any of it is sent.
func show(w http.ResponseWriter, pages *template.Template, name string, view any) {
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, name, view); err != nil {
		deny(w, http.StatusInternalServerError, "bug: "+err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(b.Bytes())
}

// host is the name of this host, for people.
func (p *Page) host() string {
	if len(p.Names) == 0 {
		return ""
	}
	return p.Names[0]
}

// hasName reports whether host, a Host field, is an address, localhost or a
// name of this host. An attacker cannot make any of them resolve to this host.
func (p *Page) hasName(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(strings.Trim(name, "[]"), "."))
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	return name == "localhost" || slices.Contains(p.Names, name)
}

// A pageView is what page.html shows.
type pageView struct {
	Status  Status
	Host    string
	Now, Up string
	Ready   bool
	Domains bool

	Hour    chart
	Charts  []chart
	Results []resultView

	Failures     []failureView
	MoreFailures int
	Changes      []changeView
	Facts        []fact
}

// A resultView is how many lookups came to one result.
type resultView struct {
	Words          string
	Hour, Day, All uint64
}

// A failureView is what fails: one domain, or how many, where none is named.
type failureView struct {
	Domain  string
	Number  int
	Since   string
	What    string
	InForce bool
}

// A changeView is something that happened.
type changeView struct{ Domain, When, What string }

// A fact is a line about what is around the daemon.
type fact struct {
	Name, Text string
	Bad        bool
}

// view makes what the page shows at the time now.
func (p *Page) view(now time.Time) pageView {
	s := p.Status()
	v := pageView{
		Status: s, Ready: s.Ready(), Domains: p.Domains(), Host: p.host(),
		Now: now.Local().Format("2006-01-02 15:04:05 MST"), Up: Span(now.Sub(s.Since)), Facts: facts(s, now),
	}
	hour, day := p.Minutes.last(60, 1), p.Minutes.last(48, 30)
	v.Hour = newChart("Last hour, by the minute", "an hour ago", hour, time.Minute, now)
	v.Charts = []chart{v.Hour, newChart("Last day, by the half hour", "a day ago", day, 30*time.Minute, now)}
	all := p.Minutes.total()
	for r := range result(results) {
		row := resultView{Words: resultWords(r), All: all[r]}
		for _, t := range hour {
			row.Hour += t[r]
		}
		for _, t := range day {
			row.Day += t[r]
		}
		v.Results = append(v.Results, row)
	}
	v.Failures, v.MoreFailures = failures(s, v.Domains, now)
	for _, c := range s.Changes {
		w := changeView{Domain: c.Domain, When: Span(now.Sub(c.Time)) + " ago", What: c.Message}
		if c.Count > 1 {
			w.What += fmt.Sprintf(" (%d times)", c.Count)
		}
		if v.Domains && c.Text != "" {
			w.What += ": " + c.Text
		}
		v.Changes = append(v.Changes, w)
	}
	return v
}

// failures are what fails now: each domain, or how many fail in the same way.
// Why a domain fails can name it, and so does not stand with the numbers.
func failures(s Status, domains bool, now time.Time) (all []failureView, more int) {
	for _, f := range s.Failures {
		since := Span(now.Sub(f.Since)) + " ago"
		if domains {
			all = append(all, failureView{Domain: f.Domain, Since: since, What: f.Message + ": " + f.Error, InForce: f.InForce})
			continue
		}
		i := slices.IndexFunc(all, func(v failureView) bool { return v.What == f.Message && v.InForce == f.InForce })
		if i < 0 {
			i = len(all)
			all = append(all, failureView{What: f.Message, Since: since, InForce: f.InForce})
		}
		all[i].Number++
	}
	return all, s.Omitted
}

// resultWords tells people what a result is.
func resultWords(r result) string {
	return [...]string{
		"policy enforced", "policy in mode testing", "policy in mode none", "DANE where it applies", "DANE only", "no policy", "override",
		"mail made to wait", "no domain (such as the parents that Postfix asks for)",
	}[r]
}

// facts are what is around the daemon.
func facts(s Status, now time.Time) []fact {
	var all []fact
	add := func(name string, bad bool, format string, args ...any) {
		all = append(all, fact{name, fmt.Sprintf(format, args...), bad})
	}
	add("Resolver", s.Resolver.Answering.Error != "", "%s%s", strings.Join(s.Resolver.Servers, ", "), conditionWords(s.Resolver.Answering, now))
	if v := s.Resolver.Validates; v.Verdict != "" {
		add("Validates DNSSEC", false, "%s", v.Verdict)
	}
	add("DANE goes first", false, "%s", strings.Join(append([]string{s.DANE.State}, s.DANE.Reasons...), ": "))
	release := s.Postfix.Release
	if release == "" {
		release = "release not known: " + s.Postfix.Error
	}
	attributes := "without policy attributes"
	if s.Postfix.Attributes {
		attributes = "with policy attributes"
	}
	add("Postfix", s.Postfix.Error != "", "%s, answered %s", release, attributes)
	bad := s.Store.Reading.Error != "" || s.Store.Writing.Error != ""
	add("Store", bad, "%s%s%s", s.Store.Name, conditionWords(s.Store.Reading, now), conditionWords(s.Store.Writing, now))
	if s.Store.Bytes != nil {
		add("Size of its file", false, "%s", size(*s.Store.Bytes))
	}
	if s.Store.Waiting > 0 {
		add("Not stored yet", true, "%d policies", s.Store.Waiting)
	}
	add("In memory", s.Memory.Policies > 0, "%d of %d domains", s.Memory.Entries, s.Memory.Most)
	connections := 0
	for _, n := range s.Connections.Listeners {
		connections += n
	}
	if n := len(s.Overrides.List); n > 0 || s.Overrides.Error != "" {
		over := 0
		for _, o := range s.Overrides.List {
			if o.Expired {
				over++
			}
		}
		add("Overrides", s.Overrides.Error != "", "%d, of which %d have expired", n, over)
	}
	add("Listens on", false, "%s (%d connections)", strings.Join(s.Listen, ", "), connections)
	add("Configuration", s.Reload.Error != "", "read %s ago", Span(now.Sub(s.Read)))
	return all
}

// conditionWords is the end of a line about something that can fail.
func conditionWords(c Condition, now time.Time) string {
	if c.Error == "" {
		return ""
	}
	return fmt.Sprintf("; fails for %s: %s", Span(now.Sub(c.Since)), oneLine(c.Error))
}

// Rest is how many answers were neither protected nor made mail wait.
func (c chart) Rest() uint64 { return c.Total - c.Protected - c.Waits }

// px is a number for SVG.
func px(v float64) string { return fmt.Sprintf("%.1f", v) }

// in is a time to come.
func in(t time.Time) string { return "in " + Span(time.Until(t)) }

// lineList are the lines of a text without their ends.
func lineList(text string) (all []string) {
	for line := range strings.Lines(text) {
		all = append(all, strings.TrimRight(line, "\r\n"))
	}
	return all
}

// size formats a number of bytes.
func size(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KB", (n+1023)>>10)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/(1<<20))
}

// Span formats a duration in its two greatest units; a negative one is zero.
func Span(d time.Duration) string {
	d = max(d, 0).Truncate(time.Second)
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return d.String()
}
