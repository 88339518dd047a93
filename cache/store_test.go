package cache_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"stsmap/cache"
	"stsmap/cache/bolt"
	"stsmap/cache/cachetest"
)

func TestMemory(t *testing.T) {
	cachetest.TestStore(t, func(*testing.T) cache.Store { return cache.NewMemory(2000) })
}

func TestFront(t *testing.T) {
	// With a ttl that is always over, every Get compares; without one, none.
	for _, c := range []struct {
		name string
		ttl  time.Duration
	}{
		{"copies never stale", 0},
		{"copies always stale", time.Nanosecond},
		{"copies an hour good", time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			cachetest.TestStore(t, func(*testing.T) cache.Store {
				return cache.NewFront(cache.NewMemory(2000), 2000, c.ttl)
			})
		})
	}
	t.Run("before bolt", func(t *testing.T) {
		cachetest.TestStore(t, func(t *testing.T) cache.Store {
			s, err := bolt.Open(filepath.Join(t.TempDir(), "cache.db"), bolt.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return cache.NewFront(s, 2000, 0)
		})
	})
}

// TestBreakerStore: a Breaker keeps the promises of the store behind it.
func TestBreakerStore(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) (cache.Store, error){
		"memory": func(*testing.T) (cache.Store, error) { return cache.NewMemory(2000), nil },
		"bolt": func(t *testing.T) (cache.Store, error) {
			return bolt.Open(filepath.Join(t.TempDir(), "cache.db"), bolt.Options{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			cachetest.TestStore(t, func(t *testing.T) cache.Store {
				return cache.NewBreaker(func(context.Context) (cache.Store, error) { return open(t) }, time.Minute)
			})
		})
	}
}
