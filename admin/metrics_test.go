package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/override"
	"stsmap/policy"
	"stsmap/resolver"
	"stsmap/sts"
	"stsmap/stsfetch"
)

// fullStatus is one with everything that a Status can have.
func fullStatus() Status {
	bytes := int64(4096)
	return Status{
		DANE:        DANEStatus{State: "on"},
		Resolver:    ResolverStatus{Validates: ProbeResult{Verdict: "yes"}},
		Store:       StoreStatus{Bytes: &bytes},
		Checks:      []Check{{Name: "configuration"}, {Name: "store", Error: "away"}, {Name: "resolver"}},
		Connections: ConnectionStatus{Listeners: map[string]int{"127.0.0.1:8461": 3}},
		Attributes:  map[string]bool{"postfix": true},
		Cache:       &Survey{Modes: map[string]int64{"enforce": 1, "testing": 2, "none": 3, Absent: 4}},
	}
}

// newMetrics returns metrics of a monitor that logs nothing.
func newMetrics(s Status) *Metrics {
	x := NewMetrics(NewMonitor(slog.New(slog.DiscardHandler), "none"), "1", "abc", func() Status { return s })
	x.Zone("postfix")
	return x
}

// scrape returns what Prometheus would get.
func scrape(t *testing.T, x *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	x.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// TestDocumented: docs/metrics.md has every metric with its type and labels, and
// all values that a label can have, and none that the program has not.
func TestDocumented(t *testing.T) {
	have := make(map[string]string)
	values := make(map[string]map[string]bool) // by "metric label"
	for line := range strings.Lines(scrape(t, newMetrics(fullStatus()))) {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok && strings.HasPrefix(name, "stsmap_") {
			name, typ, _ := strings.Cut(strings.TrimSpace(name), " ")
			have[name] = typ
		}
		for _, label := range regexp.MustCompile(`(\w+)="([^"]*)"`).FindAllStringSubmatch(line, -1) {
			name, _, _ := strings.Cut(line, "{")
			name = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
			key := name + " " + label[1]
			if values[key] == nil {
				values[key] = make(map[string]bool)
			}
			values[key][label[2]] = true
		}
	}
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	told := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `(stsmap_\\w+)` \\| (\\w+) \\| (.*?) \\|").FindAllStringSubmatch(string(text), -1) {
		name, labels := row[1], row[3]
		told[name] = row[2]
		for _, l := range regexp.MustCompile(`\*(\w+)\*: ([^;]*)`).FindAllStringSubmatch(labels, -1) {
			if l[1] == "zone" {
				continue
			}
			if got, want := slices.Sorted(maps.Keys(values[name+" "+l[1]])), slices.Sorted(strings.SplitSeq(l[2], ", ")); !slices.Equal(got, want) {
				t.Errorf("%s has for %s the values %v, docs/metrics.md says %v", name, l[1], got, want)
			}
		}
	}
	if !maps.Equal(have, told) {
		for name := range have {
			if told[name] != have[name] {
				t.Errorf("docs/metrics.md says of %s, a %s: %q", name, have[name], told[name])
			}
		}
		for name := range told {
			if have[name] == "" {
				t.Errorf("docs/metrics.md has %s, the program has not", name)
			}
		}
	}
	if len(have) < 30 {
		t.Errorf("only %d metrics were found: the search is broken", len(have))
	}
}

