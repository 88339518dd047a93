package cache_test

import (
	"testing"

	"stsmap/cache"
	"stsmap/cache/cachetest"
)

func TestMemory(t *testing.T) {
	cachetest.TestStore(t, func(*testing.T) cache.Store { return cache.NewMemory(2000) })
}
