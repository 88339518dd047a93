package redis

import (
	"testing"
	"time"
)

func BenchmarkGet(b *testing.B) {
	s := mustOpen(b, startServer(b).url())
	for i := range 1000 {
		put(b, s, entry(i))
	}
	for b.Loop() {
		get(b, s, entry(500))
	}
}

func BenchmarkPut(b *testing.B) {
	s := mustOpen(b, startServer(b).url())
	i := 0
	for b.Loop() {
		put(b, s, entry(i%5000))
		i++
	}
}

// BenchmarkTouch is with 500 entries at once.
func BenchmarkTouch(b *testing.B) {
	s := mustOpen(b, startServer(b).url())
	uses := make(map[string]time.Time)
	for i := range 500 {
		put(b, s, entry(i))
		uses[entry(i).Domain] = entry(i).Used
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
	s := mustOpen(b, startServer(b).url())
	now := time.Now()
	for i := range 1000 {
		e := entry(i)
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
