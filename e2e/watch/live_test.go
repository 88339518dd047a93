package watch

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// scene makes the description of a small internet: what is always there, and what
// changes. It looks as if DNSSEC was validated if secure is set.
func scene(secure bool, dns, https, bulk, policies string) string {
	text := "\n-- dns --\n. NS ns.example.\n" + dns
	if secure {
		text += "!ad * *\n"
	}
	return text + "-- https --\n" + https + "-- bulk --\n" + bulk + policies
}

const (
	// failingDNS and failingHTTPS are domains whose policies cannot be fetched, for
	// different reasons.
	failingDNS = `_mta-sts.servfail.example. TXT "v=STSv1; id=A;"
!servfail _mta-sts.servfail.example TXT
_mta-sts.two.example. TXT "v=STSv1; id=A;"
_mta-sts.two.example. TXT "v=STSv1; id=B;"
_mta-sts.expired.example. TXT "v=STSv1; id=A;"
mta-sts.expired.example. A 127.0.0.4
_mta-sts.missing.example. TXT "v=STSv1; id=A;"
mta-sts.missing.example. A 127.0.0.4
_mta-sts.broken.example. TXT "v=STSv1; id=A;"
mta-sts.broken.example. A 127.0.0.4
_mta-sts.dane.example. TXT "v=STSv1; id=A;"
mta-sts.dane.example. A 127.0.0.4
dane.example. MX 10 mx.dane.example.
mx.dane.example. A 127.0.0.11
!tlsa mx.dane.example 3 1 1
`
	failingHTTPS = `mta-sts.expired.example addr=127.0.0.4 cert=expired policy=p
mta-sts.missing.example addr=127.0.0.4 status=404
mta-sts.broken.example addr=127.0.0.4 policy=broken
mta-sts.dane.example addr=127.0.0.4 policy=p
`
	goodBulk = `policy d%d.bulk.example 1..60 addr=127.0.0.2 mx=mx.bulk.example mxaddr=127.0.0.11
policy t%d.bulk.example 1..10 addr=127.0.0.2 mode=testing mx=mx.bulk.example
policy s%d.bulk.example 1..5000 addr=127.0.0.3 mx=mx.bulk.example httpdelay=7s
none n%d.bulk.example 1..5000 mx=mx.bulk.example
`
	bodies = `-- policy/p --
version: STSv1
mode: enforce
mx: mx.dane.example
max_age: 604800
-- policy/broken --
version: STSv1
mode: whatever
max_age: 1
-- smtp --
mx.dane.example addr=127.0.0.11
`
	before = `policy w%d.bulk.example 1..20 addr=127.0.0.2 mode=enforce id=1 mx=mx.bulk.example
policy l%d.bulk.example 1..3 addr=127.0.0.2 max_age=80000 mx=mx.bulk.example
policy x%d.bulk.example 1..2 addr=127.0.0.2 max_age=2 mx=mx.bulk.example
`
	after = `policy w%d.bulk.example 1..20 addr=127.0.0.2 mode=testing id=2 mx=mx.bulk.example
`
)

// unserved is DNS for domains whose policy hosts do not listen.
func unserved(names ...string) string {
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "_mta-sts.%s. TXT \"v=STSv1; id=B;\"\nmta-sts.%s. A 127.0.0.9\n", name, name)
	}
	return b.String()
}

// hurried are the rules with seconds in the place of minutes: the real spans are
// for promtool.
func hurried(t *testing.T) string {
	t.Helper()
	text := read(t, share+"/alerts.yml")
	text = regexp.MustCompile(`(?m)^ +for: .*\n`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`\[\d+[mh]\]`).ReplaceAllString(text, "[30s]")
	return strings.ReplaceAll(text, "> 3600", "> 15")
}

// TestLive has a real Prometheus scrape two daemons under a load with faults: each
// alert fires but that for bugs, and each panel has something to show.
func TestLive(t *testing.T) {
	bin := program(t)
	healthyDNS, brokenDNS := failingDNS, failingDNS+unserved(numbered("u", ".example", 60)...)
	w := newWorld(t, scene(true, healthyDNS, failingHTTPS, goodBulk+before, bodies))
	v := newWorld(t, scene(false, brokenDNS, failingHTTPS, goodBulk, bodies))
	healthy := newDaemon(t, bin, w, "dns.on_failure = \"defer\"\npostfix.dnssec = \"yes\"\npostfix.release = \"3.10.5\"\n"+
		fmt.Sprintf("cache.store = %q\n", "bolt:"+filepath.Join(t.TempDir(), "cache.db")))
	overrides := write(t, t.TempDir(), "overrides.toml", "[[override]]\ndomain = \"two.example\"\naction = \"exempt\"\nuntil = 2026-01-01\nreason = \"a test\"\n"+
		"[[override]]\ndomain = \"d1.bulk.example\"\naction = \"reply\"\ntext = \"encrypt\"\nreason = \"a test\"\n")
	broken := newDaemon(t, bin, v, fmt.Sprintf("overrides.file = %q\n", overrides)+"postfix.dnssec = \"yes\"\npostfix.release = \"3.7.11\"\ncache.entries = 5\n"+
		fmt.Sprintf("cache.store = \"redis://%s\"\n", free(t)))
	healthy.start(t)
	broken.start(t)
	p := startPrometheus(t, hurried(t), healthy, broken)
	ends := load(t, healthy, broken)

	// Nothing is wrong yet, but what the load does.
	eventually(t, "both are scraped", func() error { return p.has("stsmap_build_info", 2) })
	checkMetrics(t, healthy)
	fire(t, p, healthy, "StsmapDefersMail", "StsmapSlow")
	fire(t, p, broken, "StsmapStoreDown", "StsmapNotPersisted", "StsmapCacheTooSmall", "StsmapResolverNotValidating", "StsmapFetchesFail", "StsmapOverrideExpired")

	// What is weakened, and what cannot be refreshed any more.
	weak, lapsing := numbered("w", ".bulk.example", 20), numbered("l", ".bulk.example", 3)
	healthy.run(append([]string{"cache", "refresh"}, append(weak, lapsing...)...)...)
	w.update(t, scene(true, healthyDNS+unserved(lapsing...)+unserved(numbered("x", ".bulk.example", 2)...), failingHTTPS, goodBulk+after, bodies))
	healthy.run(append([]string{"cache", "refresh"}, append(weak, lapsing...)...)...)
	fire(t, p, healthy, "StsmapPoliciesWeakened")
	noneEmpty(t, p)
	fire(t, p, healthy, "StsmapPoliciesLapse")

	// A configuration that is wrong, and a resolver that does not answer.
	good := read(t, filepath.Join(broken.dir, "stsmap.toml"))
	broken.configure(t, good+"nonsense = 1\n")
	reload(t, broken)
	v.update(t, "\n-- dns --\n!silent *\n")
	fire(t, p, broken, "StsmapReloadFailed", "StsmapResolverDown")

	ends()
	broken.kill()
	fire(t, p, broken, "StsmapDown")
	quiet(t, p, healthy, "StsmapDown", "StsmapStoreDown", "StsmapNotPersisted", "StsmapReloadFailed", "StsmapResolverDown", "StsmapResolverNotValidating", "StsmapBug", "StsmapCacheTooSmall")
}

