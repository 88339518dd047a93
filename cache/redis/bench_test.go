package redis

import (
	"testing"

	"stsmap/cache"
	"stsmap/cache/cachetest"
)

func BenchmarkStore(b *testing.B) {
	cachetest.BenchmarkStore(b, func(b *testing.B) cache.Store { return mustOpen(b, startServer(b).url()) })
}
