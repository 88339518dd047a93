package cache

import (
	"context"
	"errors"
	"iter"
	"runtime"
	"sync"
	"time"
)

// A moody is a Shared in memory that can fail, hang, panic, and be too full to
// write.
type moody struct {
	*Memory

	mu      sync.Mutex
	mood    string // "", "broken", "hangs" until the context ends, "stuck" until the next mood, "full", "panics", "exits"
	calls   int
	stuck   chan struct{} // closed at the next mood
	running int           // calls that have not returned
	watched func(string, bool)
	watches chan struct{} // closed when Watch was called
}

func newMoody() *moody {
	return &moody{Memory: NewMemory(1000), watches: make(chan struct{}), stuck: make(chan struct{})}
}

func (m *moody) set(mood string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mood, m.calls = mood, 0
	close(m.stuck)
	m.stuck = make(chan struct{})
}

func (m *moody) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

func (m *moody) act(ctx context.Context, write bool) error {
	m.mu.Lock()
	m.calls++
	m.running++
	mood, stuck := m.mood, m.stuck
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.running--
	}()
	switch {
	case mood == "broken", mood == "full" && write:
		return errBack
	case mood == "hangs":
		<-ctx.Done()
		return ctx.Err()
	case mood == "stuck":
		<-stuck
	case mood == "panics":
		panic("page 7 is damaged")
	case mood == "exits":
		runtime.Goexit()
	}
	return nil
}

func (m *moody) Get(ctx context.Context, domain string) (Entry, error) {
	if err := m.act(ctx, false); err != nil {
		return Entry{}, err
	}
	return m.Memory.Get(context.WithoutCancel(ctx), domain)
}

func (m *moody) Put(ctx context.Context, e Entry) error {
	if err := m.act(ctx, true); err != nil {
		return err
	}
	return m.Memory.Put(context.WithoutCancel(ctx), e) // as a file does that hung
}

func (m *moody) Replace(ctx context.Context, e Entry, wrong time.Time) error {
	if err := m.act(ctx, true); err != nil {
		return err
	}
	return m.Memory.Replace(context.WithoutCancel(ctx), e, wrong)
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