// TestMetricEvents: what each event adds to.
func TestMetricEvents(t *testing.T) {
	held := &cache.Entry{Domain: "example.com", Policy: "version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 86400\n"}
	broken := func(s stsfetch.Step) error { return &stsfetch.Error{Step: s, Err: errors.New("x")} }
	for _, c := range []struct {
		ev   policy.Event
		want []string
	}{
		{policy.Event{Kind: policy.PolicyNew, After: held}, []string{`policy_fetches_total{result="ok",trigger="miss"} 1`, `policy_fetch_duration_seconds_count 1`}},
		{policy.Event{Kind: policy.PolicyChanged, After: held, Trigger: policy.OnID}, []string{`policy_fetches_total{result="ok",trigger="id"} 1`}},
		{policy.Event{Kind: policy.PolicyRenewed, After: held, Trigger: policy.OnRefresh}, []string{`policy_fetches_total{result="unchanged",trigger="refresh"} 1`}},
		{policy.Event{Kind: policy.PolicyFailed, After: held, Trigger: policy.OnRequest, Err: broken(stsfetch.StepCert)},
			[]string{`policy_fetches_total{result="cert",trigger="manual"} 1`, `cache_served_after_failed_refresh_total 1`}},
		{policy.Event{Kind: policy.PolicyFailed, After: new(cache.Entry), Err: errors.New("x")},
			[]string{`policy_fetches_total{result="other",trigger="miss"} 1`, `cache_served_after_failed_refresh_total 0`}},
		{policy.Event{Kind: policy.StoreFailed, Op: policy.OpPut, Err: errors.New("x")}, []string{`store_errors_total{op="put"} 1`}},
		{policy.Event{Kind: policy.DANEChecked, DANE: &dane.Result{Hosts: []dane.Host{{State: dane.Usable}}}}, []string{`dane_checks_total{result="usable"} 1`}},
		{policy.Event{Kind: policy.DANEChecked, DANE: &dane.Result{Hosts: []dane.Host{{State: dane.Usable}, {State: dane.Failed}}}}, []string{`dane_checks_total{result="partial"} 1`}},
		{policy.Event{Kind: policy.DANEChecked, DANE: &dane.Result{Hosts: []dane.Host{{State: dane.Unusable}}}}, []string{`dane_checks_total{result="unusable"} 1`}},
		{policy.Event{Kind: policy.DANEChecked, DANE: new(dane.Result)}, []string{`dane_checks_total{result="none"} 1`}},
		{policy.Event{Kind: policy.DANEFailed, Err: errors.New("x")}, []string{`dane_checks_total{result="failed"} 1`}},
		{policy.Event{Kind: policy.Panicked, Err: errors.New("x")}, []string{`retrieval_panics_total 1`}},
	} {
		x := newMetrics(Status{})
		x.Observe(c.ev)
		text := scrape(t, x)
		for _, want := range c.want {
			if !strings.Contains(text, "\nstsmap_"+want+"\n") {
				t.Errorf("kind %d, trigger %s: there is no %s", c.ev.Kind, c.ev.Trigger, want)
			}
		}
	}
}

// TestKept: only a policy that the store took moves the time of the last write.
func TestKept(t *testing.T) {
	x := newMetrics(Status{})
	policies := &cache.Entry{Policy: "p"}
	for _, ev := range []policy.Event{
		{Kind: policy.PolicyNew, After: policies}, {Kind: policy.RecordAbsent, After: new(cache.Entry), Kept: true},
	} {
		x.Observe(ev)
	}
	const none = "\nstsmap_store_last_write_timestamp_seconds 0\n"
	if !strings.Contains(scrape(t, x), none) {
		t.Error("something else was taken for a write")
	}
	x.Observe(policy.Event{Kind: policy.PolicyNew, After: policies, Kept: true})
	if strings.Contains(scrape(t, x), none) {
		t.Error("a write was not noted")
	}
}

