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
