package cache

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A moody is a Shared in memory that can fail, hang, and be too full to write.
type moody struct {
	*Memory

	mu      sync.Mutex
	mood    string // "", "broken", "hangs", "full"
	asked   int
	watched func(string, bool)
	watches chan struct{} // closed when Watch was called
}

func newMoody() *moody { return &moody{Memory: NewMemory(1000), watches: make(chan struct{})} }

func (m *moody) set(mood string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mood, m.asked = mood, 0
}

func (m *moody) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked
}

func (m *moody) act(ctx context.Context, write bool) error {
	m.mu.Lock()
	m.asked++
	mood := m.mood
	m.mu.Unlock()
	switch {
	case mood == "broken", mood == "full" && write:
		return errBack
	case mood == "hangs":
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (m *moody) Get(ctx context.Context, domain string) (Entry, error) {
	if err := m.act(ctx, false); err != nil {
		return Entry{}, err
	}
	return m.Memory.Get(ctx, domain)
}

func (m *moody) Put(ctx context.Context, e Entry) error {
	if err := m.act(ctx, true); err != nil {
		return err
	}
	return m.Memory.Put(ctx, e)
}

func (m *moody) Touch(ctx context.Context, uses map[string]time.Time) error {
	return errors.Join(m.act(ctx, true), m.Memory.Touch(ctx, uses))
}

func (m *moody) Delete(ctx context.Context, domain string) error {
	return errors.Join(m.act(ctx, true), m.Memory.Delete(ctx, domain))
}

func (m *moody) Due(ctx context.Context, now time.Time, lease time.Duration, n int) ([]Entry, error) {
	if err := m.act(ctx, true); err != nil {
		return nil, err
	}
	return m.Memory.Due(ctx, now, lease, n)
}

func (m *moody) All(ctx context.Context) iter.Seq2[Entry, error] {
	if err := m.act(ctx, false); err != nil {
		return func(yield func(Entry, error) bool) { yield(Entry{}, err) }
	}
	return m.Memory.All(ctx)
}

func (m *moody) Claim(ctx context.Context, _ string, _ time.Duration) (bool, error) {
	return true, m.act(ctx, true)
}

func (m *moody) Release(ctx context.Context, _ string) error { return m.act(ctx, true) }

func (m *moody) Watch(ctx context.Context, changed func(string, bool)) {
	m.watched = changed
	close(m.watches)
	<-ctx.Done()
}

// A watched is a Guard before a moody, and what it tells.
type watched struct {
	*Guard
	back  *moody
	mu    sync.Mutex
	heard []string
}

func newWatched() *watched {
	w := &watched{back: newMoody()}
	w.Guard = NewGuard(w.back, time.Second)
	w.OnState = func(what string, err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.heard = append(w.heard, fmt.Sprint(what, " ", err))
	}
	return w
}

func (w *watched) expect(t *testing.T, when string, want ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.heard, want) {
		t.Errorf("%s: told %q, want %q", when, w.heard, want)
	}
	w.heard = nil
}

// TestGuardAway: a back that fails is told once, left alone, and tried again by
// one at a time.
func TestGuardAway(t *testing.T) {
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
			if err := get(); !errors.Is(err, ErrAway) || !errors.Is(err, errBack) {
				t.Fatal(err)
			}
		}
		if w.back.count() != 1 {
			t.Errorf("asked %d times", w.back.count())
		}
		w.expect(t, "broken", "read the back is broken")
		for range 600 { // a minute
			time.Sleep(100 * time.Millisecond)
			_ = get()
		}
		if w.back.count() < 12 || w.back.count() > 18 {
			t.Errorf("asked %d times in a minute", w.back.count())
		}
		w.expect(t, "still broken")
		if r, wr := w.Conditions(); !errors.Is(r.Err, errBack) || !r.Since.Equal(began) || wr != (Condition{}) {
			t.Error("broken for a minute:", r, wr)
		}
		w.back.set("")
		time.Sleep(longestPause)
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
		time.Sleep(firstPause)
		w.back.set("")
		if err := get(); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	})
}

// TestGuardHangs: nobody waits longer than the patience, and of many only those
// who came before that was known.
func TestGuardHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		w.back.set("hangs")
		began := time.Now()
		var asking sync.WaitGroup
		for range 10 {
			asking.Go(func() {
				if _, err := w.Get(t.Context(), "example.com"); !errors.Is(err, ErrAway) {
					t.Error(err)
				}
			})
		}
		asking.Wait()
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %s", took)
		}
		w.expect(t, "hangs", "read no answer in 1s")
		if _, err := w.Get(t.Context(), "example.com"); !errors.Is(err, ErrAway) || time.Since(began) != time.Second {
			t.Error(err, time.Since(began))
		}
		// While one tries again the others do not wait for that.
		time.Sleep(firstPause)
		asking.Go(func() { _, _ = w.Get(t.Context(), "example.com") })
		synctest.Wait()
		now := time.Now()
		if _, err := w.Get(t.Context(), "example.com"); !errors.Is(err, ErrAway) || time.Since(now) != 0 {
			t.Error(err, time.Since(now))
		}
		asking.Wait()
	})
}

// TestGuardImpatient: a caller that gives up sooner says nothing about the back.
func TestGuardImpatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		w.back.set("hangs")
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := w.Get(ctx, "example.com"); errors.Is(err, ErrAway) || err == nil {
			t.Error(err)
		}
		w.expect(t, "given up")
		w.back.set("")
		if _, err := w.Get(t.Context(), "example.com"); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	})
}

// TestGuardFull: a server that is full can still be read.
func TestGuardFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		e := Entry{Domain: "example.com", ID: "A"}
		if err := w.Put(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		w.back.set("full")
		e.ID = "B"
		if err := w.Put(t.Context(), e); !errors.Is(err, ErrAway) {
			t.Error(err)
		}
		if _, err := w.Claim(t.Context(), "example.com", time.Second); !errors.Is(err, ErrAway) {
			t.Error(err)
		}
		if got, err := w.Get(t.Context(), "example.com"); err != nil || got.ID != "A" {
			t.Error(got, err)
		}
		w.expect(t, "full", "write the back is broken")
		if err := w.Put(t.Context(), Entry{}); err == nil || errors.Is(err, ErrAway) {
			t.Error("an entry that cannot be stored:", err)
		}
	})
}

// TestGuardRun: the return of the back is noticed without anybody asking.
func TestGuardRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { w.Run(ctx) })
		time.Sleep(time.Minute)
		if w.back.count() != 0 {
			t.Errorf("asked %d times although all is well", w.back.count())
		}
		w.back.set("broken")
		for _, err := range w.All(t.Context()) {
			if !errors.Is(err, ErrAway) {
				t.Error(err)
			}
		}
		time.Sleep(time.Minute)
		w.back.set("")
		time.Sleep(2 * longestPause)
		w.expect(t, "in the end", "read the back is broken", "read <nil>")
		cancel()
		running.Wait()
	})
}
