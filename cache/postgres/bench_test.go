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

// BenchmarkTouch is with 500 entries at once.
func BenchmarkTouch(b *testing.B) {
	s := mustOpen(b, newDatabase(b).url())
	uses := make(map[string]time.Time)
	for i := range 500 {
		e := entry(strconv.Itoa(i) + ".example")
		put(b, s, e)
		uses[e.Domain] = e.Used
	}
	for b.Loop() {
		for domain, used := range uses {
			uses[domain] = used.Add(time.Hour)
		}
		if err := s.Touch(b.Context(), uses); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDue takes 10 of 1000 entries.
func BenchmarkDue(b *testing.B) {
	s := mustOpen(b, newDatabase(b).url())
	now := time.Now()
	for i := range 1000 {
		e := entry(strconv.Itoa(i) + ".example")
		e.Refresh = now.Add(-time.Hour)
		put(b, s, e)
	}
	for b.Loop() {
		taken, err := s.Due(b.Context(), now, time.Millisecond, 10)
		if err != nil || len(taken) != 10 {
			b.Fatal(len(taken), err)
		}
		now = now.Add(time.Second)
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
