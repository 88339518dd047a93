package policy

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"stsmap/cache"
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
	for range 2 {
		if d := e.Lookup(t.Context(), "example.com"); d.Kind != Failed {
			t.Errorf("decided %s", d.Kind)
		}
	}
	e.Close()
	if len(panics) != 2 || !strings.Contains(string(panics[0].Stack), "brokenFetcher") {
		t.Errorf("%d panics were told", len(panics))
	}
}

// TestClose: after Close lookups are answered, and nothing is started.
func TestClose(t *testing.T) {
	e := New(Config{Store: cache.NewMemory(10), Fetch: brokenFetcher{}})
	e.Close()
	if d := e.Lookup(t.Context(), "example.com"); d.Kind != None || d.Reason != "shutting down" {
		t.Errorf("decided %s because %q", d.Kind, d.Reason)
	}
}

// TestReadyIsBounded: what is at hand is bounded, and what is in use stays.
func TestReadyIsBounded(t *testing.T) {
	s := newDecisions(100)
	favourite := &Decision{Domain: "favourite.example"}
	s.put(favourite)
	for i := range 1000 {
		s.put(&Decision{Domain: fmt.Sprintf("d%d.example", i)})
		if s.get([]byte("favourite.example")) != favourite {
			t.Fatalf("lost after %d others", i+1)
		}
		if n := len(s.young) + len(s.old); n > 100 {
			t.Fatalf("%d decisions are kept", n)
		}
	}
	newer := &Decision{Domain: "favourite.example"}
	s.put(newer)
	if s.get([]byte("favourite.example")) != newer {
		t.Error("a newer decision does not replace an older one")
	}
	s.drop("favourite.example")
	if s.get([]byte("favourite.example")) != nil {
		t.Error("dropped, and still there")
	}
}