// load asks both daemons without end, each for what it is good for, until what is
// returned is called.
func load(t *testing.T, healthy, broken *daemon) (end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	every := func(d *daemon, keys func(round int) []string) {
		running.Go(func() {
			for round := 0; ctx.Err() == nil; round++ {
				d.ask(ctx, keys(round)...)
				select {
				case <-ctx.Done():
				case <-time.After(200 * time.Millisecond):
				}
			}
		})
	}
	always := append(numbered("d", ".bulk.example", 20), "t1.bulk.example", "servfail.example", "two.example", "expired.example", "missing.example",
		"broken.example", "dane.example", "x1.bulk.example", ".bulk.example", "[192.0.2.1]")
	every(healthy, func(round int) []string { return append(always, fmt.Sprintf("n%d.bulk.example", round%5000+1)) })
	for i := range 10 { // each waits for seconds most of the time
		every(healthy, func(round int) []string { return []string{fmt.Sprintf("s%d.bulk.example", i*400+round%400+1)} })
	}
	every(broken, func(round int) []string {
		// Never the same ones, for it has room for five.
		names := []string{fmt.Sprintf("d%d.bulk.example", round%60+1), fmt.Sprintf("t%d.bulk.example", round%10+1), "two.example"}
		for i := range 6 {
			names = append(names, fmt.Sprintf("u%d.example", (6*round+i)%60+1))
		}
		return append(names, "missing.example", "expired.example", "broken.example")
	})
	end = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(end)
	return end
}

// reload has a daemon read its configuration again.
func reload(t *testing.T, d *daemon) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// has returns why a query has not so many samples, or nil.
func (p *prometheus) has(expr string, n int) error {
	got, err := p.query(expr)
	if err == nil && len(got) != n {
		err = fmt.Errorf("%s: %d samples, want %d", expr, len(got), n)
	}
	return err
}

// fire waits until alerts about a daemon were seen to fire.
func fire(t *testing.T, p *prometheus, d *daemon, names ...string) {
	t.Helper()
	for _, name := range names {
		expr := fmt.Sprintf(`max_over_time(ALERTS{alertname=%q, alertstate="firing", instance=%q}[10m])`, name, d.admin)
		eventually(t, name, func() error { return p.has(expr, 1) })
		t.Logf("%s was seen firing", name)
	}
}

// quiet checks that alerts about a daemon never fired.
func quiet(t *testing.T, p *prometheus, d *daemon, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := p.has(fmt.Sprintf(`max_over_time(ALERTS{alertname=%q, alertstate="firing", instance=%q}[10m])`, name, d.admin), 0); err != nil {
			t.Errorf("%s fired: %v", name, err)
		}
	}
}

// noneEmpty waits until each panel of the dashboard has had something to show, and
// each annotation has been there.
func noneEmpty(t *testing.T, p *prometheus) {
	t.Helper()
	panels, annotations := dashboard(t)
	for _, q := range panels {
		eventually(t, "panel "+q.panel, func() error {
			got, err := p.query(q.expr)
			if err == nil && !slices.ContainsFunc(got, func(s sample) bool { _, ok := s.number(); return ok }) {
				err = fmt.Errorf("%s has nothing: %v", q.expr, got)
			}
			return err
		})
	}
	for _, q := range annotations {
		if !strings.Contains(q.expr, "weakened") {
			if _, err := p.query(q.expr); err != nil {
				t.Error(err)
			}
			continue
		}
		eventually(t, "annotation "+q.panel, func() error {
			got, err := p.query(q.expr)
			if err == nil && len(got) == 0 {
				err = fmt.Errorf("%s has nothing", q.expr)
			}
			return err
		})
	}
	t.Logf("%d queries of panels and %d of annotations were tried", len(panels), len(annotations))
}

// checkMetrics has promtool read the metrics of a daemon that has done all kinds
// of things.
func checkMetrics(t *testing.T, d *daemon) {
	t.Helper()
	text := scrape(t, d)
	path := write(t, t.TempDir(), "metrics", text)
	in, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if out, err := promtoolReading(in, "check", "metrics"); err != nil || out != "" {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	if strings.Contains(text, "example") {
		t.Error("a metric has a domain")
	}
}
