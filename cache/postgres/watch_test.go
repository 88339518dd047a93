package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"stsmap/cache/cachetest"
)

// A listener records the calls of Watch.
type listener struct {
	mu   sync.Mutex
	told []string // domains, with "!" before the deleted ones
}

// watch begins to watch, and waits for the "" that this begins with.
func watch(t *testing.T, s *Store) *listener {
	t.Helper()
	l := &listener{}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.Watch(ctx, l.changed) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	l.wait(t, "")
	return l
}

func (l *listener) changed(domain string, deleted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if deleted {
		domain = "!" + domain
	}
	l.told = append(l.told, domain)
}

// has reports whether a domain was told.
func (l *listener) has(domain string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.told, domain)
}

func (l *listener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.told)
}

func (l *listener) wait(t *testing.T, domain string) {
	t.Helper()
	for range 600 {
		if l.has(domain) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%q is not told", domain)
}

// take returns what was told since the last take.
func (l *listener) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	told := l.told
	l.told = nil
	return told
}

// TestWatch: both stores hear of each Put and Delete once, and not of touches,
// leases, claims and Puts that are refused.
func TestWatch(t *testing.T) {
	t.Parallel()
	for name, params := range map[string]string{"": "", "schema": "schema=user", "mode": "default_query_exec_mode=simple_protocol"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			a, b := mustOpen(t, d.url(params)), mustOpen(t, d.url(params))
			la, lb := watch(t, a), watch(t, b)
			la.take()
			lb.take()
			odd := cachetest.NewEntry("100%.\x00.example")
			cachetest.Put(t, a, cachetest.NewEntry("1.example"), odd)
			_, dueErr := a.Due(t.Context(), odd.Refresh, time.Hour, 1)
			_, claimErr := a.Claim(t.Context(), "claimed.example", time.Hour)
			early := cachetest.NewEntry("1.example")
			early.Fetched = early.Fetched.Add(-time.Hour)
			if err := a.Put(t.Context(), early); err == nil {
				t.Error("Put of what is outdated succeeded")
			}
			if err := errors.Join(dueErr, claimErr, a.Touch(t.Context(), map[string]time.Time{"1.example": time.Now().Add(time.Hour)})); err != nil {
				t.Fatal(err)
			}
			if err := b.Delete(t.Context(), "unknown.example"); err != nil {
				t.Fatal(err)
			}
			want := []string{"1.example", "100%.\x00.example", "!unknown.example"}
			for _, l := range []*listener{la, lb} {
				l.wait(t, want[2])
				if got := l.take(); !slices.Equal(got, want) {
					t.Errorf("told %q, want %q", got, want)
				}
			}
		})
	}
}

// TestWatchReconnects: after the connection was lost anything may have changed,
// and hints go on.
func TestWatchReconnects(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	a, b := mustOpen(t, d.url("application_name=lost")), mustOpen(t, d.url())
	l := watch(t, a)
	for i := range 3 {
		l.take()
		d.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lost' AND datname = current_database()")
		cachetest.Put(t, b, cachetest.NewEntry("meanwhile.example"))
		l.wait(t, "")
		domain := fmt.Sprintf("%d.example", i)
		cachetest.Put(t, b, cachetest.NewEntry(domain))
		l.wait(t, domain)
	}
}

// TestWatchDead: a connection that is dead without saying so is noticed.
func TestWatchDead(t *testing.T) {
	t.Parallel()
	srv := ownServer(t)
	reported := make(chan error, 100)
	s, err := Open(t.Context(), srv.url("postgres"), Options{Timeout: time.Second, OnError: func(op string, err error) { reported <- fmt.Errorf("%s: %w", op, err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l := watch(t, s)
	l.take()
	srv.signal(syscall.SIGSTOP)
	wantError(t, <-reported, "watch: postgres: watch: ")
	srv.signal(syscall.SIGCONT)
	l.wait(t, "")
	cachetest.Put(t, s, cachetest.NewEntry("example.com"))
	l.wait(t, "example.com")
}

// TestWatchQuiet: with listen=no Watch says once that anything may have changed,
// needs no connection, and ends with its context or the store.
func TestWatchQuiet(t *testing.T) {
	s := mustOpen(t, urlOf("/nonexistent", "db", "listen=no"))
	for _, end := range []func(cancel func()){func(cancel func()) { cancel() }, func(func()) { _ = s.Close() }} {
		l := &listener{}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { s.Watch(ctx, l.changed) })
		l.wait(t, "")
		end(cancel)
		wg.Wait()
		cancel()
		if told := l.take(); len(told) != 1 {
			t.Errorf("told %q", told)
		}
	}
}

// TestWatchEnds: Watch returns when the store is closed, also where there is no
// server, which it reports once.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	reported := make(chan error, 100)
	for _, url := range []string{newDatabase(t).url(), urlOf("/nonexistent", "db")} {
		s, err := Open(t.Context(), url, Options{OnError: func(op string, err error) { reported <- fmt.Errorf("%s: %w", op, err) }})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { s.Watch(t.Context(), func(string, bool) {}) })
		if url == urlOf("/nonexistent", "db") {
			wantError(t, <-reported, "watch: postgres: watch: ")
			time.Sleep(3 * retryEvery / 2) // it must not be reported again
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		s.Watch(t.Context(), func(string, bool) { t.Error("a closed store tells of changes") })
	}
	if len(reported) > 0 {
		t.Errorf("reported too: %v", <-reported)
	}
}
