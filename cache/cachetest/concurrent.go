package cachetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"stsmap/cache"
)

// putAll stores entries with several writers at once, and returns them.
func putAll(t *testing.T, s cache.Store, entries map[string]cache.Entry) map[string]cache.Entry {
	t.Helper()
	work := make(chan cache.Entry)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for e := range work {
				if err := s.Put(t.Context(), e); err != nil {
					t.Errorf("Put(%s): %v", e.Domain, err)
				}
			}
		})
	}
	for _, e := range entries {
		work <- e
	}
	close(work)
	wg.Wait()
	return entries
}

func concurrentPuts(t *testing.T, s cache.Store) {
	const writers, rounds = 8, 20
	for round := range rounds {
		e := policy(fmt.Sprintf("%d.example", round))
		var latest cache.Entry
		var wg sync.WaitGroup
		for _, w := range rand.Perm(writers) {
			mine := e
			mine.Fetched = e.Fetched.Add(time.Duration(w) * time.Millisecond)
			mine.ID = fmt.Sprint(w)
			if w == writers-1 {
				latest = mine
			}
			wg.Go(func() {
				err := s.Put(t.Context(), mine)
				if err != nil && (w == writers-1 || !errors.Is(err, cache.ErrOutdated)) {
					t.Errorf("Put of the %d. of %d: %v", w+1, writers, err)
				}
				// From here on nothing earlier may be seen.
				got, err := s.Get(t.Context(), mine.Domain)
				if err != nil || got.Fetched.Before(mine.Fetched) {
					t.Errorf("Get after Put of the %d.: that of %s, %v", w+1, got.ID, err)
				}
			})
		}
		wg.Wait()
		want(t, s, latest)
	}
}

func concurrentDomains(t *testing.T, s cache.Store) {
	for _, e := range many(t, s) {
		want(t, s, e)
	}
}

// everythingAtOnce is for the race detector, and for entries that belong to
// other domains or are made up of two.
func everythingAtOnce(t *testing.T, s cache.Store) {
	const workers, ops = 8, 60
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(w)))
			for range ops {
				operate(t, s, r)
			}
		})
	}
	wg.Wait()
}

func operate(t *testing.T, s cache.Store, r *rand.Rand) {
	ctx := t.Context()
	e := policy(fmt.Sprintf("%d.example", r.IntN(5)))
	if r.IntN(3) == 0 {
		e = none(e.Domain)
	}
	e.ID = e.Domain
	e.Refresh = base().Add(-time.Duration(r.IntN(100)) * time.Second)
	var got []cache.Entry
	var err error
	switch r.IntN(6) {
	case 0, 1:
		err = s.Put(ctx, e)
	case 2:
		err = s.Delete(ctx, e.Domain)
	case 3:
		got, err = s.Due(ctx, base(), time.Millisecond, 3)
	case 4:
		err = s.Touch(ctx, map[string]time.Time{e.Domain: e.Used.Add(time.Duration(r.IntN(10)) * time.Hour)})
	case 5:
		for e, allErr := range s.All(ctx) {
			got, err = append(got, e), allErr
		}
	}
	if err != nil && !errors.Is(err, cache.ErrOutdated) {
		t.Error(err)
	}
	one, err := s.Get(ctx, e.Domain)
	if err == nil {
		got = append(got, one)
	} else if !errors.Is(err, cache.ErrNotFound) {
		t.Error(err)
	}
	for _, g := range got {
		if g.ID != g.Domain {
			t.Errorf("the entry of %s says that it is of %s", g.Domain, g.ID)
		}
	}
}
