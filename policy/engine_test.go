package policy

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

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
	n := new(fakeDomain)
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

// TestAllowDANEUnchanged: a probe that finds what was known costs no answer its
// cached decision.
func TestAllowDANEUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{})
		defer x.close()
		x.AllowDANE(errors.New("off"))
		x.want("a.example", Enforce, "A")
		x.AllowDANE(errors.New("off"))
		if x.Cached([]byte("a.example"), false) == nil {
			t.Error("the decision has to be made anew")
		}
		x.AllowDANE(nil)
		if d := x.Cached([]byte("a.example"), false); d != nil {
			t.Errorf("DANE is on, and %s is still current", d)
		}
	})
}
