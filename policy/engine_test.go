package policy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/sts"
	"stsmap/stsfetch"
)

// brokenFetcher panics, as a bug would.
type brokenFetcher struct{}

func (brokenFetcher) Record(context.Context, string) (stsfetch.Record, error) { panic("bug") }
func (brokenFetcher) Policy(context.Context, string) (string, *sts.Policy, error) {
	panic("bug")
}

// TestPanic: a bug in a retrieval makes mail wait, with a trace in the log,
// and takes nothing else down.
func TestPanic(t *testing.T) {
	var mu sync.Mutex
	var panics []Event
	e := New(Config{Store: cache.NewMemory(10), Fetch: brokenFetcher{}, Observe: func(ev Event) {
		mu.Lock()
		defer mu.Unlock()
		if ev.Kind == Panicked {
			panics = append(panics, ev)
		}
	}})
	for _, domain := range []string{"example.com", "example.net"} {
		if d := e.Lookup(t.Context(), dane.NextHop{Domain: domain}, false); d.Kind != Failed {
			t.Errorf("decided %s", d.Kind)
		}
	}
	e.Close()
	if len(panics) != 2 || !strings.Contains(string(panics[0].Stack), "brokenFetcher") {
		t.Errorf("%d panics were told", len(panics))
	}
}

// TestPanicDANE: so does a bug in a check.
func TestPanicDANE(t *testing.T) {
	n := new(domain)
	if err := errors.Join(n.setRecord([]string{"A"}), n.setPolicy([]string{"enforce"})); err != nil {
		t.Fatal(err)
	}
	panics := make(chan Event, 1)
	e := New(Config{Store: cache.NewMemory(10), Fetch: n, Observe: func(ev Event) {
		if ev.Kind == Panicked {
			panics <- ev
		}
	}, DANE: DANEConfig{Check: func(context.Context, dane.NextHop) (dane.Result, error) { panic("bug") }}})
	e.AllowDANE(nil)
	defer e.Close()
	if d := e.Lookup(t.Context(), dane.NextHop{Domain: "example.com"}, false); d.Kind != Failed || d.Reason != "DANE: internal error" {
		t.Errorf("decided %s because %q", d.Kind, d.Reason)
	}
	if ev := <-panics; !strings.Contains(string(ev.Stack), "TestPanicDANE") {
		t.Errorf("told %v\n%s", ev.Err, ev.Stack)
	}
}

// TestClose: after Close lookups are answered, and nothing is started.
func TestClose(t *testing.T) {
	e := New(Config{Store: cache.NewMemory(10), Fetch: brokenFetcher{}})
	e.Close()
	if d := e.Lookup(t.Context(), dane.NextHop{Domain: "example.com"}, false); d.Kind != None || d.Reason != "shutting down" {
		t.Errorf("decided %s because %q", d.Kind, d.Reason)
	}
}

// TestClockSet: what is at hand holds until a time on the wall clock, so it is
// given up when that clock is set.
func TestClockSet(t *testing.T) {
	e := New(Config{Store: cache.NewMemory(10), Fetch: brokenFetcher{}})
	defer e.Close()
	d := &Decision{NextHop: "example.com", Domain: "example.com"}
	d.lasts(math.MaxInt64, math.MaxInt64)
	e.keep(d)
	e.findings.put("example.com", &finding{result: new(dane.Result), settled: true, until: math.MaxInt64})
	if e.Known([]byte("example.com"), false) == nil {
		t.Fatal("not at hand")
	}
	e.clock.Store(int64(time.Hour)) // as if the clock had been an hour ahead
	if e.Known([]byte("example.com"), false) != nil || e.ready.kept != 0 {
		t.Error("still at hand")
	}
	if f := e.findings.get("example.com"); f.until != 0 || f.result == nil {
		t.Error("what is known about DANE still counts, or is forgotten")
	}
}

// TestReady: what is at hand is bounded, what was put last about a domain is
// what is got, and what is dropped is gone.
func TestReady(t *testing.T) {
	const n, domains = 1000, 20000
	s := newDecisions(n)
	for i := range domains {
		name := fmt.Sprintf("d%d.example", i)
		for range 2 { // the second replaces the first
			d := &Decision{NextHop: name}
			s.put(d)
			if s.get([]byte(name)) != d {
				t.Fatalf("%s is not what was put", name)
			}
		}
	}
	found := 0
	for i := range domains {
		name := fmt.Sprintf("d%d.example", i)
		if d := s.get([]byte(name)); d != nil {
			found++
			s.drop(name)
			if s.get([]byte(name)) != nil {
				t.Fatalf("%s is dropped, and still there", name)
			}
		}
	}
	if found != n {
		t.Errorf("%d decisions were kept, want %d", found, n)
	}
	if s.kept != 0 {
		t.Errorf("all are dropped, and %d are counted", s.kept)
	}
}

// TestReadyHolds: half as many domains as there is room for stay, but for a
// few that met in one set.
func TestReadyHolds(t *testing.T) {
	const n = 10000
	s := newDecisions(n)
	for i := range n / 2 {
		s.put(&Decision{NextHop: fmt.Sprintf("d%d.example", i)})
	}
	lost := 0
	for i := range n / 2 {
		if s.get(fmt.Appendf(nil, "d%d.example", i)) == nil {
			lost++
		}
	}
	if lost > n/1000 {
		t.Errorf("%d of %d are lost", lost, n/2)
	}
}

// TestReadyRoom: decisions about policies as long as they can be do not take
// more memory than many usual ones, and the last is at hand all the same.
func TestReadyRoom(t *testing.T) {
	const n = 1000
	s := newDecisions(n)
	long := strings.Repeat("x", 90000)
	for i := range n {
		d := &Decision{NextHop: fmt.Sprintf("d%d.example", i), Answer: long}
		s.put(d)
		if s.get([]byte(d.NextHop)) != d {
			t.Fatalf("%s is not at hand", d.NextHop)
		}
		if s.used > n*usual {
			t.Fatalf("%d bytes are used", s.used)
		}
	}
	if s.kept < n*usual/91000-1 || s.kept > n*usual/90000 {
		t.Errorf("%d decisions are kept", s.kept)
	}
	for i := range n { // replaced by short ones, all fit
		s.put(&Decision{NextHop: fmt.Sprintf("d%d.example", i)})
	}
	s.clear()
	if s.kept != 0 || s.used != 0 {
		t.Errorf("nothing is kept, and %d decisions of %d bytes are counted", s.kept, s.used)
	}
}
