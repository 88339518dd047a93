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
	for name, open := range map[string]func(dir string) (cache.Store, error){
		"memory": func(string) (cache.Store, error) { return cache.NewMemory(2000), nil },
		"bolt": func(dir string) (cache.Store, error) {
			return bolt.Open(filepath.Join(dir, "cache.db"), bolt.Options{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			cachetest.TestStore(t, func(t *testing.T) cache.Store {
				dir := t.TempDir() // removed after the store is closed
				return cache.NewBreaker(func(context.Context) (cache.Store, error) { return open(dir) }, time.Minute)
			})
		})
	}
}
