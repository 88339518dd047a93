package cache

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestBreakerUnreachable: a backend that fails is reported once, left alone for
// a pause, and tried again by one operation at a time.
func TestBreakerUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		get := func() error {
			_, err := w.Get(t.Context(), "example.com")
			return err
		}
		if err := get(); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		if r, wr := w.Conditions(); r != (Condition{}) || wr != (Condition{}) {
			t.Error("before anything failed:", r, wr)
		}
		w.back.set("broken")
		began := time.Now()
		for range 100 {
			if err := get(); !errors.Is(err, ErrUnreachable) || !errors.Is(err, errBack) {
				t.Fatal(err)
			}
		}
		if w.back.count() != 1 {
			t.Errorf("called %d times", w.back.count())
		}
		w.expect(t, "broken", "read the back is broken")
		for range 600 { // a minute
			time.Sleep(100 * time.Millisecond)
			_ = get()
		}
		if w.back.count() < 12 || w.back.count() > 18 {
			t.Errorf("called %d times in a minute", w.back.count())
		}
		w.expect(t, "still broken")
		if r, wr := w.Conditions(); !errors.Is(r.Err, errBack) || !r.Since.Equal(began) || wr != (Condition{}) {
			t.Error("broken for a minute:", r, wr)
		}
		w.back.set("")
		time.Sleep(maxPause)
		if err := get(); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		w.expect(t, "well", "read <nil>")
		if r, _ := w.Conditions(); r.Err != nil || !r.Since.Equal(time.Now()) {
			t.Error("well again:", r)
		}
		// And the pauses begin anew.
		w.back.set("broken")
		_ = get()
		time.Sleep(minPause)
		w.back.set("")
		if err := get(); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	})
}

// TestBreakerHangs: no operation takes longer than the patience, and after the
// first failure operations fail at once.
func TestBreakerHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		w.back.set("hangs")
		began := time.Now()
		var asking sync.WaitGroup
		for range 10 {
			asking.Go(func() {
				if _, err := w.Get(t.Context(), "example.com"); !errors.Is(err, ErrUnreachable) {
					t.Error(err)
				}
			})
		}
		asking.Wait()
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %s", took)
		}
		w.expect(t, "hangs", "read no answer in 1s")
		if _, err := w.Get(t.Context(), "example.com"); !errors.Is(err, ErrUnreachable) || time.Since(began) != time.Second {
			t.Error(err, time.Since(began))
		}
		// While one tries again the others do not wait for that.
		time.Sleep(minPause)
		asking.Go(func() { _, _ = w.Get(t.Context(), "example.com") })
		synctest.Wait()
		now := time.Now()
		if _, err := w.Get(t.Context(), "example.com"); !errors.Is(err, ErrUnreachable) || time.Since(now) != 0 {
			t.Error(err, time.Since(now))
		}
		asking.Wait()
	})
}

// TestBreakerImpatient: the end of a caller's context is no failure of the
// backend.
func TestBreakerImpatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		w.back.set("hangs")
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := w.Get(ctx, "example.com"); errors.Is(err, ErrUnreachable) || err == nil {
			t.Error(err)
		}
		w.expect(t, "given up")
		w.back.set("")
		if _, err := w.Get(t.Context(), "example.com"); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	})
}

// TestBreakerFull: a server that is full can still be read.
func TestBreakerFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		e := Entry{Domain: "example.com", ID: "A"}
		if err := w.Put(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		w.back.set("full")
		e.ID = "B"
		if err := w.Put(t.Context(), e); !errors.Is(err, ErrUnreachable) {
			t.Error(err)
		}
		if _, err := w.Claim(t.Context(), "example.com", time.Second); !errors.Is(err, ErrUnreachable) {
			t.Error(err)
		}
		if got, err := w.Get(t.Context(), "example.com"); err != nil || got.ID != "A" {
			t.Error(got, err)
		}
		w.expect(t, "full", "write the back is broken")
		if err := w.Put(t.Context(), Entry{}); err == nil || errors.Is(err, ErrUnreachable) {
			t.Error("an entry that cannot be stored:", err)
		}
	})
}

