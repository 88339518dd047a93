package policy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/cache"
)

// A slowStore takes a second for each use it is told of.
type slowStore struct {
	cache.Store

	mu        sync.Mutex
	told      map[string]int
	now, most int // calls under way
	err       error
}

func (s *slowStore) Touch(ctx context.Context, uses map[string]time.Time) error {
	s.mu.Lock()
	for domain := range uses {
		s.told[domain]++
	}
	s.now++
	s.most = max(s.most, s.now)
	err := s.err
	s.mu.Unlock()
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	s.now--
	s.mu.Unlock()
	return err
}

// TestTouch: however many domains come into use at once, the store is told of
// each, a few at a time, and what it does with that is told.
func TestTouch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowStore{Store: cache.NewMemory(10), told: make(map[string]int), err: errors.New("full")}
		var failed int
		var mu sync.Mutex
		e := New(Config{Store: s, Fetch: brokenFetcher{}, Observe: func(ev Event) {
			mu.Lock()
			defer mu.Unlock()
			if ev.Kind == StoreFailed {
				failed++
			}
		}})
		for i := range 100 {
			e.touch(fmt.Sprintf("%d.example", i), time.Now())
			e.touch(fmt.Sprintf("%d.example", i), time.Now())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		// A use that comes while the last one is written is written, too.
		if n := len(s.told); n != 100 || s.most != touchers || failed < 100 || failed > 100+touchers {
			t.Errorf("%d told, %d at once, %d failed", n, s.most, failed)
		}
		e.touch("once.example", time.Now()) // begins anew
		time.Sleep(2 * time.Second)
		for i := range 2 * mostTouches { // more than have room
			e.touch(fmt.Sprintf("%d.example", i), time.Now())
		}
		if n := len(e.touches.waiting); n != mostTouches {
			t.Errorf("%d wait", n)
		}
		e.Close()
		if s.told["once.example"] != 1 || s.now != 0 {
			t.Errorf("told %d times, %d under way after Close", s.told["once.example"], s.now)
		}
	})
}
