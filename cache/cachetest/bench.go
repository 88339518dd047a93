package cachetest

import (
	"fmt"
	"testing"
	"time"

	"stsmap/cache"
)

// BenchmarkStore measures the operations of the stores that open returns: each
// time a new and empty one. open closes them at the end.
func BenchmarkStore(b *testing.B, open func(b *testing.B) cache.Store) {
	entry := func(i int) cache.Entry { return NewEntry(fmt.Sprintf("%d.example", i)) }
	b.Run("Get", func(b *testing.B) {
		s := open(b)
		want := entry(500)
		for i := range 1000 {
			Put(b, s, entry(i))
		}
		for b.Loop() {
			if e, err := s.Get(b.Context(), want.Domain); err != nil || e.Policy != want.Policy {
				b.Fatalf("Get = %+v, %v", e, err)
			}
		}
	})
	b.Run("Put", func(b *testing.B) {
		s := open(b)
		i := 0
		for b.Loop() {
			Put(b, s, entry(i%5000))
			i++
		}
	})
	b.Run("Touch of 500", func(b *testing.B) {
		s := open(b)
		uses := make(map[string]time.Time)
		for i := range 500 {
			e := entry(i)
			Put(b, s, e)
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
	})
	b.Run("Due of 10 of 1000", func(b *testing.B) {
		s := open(b)
		now := time.Now()
		for i := range 1000 {
			e := entry(i)
			e.Refresh = now.Add(-time.Hour)
			Put(b, s, e)
		}
		for b.Loop() {
			taken, err := s.Due(b.Context(), now, time.Millisecond, 10)
			if err != nil || len(taken) != 10 {
				b.Fatal(len(taken), err)
			}
			now = now.Add(time.Second)
		}
	})
}