// TestBreakerRun: the return of the backend is reported without lookups.
func TestBreakerRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { w.Run(ctx) })
		time.Sleep(time.Minute)
		if w.back.count() != 0 {
			t.Errorf("called %d times although all is well", w.back.count())
		}
		w.back.set("broken")
		for _, err := range w.All(t.Context()) {
			if !errors.Is(err, ErrUnreachable) {
				t.Error(err)
			}
		}
		time.Sleep(time.Minute)
		w.back.set("")
		time.Sleep(2 * maxPause)
		w.expect(t, "in the end", "read the back is broken", "read <nil>")
		cancel()
		running.Wait()
	})
}

// TestBreakerRunWrites: a store that was full is reported as writable when it is,
// and not before, and the probe leaves nothing behind.
func TestBreakerRunWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		defer w.run(t)()
		w.back.set("full")
		if err := w.Put(t.Context(), Entry{Domain: "example.com"}); !errors.Is(err, ErrUnreachable) {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.expect(t, "full", "write the back is broken")
		w.back.set("")
		time.Sleep(2 * maxPause)
		w.expect(t, "with room", "write <nil>")
		for e, err := range w.back.Memory.All(t.Context()) {
			t.Errorf("a probe left %+v, %v", e, err)
		}
	})
}

// TestBreakerStuck: no caller waits longer than the patience for an operation
// that ignores its context, as a file on a disk that hangs does. While it runs, no
// other is started, even if the callers' contexts end sooner. When it returns, the
// store works again.
func TestBreakerStuck(t *testing.T) {
	for name, limit := range map[string]time.Duration{"patient": time.Hour, "impatient": time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWatched()
				stop := w.run(t)
				w.back.set("stuck")
				for range 1000 {
					ctx, cancel := context.WithTimeout(t.Context(), limit)
					began := time.Now()
					if _, err := w.Get(ctx, "example.com"); err == nil || time.Since(began) > time.Second {
						t.Fatal(err, time.Since(began))
					}
					cancel()
					time.Sleep(time.Second)
				}
				if n := w.back.count(); n != 1 {
					t.Errorf("%d operations hang, want 1", n)
				}
				w.expect(t, "stuck", "read no answer in 1s")
				if err := w.Put(t.Context(), Entry{}); err == nil || errors.Is(err, ErrUnreachable) {
					t.Error(err)
				}
				w.back.set("")
				synctest.Wait()
				w.expect(t, "well", "read <nil>")
				if _, err := w.Get(t.Context(), "example.com"); !errors.Is(err, ErrNotFound) {
					t.Error(err)
				}
				stop()
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestBreakerLateWrite: a Put that outlived the patience is over before another
// write begins, so it cannot undo one that was acknowledged later.
func TestBreakerLateWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		w.back.set("stuck")
		e := Entry{Domain: "example.com", ID: "A"}
		if err := w.Put(t.Context(), e); !errors.Is(err, ErrUnreachable) {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := w.Delete(t.Context(), e.Domain); !errors.Is(err, ErrUnreachable) {
			t.Error("a write was started beside one that hangs:", err)
		}
		w.back.set("")
		synctest.Wait()
		if err := w.Delete(t.Context(), e.Domain); err != nil {
			t.Error(err)
		}
		if e, err := w.Get(t.Context(), e.Domain); !errors.Is(err, ErrNotFound) {
			t.Error("the late Put came after the Delete:", e, err)
		}
	})
}