// TestResults: the label of each decision, by zone and by source.
func TestResults(t *testing.T) {
	x := newMetrics(Status{})
	z := x.Zone("postfix")
	for _, d := range []*policy.Decision{
		{Kind: policy.Enforce}, {Kind: policy.Testing}, {Kind: policy.None, STS: new(sts.Policy)}, {Kind: policy.None},
		{Kind: policy.DANE}, {Kind: policy.DANEOnly}, {Kind: policy.Failed}, nil,
		{Kind: policy.Failed, Override: &override.Override{Action: override.Defer}}, {Kind: policy.Replied, Override: &override.Override{Action: override.Reply}},
		{Kind: policy.Enforce, Override: &override.Override{Action: override.Enforce}},
	} {
		z.Count(d, false, 0, 0)
	}
	z.Count(nil, false, 100*time.Microsecond, 64)
	z.Count(nil, true, 3*time.Second, 1)
	z.Count(nil, true, time.Minute, 1)
	x.monitor.Observe(policy.Event{Kind: policy.Lookup, Source: policy.Stale, Decision: new(policy.Decision)})
	text := scrape(t, x)
	for _, want := range []string{
		`lookups_total{result="override",zone="postfix"} 2`, `override_uses_total 3`, `lookups_total{result="secure",zone="postfix"} 2`, `lookups_total{result="testing",zone="postfix"} 1`, `lookups_total{result="none",zone="postfix"} 1`,
		`lookups_total{result="notfound",zone="postfix"} 1`, `lookups_total{result="dane",zone="postfix"} 1`, `lookups_total{result="dane-only",zone="postfix"} 1`,
		`lookups_total{result="temp",zone="postfix"} 1`, `lookups_total{result="invalid",zone="postfix"} 4`,
		`lookup_duration_seconds_count{source="cache"} 64`, `lookup_duration_seconds_bucket{source="cache",le="0.001"} 64`,
		`lookup_duration_seconds_bucket{source="live",le="2"} 0`, `lookup_duration_seconds_bucket{source="live",le="5"} 1`,
		`lookup_duration_seconds_bucket{source="live",le="30"} 1`, `lookup_duration_seconds_bucket{source="live",le="+Inf"} 2`,
		`lookup_duration_seconds_sum{source="live"} 63`,
		`cache_requests_total{result="stale"} 1`, `cache_requests_total{result="fresh"} 0`,
	} {
		if !strings.Contains(text, "\nstsmap_"+want+"\n") {
			t.Errorf("there is no %s", want)
		}
	}
}

// TestNoAllocation: counting a cached answer does not allocate.
func TestNoAllocation(t *testing.T) {
	x := newMetrics(Status{})
	z := x.Zone("postfix")
	ev := policy.Event{Kind: policy.Lookup, Domain: "example.com", Decision: &policy.Decision{Kind: policy.Enforce}}
	if n := testing.AllocsPerRun(1000, func() {
		x.monitor.Observe(ev)
		z.Count(ev.Decision, false, time.Microsecond, 64)
		z.Count(nil, false, 0, 0)
	}); n != 0 {
		t.Errorf("%v allocations an answer, want 0", n)
	}
}

// TestQuestions: the resolver counts as away when nothing at all is heard of it,
// not when a domain is broken.
func TestQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuestions()
		fail := func(k resolver.Kind, server string) resolver.QueryResult {
			return resolver.QueryResult{Type: "TXT", Err: &resolver.Error{Name: "a.example", Type: "TXT", Server: server, Kind: k}}
		}
		for range 4 {
			q.Observe(fail(resolver.Timeout, "192.0.2.1:53"))
		}
		q.Observe(fail(resolver.ServFail, "192.0.2.1:53"))
		for range 100 {
			q.Observe(fail(resolver.Timeout, "")) // no server was queried
			canceled := fail(resolver.Timeout, "192.0.2.1:53")
			canceled.Err.Err = context.Canceled // addresses of one kind did not wait for the other
			q.Observe(canceled)
		}
		for range 4 {
			q.Observe(fail(resolver.Network, "192.0.2.1:53"))
		}
		if got := q.Answering(); got != (Condition{}) {
			t.Errorf("away too early: %+v", got)
		}
		q.Observe(fail(resolver.Refused, "192.0.2.1:53"))
		away := q.Answering()
		if away.Error != "192.0.2.1:53: refused" || !away.Since.Equal(time.Now()) {
			t.Errorf("not away: %+v", away)
		}
		time.Sleep(time.Hour)
		q.Observe(fail(resolver.Timeout, "192.0.2.1:53"))
		if got := q.Answering(); got != away {
			t.Errorf("away anew: %+v", got)
		}
		q.Observe(resolver.QueryResult{Type: "A", Empty: true})
		if got := q.Answering(); got.Error != "" || !got.Since.Equal(time.Now()) {
			t.Errorf("not back: %+v", got)
		}
	})
}

