package cache

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestBreakerOpens: a store that cannot be opened is tried again, and used when
// it can be, with lookups or without.
func TestBreakerOpens(t *testing.T) {
	for _, lookups := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWatched()
			var tries atomic.Int64
			var works atomic.Bool
			w.open = func(context.Context) (Store, error) {
				if tries.Add(1); !works.Load() {
					return nil, errBack
				}
				return w.back, nil
			}
			defer w.run(t)()
			watching := make(chan struct{})
			ctx, cancel := context.WithCancel(t.Context())
			go func() { defer close(watching); w.Watch(ctx, func(string, bool) {}) }()
			for range 60 {
				if lookups {
					if _, err := w.Get(t.Context(), "example.com"); !errors.Is(err, ErrUnreachable) || !errors.Is(err, errBack) {
						t.Fatal(err)
					}
					for _, err := range w.All(t.Context()) {
						if !errors.Is(err, ErrUnreachable) {
							t.Fatal(err)
						}
					}
				}
				time.Sleep(time.Second)
			}
			if n := tries.Load(); n < 8 || n > 18*2 { // for reading, and for writing
				t.Errorf("opened %d times in a minute", n)
			}
			if ok, err := w.Claim(t.Context(), "example.com", time.Hour); ok || !errors.Is(err, ErrUnreachable) {
				t.Error("a claim in a store that is shared and not open:", ok, err)
			}
			w.expect(t, "while it cannot be opened", "read the back is broken", "write the back is broken")
			works.Store(true)
			time.Sleep(4 * maxPause)
			w.expect(t, "opened", "read <nil>", "write <nil>")
			select {
			case <-w.back.watches:
			default:
				t.Error("Watch does not begin when the store is open")
			}
			if err := w.Put(t.Context(), Entry{Domain: "example.com"}); err != nil {
				t.Error(err)
			}
			cancel()
			<-watching
		})
	}
}

// TestBreakerOpensOnce: many operations that need the store at the same time have
// it opened once, and wait for that no longer than the patience; if it takes
// longer, the store is used when it is open.
func TestBreakerOpensOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		tries, goOn := 0, make(chan error)
		w.open = func(context.Context) (Store, error) {
			tries++
			return w.back, <-goOn
		}
		began := time.Now()
		var asking sync.WaitGroup
		for i := range 100 {
			asking.Go(func() {
				err := w.Put(t.Context(), Entry{Domain: "example.com"})
				if i%2 == 0 {
					_, err = w.Get(t.Context(), "example.com")
				}
				if !errors.Is(err, ErrUnreachable) {
					t.Error(err)
				}
			})
		}
		asking.Wait()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %s", took)
		}
		goOn <- errBack
		synctest.Wait()
		if tries != 1 {
			t.Errorf("opened %d times", tries)
		}
		time.Sleep(maxPause)
		asking.Go(func() { _, _ = w.Get(t.Context(), "example.com") })
		asking.Wait()
		goOn <- nil
		synctest.Wait()
		if _, err := w.Get(t.Context(), "example.com"); !errors.Is(err, ErrNotFound) || tries != 2 {
			t.Error(err, tries)
		}
	})
}

// TestBreakerAlone: in a store of one process every claim is granted, and Watch
// waits for the end of its context.
func TestBreakerAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemory(10)
		b := NewBreaker(func(context.Context) (Store, error) { return memory, nil }, time.Second)
		for range 2 {
			if ok, err := b.Claim(t.Context(), "example.com", time.Hour); !ok || err != nil {
				t.Error(ok, err)
			}
			if err := b.Release(t.Context(), "example.com"); err != nil {
				t.Error(err)
			}
			if err := b.Put(t.Context(), Entry{Domain: "example.com"}); err != nil {
				t.Error(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		b.Watch(ctx, func(string, bool) { t.Error("a change by another process") })
		if took := time.Since(began); took != time.Hour {
			t.Errorf("Watch returned after %s", took)
		}
	})
}
