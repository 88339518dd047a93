package policy

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/dane"
	"stsmap/sts"
	"stsmap/stsfetch"
)

// TestFactsDoNotGrow: what is known of a domain takes the same memory however
// often its record is rechecked, with and without a store.
func TestFactsDoNotGrow(t *testing.T) {
	for _, stored := range []bool{false, true} {
		t.Run("", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newTrial(t, Config{})
				defer func() { x.close() }()
				if !stored {
					x.close()
					x.Engine = New(Config{Fetch: x.net})
				}
				x.run()
				hop := dane.NextHop{Domain: "a.example"}
				x.Lookup(t.Context(), hop, false)
				synctest.Wait()
				before := x.Usage().Bytes
				for range 20 * 12 { // 20 hours, mail every five minutes
					time.Sleep(5*time.Minute + time.Second)
					x.Lookup(t.Context(), hop, false)
					synctest.Wait()
				}
				links := 0
				for f := x.memory.domainOf("a.example").facts.Load(); f != nil; f = f.expired {
					links++
				}
				if after := x.Usage().Bytes; after > 2*before {
					t.Errorf("stored %v: %d bytes at first, %d after 20 hours; %d facts in a chain", stored, before, after, links)
				}
			})
		})
	}
}

// A shrinking is a Fetcher whose domains first publish a large policy, and a small
// one with another id from the second record on.
type shrinking struct {
	mu   sync.Mutex
	seen map[string]int
}

func (s *shrinking) Record(_ context.Context, name string) (stsfetch.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[name]++
	return stsfetch.Record{ID: fmt.Sprintf("v%d", min(s.seen[name], 2)), TTL: 5 * time.Second}, nil
}

func (s *shrinking) Policy(_ context.Context, name string) (string, *sts.Policy, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := "version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 604800\n"
	if s.seen[name] == 1 {
		text += "x: " + strings.Repeat("y", 60_000) + "\n"
	}
	p, err := sts.ParsePolicy([]byte(text))
	return text, p, err
}

// TestMemoryOfReplaced: memory is bounded in bytes, also if the policies of a
// stranger become smaller as soon as they are known.
func TestMemoryOfReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(Config{Fetch: &shrinking{seen: make(map[string]int)}, CacheSize: 4096})
		defer e.Close()
		before := heapInUse()
		for i := range 2000 {
			hop := dane.NextHop{Domain: fmt.Sprintf("d%d.evil.example", i)}
			e.Lookup(t.Context(), hop, false)
			time.Sleep(6 * time.Second)
			e.Lookup(t.Context(), hop, false) // the recheck behind it gets the small one
			synctest.Wait()
		}
		u := e.Usage()
		if grown := heapInUse() - before; grown > 2*u.MostBytes {
			t.Errorf("memory has grown by %d MB; %d MB are counted, the bound is %d MB", grown>>20, u.Bytes>>20, u.MostBytes>>20)
		}
	})
}
