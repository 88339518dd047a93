package cache_test

import (
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
