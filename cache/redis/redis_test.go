package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"stsmap/cache"
	"stsmap/cache/cachetest"
)

// TestStore: the promises of a store, each on a prefix of its own.
func TestStore(t *testing.T) {
	s := startServer(t)
	var n atomic.Int64
	prefix := func() string { return fmt.Sprintf("%s?prefix=test-%d", s.url(), n.Add(1)) }
	cachetest.TestStore(t, func(t *testing.T) cache.Store { return mustOpen(t, prefix()) })
	cachetest.TestShared(t, func(t *testing.T) (a, b cache.Shared) {
		url := prefix()
		return mustOpen(t, url), mustOpen(t, url)
	})
	t.Run("breaker", func(t *testing.T) {
		cachetest.TestShared(t, func(t *testing.T) (a, b cache.Shared) {
			url := prefix()
			open := func(context.Context) (cache.Store, error) { return Open(t.Context(), url, Options{}) }
			one, other := cache.NewBreaker(open, soon), cache.NewBreaker(open, soon)
			one.Shared, other.Shared = true, true
			return one, other
		})
	})
	cachetest.TestDurable(t, func(t *testing.T) func() cache.Store {
		url := prefix()
		return func() cache.Store { return mustOpen(t, url) }
	})
}

// TestRubbish: whatever else stands under our keys is not found, and replaced.
func TestRubbish(t *testing.T) {
	s := startServer(t)
	store := mustOpen(t, s.url())
	for _, args := range [][]string{
		{"SET", "{stsmap}:e:1.example", "x"},
		{"HSET", "{stsmap}:e:1.example", "v", "x"},
		{"HSET", "{stsmap}:e:1.example", "v", "x", "f", "y", "x", "z", "r", "w", "u", "-"},
		{"RPUSH", "{stsmap}:e:1.example", "x"},
	} {
		s.cli("DEL", "{stsmap}:e:1.example")
		s.cli(args...)
		s.cli("ZADD", "{stsmap}:due", "1", "1.example", "2", "2.example")
		s.cli("ZADD", "{stsmap}:domains", "0", "1.example")
		if e, err := store.Get(t.Context(), "1.example"); !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("%q: Get: %+v, %v", args, e, err)
		}
		if due, err := store.Due(t.Context(), time.Now(), time.Minute, 10); err != nil || len(due) != 0 {
			t.Errorf("%q: Due: %v, %v", args, due, err)
		}
		for e, err := range store.All(t.Context()) {
			t.Errorf("%q: All: %+v, %v", args, e, err)
		}
		if err := store.Touch(t.Context(), map[string]time.Time{"1.example": time.Now()}); err != nil {
			t.Errorf("%q: Touch: %v", args, err)
		}
		cachetest.Put(t, store, entry(1))
		get(t, store, entry(1))
	}
	// The sets can be something else, too.
	s.cli("SET", "{stsmap}:domains", "x")
	if err := store.Put(t.Context(), entry(2)); err == nil || !strings.HasPrefix(err.Error(), "redis: ") {
		t.Error(err)
	}
}

// TestLeastRights: what a user of the server has to be allowed, and no more.
func TestLeastRights(t *testing.T) {
	s := startServer(t)
	url := strings.Replace(s.url(), "//", "//stsmap:secret@", 1)
	rights, err := Setup(url)
	if err != nil {
		t.Fatal(err)
	}
	for rule := range strings.Lines(rights) {
		if out := s.cli(strings.Fields(rule)...); out != "OK" {
			t.Fatalf("%s: %s", rule, out)
		}
	}
	s.cli("ACL", "SETUSER", "stsmap", ">secret")
	cachetest.TestStore(t, func(t *testing.T) cache.Store {
		s.cli("FLUSHALL")
		return mustOpen(t, url)
	})
	cachetest.TestShared(t, func(t *testing.T) (a, b cache.Shared) {
		s.cli("FLUSHALL")
		return mustOpen(t, url), mustOpen(t, url)
	})
	if err := mustOpen(t, url).Ping(t.Context()); err != nil {
		t.Error(err)
	}
	err = mustOpen(t, strings.Replace(url, "secret", "wrong-password", 1)).Put(t.Context(), entry(1))
	if err == nil || strings.Contains(err.Error(), "wrong-password") || !strings.Contains(err.Error(), "WRONGPASS") {
		t.Error(err)
	}
}

