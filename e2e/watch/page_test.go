package watch

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestPage looks at the status page with Chromium, as narrow as a telephone and as
// wide as a desk, in light and in dark, without scripts. With $SHOTS it leaves
// pictures in that folder, which is how those in docs are made.
func TestPage(t *testing.T) {
	w := newWorld(t, scene(true, failingDNS, failingHTTPS, goodBulk, bodies))
	d := newDaemon(t, program(t), w, "dns.on_failure = \"defer\"\nadmin.show_domains = true\npostfix.dnssec = \"yes\"\npostfix.release = \"3.10.5\"\n"+
		fmt.Sprintf("cache.store = %q\n", "bolt:"+filepath.Join(t.TempDir(), "cache.db")))
	d.start(t)
	for range 3 {
		d.ask(t.Context(), append(numbered("d", ".bulk.example", 20), "servfail.example", "expired.example", "missing.example", "dane.example", "n1.bulk.example", ".bulk.example")...)
	}
	b := startBrowser(t)
	b.chromium(t, "Emulation.setScriptExecutionDisabled", map[string]any{"value": true}, nil)
	home := "http://" + d.admin + "/"
	pages := map[string]string{"status": home, "domain": home + "domain?name=d1.bulk.example"}
	grounds := make(map[string]bool)
	for name, page := range pages {
		for _, width := range []int{360, 1200} {
			for _, scheme := range []string{"light", "dark"} {
				b.looksLike(t, width, scheme)
				b.open(t, page)
				var ground string
				b.eval(t, "getComputedStyle(document.body).backgroundColor", &ground)
				grounds[scheme+" "+ground] = true
				var over int
				b.eval(t, "document.documentElement.scrollWidth - innerWidth", &over)
				if over > 0 {
					t.Errorf("%s is %d wider than %d", name, over, width)
				}
				if dir := os.Getenv("SHOTS"); dir != "" {
					write(t, dir, fmt.Sprintf("%s-%s-%d.png", name, scheme, width), string(b.picture(t)))
				}
			}
		}
		checkKeyboard(t, b, name)
	}
	// The form leads to the page of a domain, by the keyboard alone.
	b.open(t, home)
	b.send(t, "#name", "dane.example\ue007")
	var title string
	eventually(t, "the form is sent", func() error {
		b.eval(t, "document.title", &title)
		if title != "stsmap: dane.example" {
			return fmt.Errorf("the page is %q", title)
		}
		return nil
	})
	if len(grounds) != 2 {
		t.Errorf("grounds by scheme: %v", grounds)
	}
	if complaints := b.entries(t, "browser"); len(complaints) > 0 {
		t.Errorf("the browser complains, perhaps of what the page's own policy forbids: %q", complaints)
	}
	checkRequests(t, b, d.admin)
}

// checkKeyboard goes through a page with the tabulator: all that can be used is
// reached, in its order, and it is seen where one is.
func checkKeyboard(t *testing.T, b *browser, name string) {
	t.Helper()
	var want []string
	b.eval(t, `[...document.querySelectorAll("a, button, input, [tabindex]")].map(e => `+describeElement("e")+`)`, &want)
	if len(want) < 2 {
		t.Errorf("%s has only %q to use", name, want)
	}
	var got []string
	for range want {
		got = append(got, b.press(t))
		var outline string
		b.eval(t, `getComputedStyle(document.activeElement).outlineStyle`, &outline)
		if outline == "none" {
			t.Errorf("%s: it is not seen that %s has the focus", name, got[len(got)-1])
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: the tabulator leads to %q, want %q", name, got, want)
	}
}

// checkRequests reports requests to other hosts than the daemon.
func checkRequests(t *testing.T, b *browser, admin string) {
	t.Helper()
	n := 0
	for _, text := range b.entries(t, "performance") {
		var e struct {
			Message struct {
				Method string
				Params struct{ Request struct{ URL string } }
			}
		}
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatal(err)
		}
		if e.Message.Method != "Network.requestWillBeSent" {
			continue
		}
		u, err := url.Parse(e.Message.Params.Request.URL)
		switch {
		case err == nil && u.Scheme == "http" && u.Host == admin:
			n++
		case err == nil && (u.Scheme == "data" || u.Scheme == "chrome"): // within the browser: its empty tab
		default:
			t.Errorf("asked for %s", e.Message.Params.Request.URL)
		}
	}
	if n < 16 || !strings.Contains(admin, ":") {
		t.Errorf("only %d requests were seen: the search is broken", n)
	}
}
