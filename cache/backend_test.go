package cache

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A testBackend is a Shared in memory that can fail, hang, panic, and be too full to
// write.
type testBackend struct {
	*Memory

	mu      sync.Mutex
	state   string // "", "broken", "hangs" until the context ends, "stuck" until the next state, "full", "panics", "exits"
	calls   int
	stuck   chan struct{} // closed at the next state
	running int           // calls that have not returned
	watched func(string, bool)
	watches chan struct{} // closed when Watch was called
}

func newTestBackend() *testBackend {
	return &testBackend{Memory: NewMemory(1000), watches: make(chan struct{}), stuck: make(chan struct{})}
}

func (m *testBackend) set(state string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state, m.calls = state, 0
	close(m.stuck)
	m.stuck = make(chan struct{})
}

func (m *testBackend) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

func (m *testBackend) act(ctx context.Context, write bool) error {
	m.mu.Lock()
	m.calls++
	m.running++
	state, stuck := m.state, m.stuck
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.running--
	}()
	switch {
	case state == "broken", state == "full" && write:
		return errBack
	case state == "hangs":
		<-ctx.Done()
		return ctx.Err()
	case state == "stuck":
		<-stuck
	case state == "panics":
		panic("page 7 is damaged")
	case state == "exits":
		runtime.Goexit()
	}
	return nil
}

func (m *testBackend) Get(ctx context.Context, domain string) (Entry, error) {
	if err := m.act(ctx, false); err != nil {
		return Entry{}, err
	}
	return m.Memory.Get(context.WithoutCancel(ctx), domain)
}

func (m *testBackend) Put(ctx context.Context, e Entry) error {
	if err := m.act(ctx, true); err != nil {
		return err
	}
	return m.Memory.Put(context.WithoutCancel(ctx), e) // as a file does that hung
}

func (m *testBackend) Replace(ctx context.Context, e Entry, wrong time.Time) error {
	if err := m.act(ctx, true); err != nil {
		return err
	}
	return m.Memory.Replace(context.WithoutCancel(ctx), e, wrong)
}

func (m *testBackend) Touch(ctx context.Context, uses map[string]time.Time) error {
	return errors.Join(m.act(ctx, true), m.Memory.Touch(ctx, uses))
}

func (m *testBackend) Delete(ctx context.Context, domain string) error {
	return errors.Join(m.act(ctx, true), m.Memory.Delete(ctx, domain))
}

func (m *testBackend) Due(ctx context.Context, now time.Time, lease time.Duration, n int) ([]Entry, error) {
	if err := m.act(ctx, true); err != nil {
		return nil, err
	}
	return m.Memory.Due(ctx, now, lease, n)
}

func (m *testBackend) All(ctx context.Context) iter.Seq2[Entry, error] {
	if err := m.act(ctx, false); err != nil {
		return func(yield func(Entry, error) bool) { yield(Entry{}, err) }
	}
	return m.Memory.All(ctx)
}

func (m *testBackend) Claim(ctx context.Context, _ string, _ time.Duration) (bool, error) {
	return true, m.act(ctx, true)
}

func (m *testBackend) Release(ctx context.Context, _ string) error { return m.act(ctx, true) }

func (m *testBackend) Watch(ctx context.Context, changed func(string, bool)) {
	m.watched = changed
	close(m.watches)
	<-ctx.Done()
}

// breakerFor returns a Breaker for a store that is open.
func breakerFor(s Shared) *Breaker {
	b := NewBreaker(func(context.Context) (Store, error) { return s, nil }, time.Second)
	b.Shared = true
	return b
}

// A watched is a Breaker for a testBackend, and the calls of OnState.
type watched struct {
	*Breaker
	back  *testBackend
	mu    sync.Mutex
	heard []string
}

func newWatched() *watched {
	w := &watched{back: newTestBackend()}
	w.Breaker = breakerFor(w.back)
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
	// Reading and writing are independent of each other.
	slices.SortStableFunc(w.heard, func(a, b string) int { return strings.Compare(a[:4], b[:4]) })
	if !slices.Equal(w.heard, want) {
		t.Errorf("%s: reported %q, want %q", when, w.heard, want)
	}
	w.heard = nil
}

// run runs Run until stop is called.
func (w *watched) run(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	return func() { cancel(); running.Wait() }
}