// TestBreakerPanic: a panic of the store is its failure, with the stack, in
// whatever method; the store is tried again after the pause, and a panic in the
// loop over All is the caller's.
func TestBreakerPanic(t *testing.T) {
	for _, state := range []string{"panics", "exits"} {
		t.Run(state, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for name, call := range map[string]func(*Breaker) error{
					"Get": func(b *Breaker) error { _, err := b.Get(t.Context(), "example.com"); return err },
					"Put": func(b *Breaker) error { return b.Put(t.Context(), Entry{Domain: "example.com"}) },
					"Replace": func(b *Breaker) error {
						return b.Replace(t.Context(), Entry{Domain: "example.com"}, time.Now())
					},
					"Touch":  func(b *Breaker) error { return b.Touch(t.Context(), map[string]time.Time{"example.com": time.Now()}) },
					"Delete": func(b *Breaker) error { return b.Delete(t.Context(), "example.com") },
					"Due":    func(b *Breaker) error { _, err := b.Due(t.Context(), time.Now(), time.Hour, 1); return err },
					"Claim":  func(b *Breaker) error { _, err := b.Claim(t.Context(), "example.com", time.Hour); return err },
					"All": func(b *Breaker) (err error) {
						for _, err = range b.All(t.Context()) {
						}
						return err
					},
				} {
					if state == "exits" && name == "All" {
						continue // on the caller's goroutine
					}
					w := newWatched()
					w.back.set(state)
					err := call(w.Breaker)
					var p *PanicError
					switch {
					case !errors.Is(err, ErrUnreachable):
						t.Errorf("%s: %v", name, err)
					case state == "panics" && (!errors.As(err, &p) || p.Value != "page 7 is damaged" || !strings.Contains(string(p.Stack), "(*testBackend).act")):
						t.Errorf("%s: %v, %+v", name, err, p)
					}
					w.back.set("")
					time.Sleep(maxPause)
					if err := call(w.Breaker); err != nil && !errors.Is(err, ErrNotFound) {
						t.Errorf("%s, tried again: %v", name, err)
					}
				}
			})
		})
	}
	w := newWatched()
	_ = w.Put(t.Context(), Entry{Domain: "example.com"})
	func() {
		defer func() {
			if got := recover(); got != "body" {
				t.Errorf("the loop's body panicked with %v", got)
			}
		}()
		for range w.All(t.Context()) {
			panic("body")
		}
	}()
	if r, _ := w.Conditions(); r.Err != nil {
		t.Error("a panic of the loop's body is a failure of the store:", r.Err)
	}
}

// TestBreakerClose: Close waits for what is under way, and no longer than 5 s for
// what hangs; after it every method returns ErrClosed. The bubble ends only if no
// goroutine is left.
func TestBreakerClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		if _, err := w.Get(t.Context(), "example.com"); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		w.back.set("stuck")
		put := make(chan error)
		go func() { put <- w.Put(t.Context(), Entry{Domain: "example.com"}) }()
		watching := make(chan struct{})
		go func() { defer close(watching); w.Watch(t.Context(), func(string, bool) {}) }()
		synctest.Wait()
		began := time.Now()
		if err := w.Close(); err == nil || time.Since(began) != maxClose {
			t.Error(err, time.Since(began))
		}
		<-watching
		if err := <-put; !errors.Is(err, ErrUnreachable) {
			t.Error(err)
		}
		w.back.set("")
		synctest.Wait()
		if w.back.running != 0 {
			t.Errorf("%d operations run", w.back.running)
		}
		if err := w.Close(); err != nil {
			t.Error("the second Close:", err)
		}
		if _, err := w.Get(t.Context(), "example.com"); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		for _, err := range w.All(t.Context()) {
			if !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		}
	})
	// What is under way and works is waited for.
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		opened := make(chan struct{})
		w.open = func(ctx context.Context) (Store, error) {
			<-ctx.Done() // with Close
			close(opened)
			return w.back, nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := w.Get(ctx, "example.com"); err == nil {
			t.Error("a store that is not open was read")
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		<-opened
		if err := w.back.Memory.Put(t.Context(), Entry{Domain: "example.com"}); !errors.Is(err, ErrClosed) {
			t.Error("a store that was opened during Close is left open:", err)
		}
	})
}

// TestBreakerPassesOn: a Breaker returns what its backend does, and answers of
// the backend are no failures.
func TestBreakerPassesOn(t *testing.T) {
	w := newWatched()
	uses := map[string]time.Time{"example.com": time.Now().Add(time.Hour)}
	e := policyEntry("example.com", "A", time.Now())
	e.Refresh = time.Now()
	for _, err := range []error{w.Put(t.Context(), e), w.Touch(t.Context(), uses)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	got, err := w.Get(t.Context(), e.Domain)
	want, err2 := w.back.Memory.Get(t.Context(), e.Domain)
	if got != want || err != nil || err2 != nil || got.Used.Before(time.Now()) {
		t.Errorf("Get = %+v, %v, want %+v", got, err, want)
	}
	early := e
	early.Fetched = e.Fetched.Add(-time.Hour)
	if err := w.Put(t.Context(), early); !errors.Is(err, ErrOutdated) {
		t.Error(err)
	}
	if taken, err := w.Due(t.Context(), e.Refresh.Add(time.Second), time.Hour, 5); len(taken) != 1 || err != nil {
		t.Error(taken, err)
	}
	if err := w.Delete(t.Context(), e.Domain); err != nil {
		t.Error(err)
	}
	if r, wr := w.Conditions(); r != (Condition{}) || wr != (Condition{}) {
		t.Error(r, wr)
	}
}
