package cachetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"stsmap/cache"
)

// manyEntries is more than a store is likely to read in one step.
const manyEntries = 700

func many(t *testing.T, s cache.Store) map[string]cache.Entry {
	t.Helper()
	m := make(map[string]cache.Entry)
	for i := range manyEntries {
		e := policy(fmt.Sprintf("%d.example", i))
		if i%2 == 0 {
			e = none(e.Domain)
		}
		e.ID = fmt.Sprint(i)
		m[e.Domain] = e
	}
	return putAll(t, s, m)
}

func allComplete(t *testing.T, s cache.Store) {
	entries := many(t, s)
	got := make(map[string]cache.Entry)
	for e, err := range s.All(t.Context()) {
		if err != nil {
			t.Fatalf("All: %v", err)
		}
		if _, ok := got[e.Domain]; ok {
			t.Errorf("%s twice", e.Domain)
		}
		got[e.Domain] = e
	}
	if diff := cmp.Diff(entries, got); diff != "" {
		t.Errorf("All, -want +got:\n%s", diff)
	}
}

func allBreak(t *testing.T, s cache.Store) {
	many(t, s)
	n := 0
	for _, err := range s.All(t.Context()) {
		if n++; n == 3 || err != nil {
			break
		}
	}
	if n != 3 {
		t.Errorf("%d entries, want 3", n)
	}
	Put(t, s, policy("after.example")) // nothing is held
}

func allContext(t *testing.T, s cache.Store) {
	many(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	var last error
	for e, err := range s.All(ctx) {
		if last != nil {
			t.Fatal("All goes on after an error")
		}
		if last = err; err != nil && e != (cache.Entry{}) {
			t.Errorf("an entry came with the error: %+v", e)
		}
		if n++; n == 5 {
			cancel()
		}
	}
	if !errors.Is(last, context.Canceled) || n != 6 {
		t.Errorf("%d yields, the last with %v; want 5 entries and context.Canceled", n, last)
	}
}

func allWrites(t *testing.T, s cache.Store) {
	entries := many(t, s)
	seen := make(map[string]int)
	for e, err := range s.All(t.Context()) {
		if err != nil {
			t.Fatalf("All: %v", err)
		}
		seen[e.Domain]++
		if len(seen)%8 != 0 {
			continue
		}
		// What goes and comes again, and what is new, must not be seen twice.
		if err := s.Delete(t.Context(), e.Domain); err != nil {
			t.Fatal(err)
		}
		Put(t, s, e, none("new."+e.Domain))
		if err := s.Touch(t.Context(), map[string]time.Time{e.Domain: e.Used.Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	for d := range entries {
		if seen[d] == 0 {
			t.Errorf("%s was there all the time and not seen", d)
		}
	}
	for d, n := range seen {
		if n != 1 {
			t.Errorf("%s was seen %d times", d, n)
		}
	}
}
