package cachetest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"stsmap/cache"
)

// refreshing returns a policy that is due at the given time.
func refreshing(domain string, refresh time.Time) cache.Entry {
	e := policy(domain)
	e.Refresh = refresh
	return e
}

func takeDue(t *testing.T, s cache.Store, now time.Time, lease time.Duration, n int) []cache.Entry {
	t.Helper()
	taken, err := s.Due(t.Context(), now, lease, n)
	if err != nil {
		t.Fatalf("Due: %v", err)
	}
	return taken
}

func domains(entries []cache.Entry) []string {
	var ds []string
	for _, e := range entries {
		ds = append(ds, e.Domain)
	}
	return ds
}

func wantDue(t *testing.T, taken []cache.Entry, want ...string) {
	t.Helper()
	if got := domains(taken); !slices.Equal(got, want) {
		t.Fatalf("Due returned %q, want %q", got, want)
	}
}

func dueOrder(t *testing.T, s cache.Store) {
	b := base()
	third := refreshing("third.example", b)
	Put(t, s,
		refreshing("later.example", b.Add(time.Millisecond)),
		third,
		refreshing("never.example", time.Time{}), none("absent.example"),
		refreshing("first.example", time.Date(1969, 7, 20, 20, 17, 0, 0, time.UTC)),
		refreshing("second.example", b.Add(-time.Millisecond)),
	)
	taken := takeDue(t, s, b, time.Hour, 100)
	wantDue(t, taken, "first.example", "second.example", "third.example")
	if diff := cmp.Diff(third, taken[2]); diff != "" {
		t.Errorf("the entry is not what was put, -want +got:\n%s", diff)
	}
	wantDue(t, takeDue(t, s, b.Add(time.Millisecond), time.Hour, 100), "later.example")
}

func dueLimit(t *testing.T, s cache.Store) {
	b := base()
	for i := range 10 {
		Put(t, s, refreshing(fmt.Sprintf("%d.example", i), b.Add(time.Duration(i-20)*time.Minute)))
	}
	wantDue(t, takeDue(t, s, b, time.Hour, 0))
	wantDue(t, takeDue(t, s, b, time.Hour, 3), "0.example", "1.example", "2.example")
	wantDue(t, takeDue(t, s, b, time.Hour, 1), "3.example")
	if n := len(takeDue(t, s, b, time.Hour, 100)); n != 6 {
		t.Errorf("the rest is %d entries, want 6", n)
	}
}

func dueLease(t *testing.T, s cache.Store) {
	b := base()
	e := refreshing("example.com", b.Add(-time.Hour))
	Put(t, s, e)
	wantDue(t, takeDue(t, s, b, 10*time.Minute, 1), e.Domain)
	e.Refresh = b.Add(10 * time.Minute)
	want(t, s, e)
	wantDue(t, takeDue(t, s, b.Add(10*time.Minute-time.Millisecond), time.Hour, 1))
	again := takeDue(t, s, b.Add(10*time.Minute), 0, 5)
	wantDue(t, again, e.Domain) // once: without a lease it has a millisecond
	if !again[0].Refresh.Equal(e.Refresh) {
		t.Errorf("Refresh = %v, want that of the first lease, %v", again[0].Refresh, e.Refresh)
	}
}

func dueFollows(t *testing.T, s cache.Store) {
	b := base()
	Put(t, s, refreshing("moved.example", b.Add(-3*time.Hour)), refreshing("stopped.example", b.Add(-2*time.Hour)),
		refreshing("deleted.example", b.Add(-time.Hour)), refreshing("touched.example", b))
	Put(t, s, refreshing("moved.example", b.Add(time.Hour)), refreshing("stopped.example", time.Time{}))
	if err := s.Delete(t.Context(), "deleted.example"); err != nil {
		t.Fatal(err)
	}
	if err := s.Touch(t.Context(), map[string]time.Time{"touched.example": b.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	taken := takeDue(t, s, b, 2*time.Hour, 100)
	wantDue(t, taken, "touched.example")
	if !taken[0].Used.Equal(b.Add(time.Hour)) {
		t.Errorf("Used = %v, want what it was touched with", taken[0].Used)
	}
	wantDue(t, takeDue(t, s, b.Add(time.Hour), time.Hour, 1), "moved.example")
}

func dueTakers(t *testing.T, s cache.Store) {
	const entries, takers = 500, 4
	b := base()
	var wg sync.WaitGroup
	for w := range takers {
		wg.Go(func() {
			for i := w; i < entries; i += takers {
				if err := s.Put(t.Context(), refreshing(fmt.Sprintf("%d.example", i), b.Add(-time.Duration(i)*time.Second))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var mu sync.Mutex
	took := make(map[string]int)
	for range takers {
		wg.Go(func() {
			for {
				taken, err := s.Due(t.Context(), b, time.Hour, 7)
				if err != nil {
					t.Error(err)
				}
				if len(taken) == 0 {
					return
				}
				mu.Lock()
				for _, e := range taken {
					took[e.Domain]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(took) != entries {
		t.Errorf("%d entries were taken, want %d", len(took), entries)
	}
	for d, n := range took {
		if n != 1 {
			t.Errorf("%s was taken %d times", d, n)
		}
	}
}
