package postgres

import (
	"fmt"
	"sync/atomic"
	"testing"

	"stsmap/cache"
	"stsmap/cache/cachetest"
)

func BenchmarkStore(b *testing.B) {
	cachetest.BenchmarkStore(b, func(b *testing.B) cache.Store { return mustOpen(b, newDatabase(b).url()) })
}

// BenchmarkPutParallel is with all connections of a pool.
func BenchmarkPutParallel(b *testing.B) {
	s := mustOpen(b, newDatabase(b).url())
	var n atomic.Int64
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			cachetest.Put(b, s, cachetest.NewEntry(fmt.Sprintf("%d.example", n.Add(1)%5000)))
		}
	})
}