// TestMinutes: parts of the past, before the first minute, within one, and after
// more than there is room for.
func TestMinutes(t *testing.T) {
	x := newMetrics(Status{})
	z, m := x.Zone("postfix"), NewMinutes(x)
	add := func(n int) {
		for range n {
			z.Count(&policy.Decision{Kind: policy.Enforce}, false, 0, 0)
		}
	}
	want := func(what string, n, minutes int, want ...uint64) {
		t.Helper()
		var got []uint64
		for _, p := range m.last(n, minutes) {
			got = append(got, p[secure])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	want("nothing yet", 3, 1, 0, 0, 0)
	add(5)
	want("the first minute", 3, 1, 0, 0, 5)
	m.mark()
	add(2)
	want("the second", 3, 1, 0, 5, 2)
	want("in twos", 2, 2, 0, 7)
	m.mark()
	m.mark()
	add(1)
	want("with a quiet one", 4, 1, 5, 2, 0, 1)
	want("in twos again", 2, 2, 7, 1)
	for range 2 * keptMinutes {
		m.mark()
		add(1)
	}
	want("a day", 2, keptMinutes/2, keptMinutes/2, keptMinutes/2)
}

// TestSurvey: a Survey has the right counts, and lists the policies that expire
// soon, the soonest first.
func TestSurvey(t *testing.T) {
	store, now := cache.NewMemory(1000), time.Now()
	put := func(e cache.Entry) {
		t.Helper()
		if err := store.Put(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 30 {
		e := enforced(fmt.Sprintf("d%02d.example", i), now)
		e.Expires, e.Failures, e.Error = now.Add(23*time.Hour-time.Duration(i)*time.Minute), 1, "x"
		put(e)
	}
	long := enforced("long.example", now)
	long.Expires, long.Failures = now.Add(25*time.Hour), 1
	put(long)
	fine := enforced("fine.example", now)
	fine.Expires = now.Add(time.Hour)
	put(fine)
	gone := enforced("gone.example", now.Add(-48*time.Hour))
	put(gone)
	no := enforced("no.example", now)
	no.Policy, no.Failures = "version: STSv1\nmode: none\nmax_age: 86400\n", 1
	put(no)
	put(cache.Entry{Domain: "absent.example", Checked: now, Expires: now.Add(time.Hour)})
	s, err := NewSurveyor(store.All, time.Minute).count(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]int64{"enforce": 32, "testing": 0, "none": 1, Absent: 1}; !maps.Equal(s.Modes, want) {
		t.Errorf("%v, want %v", s.Modes, want)
	}
	if s.Expired != 1 || s.Failing != 32 || s.Lapsing != 30 || len(s.Soonest) != maxLapsing || s.Soonest[0].Domain != "d29.example" || s.Soonest[1].Domain != "d28.example" {
		t.Errorf("%+v", s)
	}
	v := NewSurveyor((&broken{Store: store, after: 3}).All, time.Minute)
	if _, err := v.count(t.Context()); !errors.Is(err, errDisk) {
		t.Errorf("a walk that broke off: %v", err)
	}
}

// TestConcurrentScrapes: counting and scraping at the same time, for the race
// detector.
func TestConcurrentScrapes(t *testing.T) {
	x := newMetrics(fullStatus())
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 200 {
				x.Zone("QUERY").Count(nil, true, time.Second, 1)
				x.Questions.Observe(resolver.QueryResult{Type: "TXT"})
				x.Observe(policy.Event{Kind: policy.PolicyRenewed, After: new(cache.Entry)})
			}
		})
	}
	all.Go(func() {
		for range 5 {
			_, _ = io.WriteString(io.Discard, scrape(t, x))
		}
	})
	all.Wait()
	if !strings.Contains(scrape(t, x), `stsmap_lookups_total{result="invalid",zone="QUERY"} 800`) {
		t.Error("some were not counted")
	}
}

// BenchmarkCounting measures counting of a cached answer, on all processors at
// once.
func BenchmarkCounting(b *testing.B) {
	x := NewMetrics(NewMonitor(slog.New(slog.DiscardHandler), "none"), "", "", func() Status { return Status{} })
	z := x.Zone("postfix")
	ev := policy.Event{Kind: policy.Lookup, Domain: "example.com", Decision: &policy.Decision{Kind: policy.Enforce}}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			x.monitor.Observe(ev)
			z.Count(ev.Decision, false, 0, 0)
		}
	})
}
