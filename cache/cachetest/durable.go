package cachetest

import (
	"maps"
	"slices"
	"testing"
	"time"

	"stsmap/cache"
)

// TestDurable tests stores that keep what they know when they are closed and
// opened again. start begins with nothing and returns a function that opens the
// same store each time it is called; TestDurable closes each before it opens
// the next.
func TestDurable(t *testing.T, start func(t *testing.T) (open func() cache.Store)) {
	t.Run("all is there after reopening", func(t *testing.T) {
		open := start(t)
		s := open()
		entries := many(t, s)
		touched := entries["7.example"]
		touched.Used = touched.Used.Add(time.Hour)
		entries[touched.Domain] = touched
		if err := s.Touch(t.Context(), map[string]time.Time{touched.Domain: touched.Used}); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(t.Context(), "9.example"); err != nil {
			t.Fatal(err)
		}
		delete(entries, "9.example")
		s = reopen(t, s, open)
		for _, d := range slices.Sorted(maps.Keys(entries)) {
			want(t, s, entries[d])
		}
		wantNone(t, s, "9.example")
		closeStore(t, s)
	})
	t.Run("leases are kept", func(t *testing.T) {
		open := start(t)
		s := open()
		b := base()
		Put(t, s, refreshing("one.example", b.Add(-time.Hour)), refreshing("two.example", b))
		wantDue(t, takeDue(t, s, b, time.Hour, 1), "one.example")
		s = reopen(t, s, open)
		wantDue(t, takeDue(t, s, b, time.Hour, 10), "two.example")
		s = reopen(t, s, open)
		wantDue(t, takeDue(t, s, b.Add(time.Hour), time.Hour, 10), "one.example", "two.example")
		closeStore(t, s)
	})
}

func reopen(t *testing.T, s cache.Store, open func() cache.Store) cache.Store {
	t.Helper()
	closeStore(t, s)
	return open()
}

func closeStore(t *testing.T, s cache.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}
