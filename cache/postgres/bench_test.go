package postgres

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

func BenchmarkGet(b *testing.B) {
	s := mustOpen(b, newDatabase(b).url())
	for i := range 1000 {
		put(b, s, entry(strconv.Itoa(i)+".example"))
	}
	for b.Loop() {
		if _, err := s.Get(b.Context(), "500.example"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	s := mustOpen(b, newDatabase(b).url())
	i := 0
	for b.Loop() {
		put(b, s, entry(strconv.Itoa(i%5000)+".example"))
		i++
	}
}

func BenchmarkTouch(b *testing.B) {
	s := mustOpen(b, newDatabase(b).url())
	e := entry("example.com")
	put(b, s, e)
	for b.Loop() {
		e.Used = e.Used.Add(1e6)
		if err := s.Touch(b.Context(), map[string]time.Time{e.Domain: e.Used}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPutParallel is with all connections of a pool.
func BenchmarkPutParallel(b *testing.B) {
	s := mustOpen(b, newDatabase(b).url())
	var n atomic.Int64
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			put(b, s, entry(fmt.Sprintf("%d.example", n.Add(1)%5000)))
		}
	})
}