// TestSetup: which user gets the rights, and on which keys.
func TestSetup(t *testing.T) {
	for _, tt := range []struct{ url, has, err string }{
		{"redis://mail:x@192.0.2.1/?prefix=site", "ACL SETUSER mail on resetkeys ~{site}:* ", ""},
		{"redis://a%20b:x@192.0.2.1", `ACL SETUSER "a b" on resetkeys ~{stsmap}:* `, ""},
		{"redis://:x@192.0.2.1", "", "no user"},
		{"redis://a:x@192.0.2.1/nine", "", "redis: URL: "},
	} {
		rights, err := Setup(tt.url)
		if !strings.HasPrefix(rights, tt.has) || strings.Contains(rights, ":x@") || (err != nil) != (tt.err != "") ||
			err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %q, %v", tt.url, rights, err)
		}
	}
}

// TestTouchBatch: many entries are touched in a few round trips.
func TestTouchBatch(t *testing.T) {
	s := startServer(t)
	store := mustOpen(t, s.url())
	const n = 2 * touchStep
	uses := make(map[string]time.Time)
	used := entry(0).Used.Add(5 * time.Hour)
	for i := range n {
		uses[entry(i).Domain] = used
	}
	cachetest.Put(t, store, entry(1), entry(n-1))
	s.cli("CONFIG", "RESETSTAT")
	if err := store.Touch(t.Context(), uses); err != nil {
		t.Fatal(err)
	}
	// The server does not know the script at first.
	if out := s.cli("INFO", "commandstats"); !strings.Contains(out, "cmdstat_evalsha:calls=2,") {
		t.Error(out)
	}
	for _, i := range []int{1, n - 1} {
		if e, err := store.Get(t.Context(), entry(i).Domain); err != nil || !e.Used.Equal(used) {
			t.Error(e.Used, err)
		}
	}
	if rows := s.cli("ZCARD", "{stsmap}:domains"); rows != "2" {
		t.Errorf("%s entries, want 2", rows)
	}
}

// TestWatchDatabases: a deletion in one database of a server is none in another.
func TestWatchDatabases(t *testing.T) {
	s := startServer(t)
	one, other := mustOpen(t, s.url()+"/1"), mustOpen(t, s.url()+"/2")
	ctx, cancel := context.WithCancel(t.Context())
	heard := make(chan string, 100)
	var watching sync.WaitGroup
	watching.Go(func() { one.Watch(ctx, func(domain string, deleted bool) { heard <- fmt.Sprint(domain, deleted) }) })
	<-heard
	if err := errors.Join(other.Delete(ctx, "1.example"), one.Put(ctx, entry(2)), one.Delete(ctx, "2.example")); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"2.examplefalse", "2.exampletrue"} {
		if got := <-heard; got != want {
			t.Errorf("changed is called with %s, want %s", got, want)
		}
	}
	cancel()
	watching.Wait()
}

// TestContexts: every call ends with its context, and by itself, if the server
// does not answer; nothing is done when the Store is closed.
func TestContexts(t *testing.T) {
	s := startServer(t)
	store := mustOpen(t, s.url())
	cachetest.Put(t, store, entry(1))
	s.signal(stopped)
	defer s.signal(goesOn)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	for name, call := range calls(ctx, store) {
		if err := call(); err == nil {
			t.Errorf("%s succeeded", name)
		}
	}
	if took := time.Since(began); took > soon {
		t.Errorf("it took %s", took)
	}
	waiting := make(chan error, 1)
	go func() { waiting <- store.Put(t.Context(), entry(2)) }()
	time.Sleep(50 * time.Millisecond)
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-waiting:
		if err == nil {
			t.Error("Put succeeded")
		}
	case <-time.After(soon):
		t.Fatal("Put goes on after Close")
	}
}

// calls are all methods that ask the server.
func calls(ctx context.Context, s *Store) map[string]func() error {
	return map[string]func() error{
		"Get":     func() error { _, err := s.Get(ctx, "1.example"); return err },
		"Put":     func() error { return s.Put(ctx, entry(1)) },
		"Touch":   func() error { return s.Touch(ctx, map[string]time.Time{"1.example": time.Now()}) },
		"Delete":  func() error { return s.Delete(ctx, "1.example") },
		"Due":     func() error { _, err := s.Due(ctx, time.Now(), time.Minute, 1); return err },
		"Claim":   func() error { _, err := s.Claim(ctx, "1.example", time.Minute); return err },
		"Release": func() error { return s.Release(ctx, "1.example") },
		"Ping":    func() error { return s.Ping(ctx) },
		"All": func() error {
			for _, err := range s.All(ctx) {
				return err
			}
			return nil
		},
	}
}
