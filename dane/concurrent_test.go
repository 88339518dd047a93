package dane

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/resolver"
)

// A gate is a resolver where every host has secure addresses and no TLSA
// records. It answers queries for addresses only once it is open.
type gate struct {
	hosts int
	open  chan struct{}
	stuck string // a host whose addresses are never answered

	mu       sync.Mutex // guards what follows
	inFlight int        // queries for addresses that wait
	tlsa     []string   // names that were queried for TLSA records
}

func (g *gate) MX(context.Context, string) (resolver.Answer[resolver.MX], error) {
	a := resolver.Answer[resolver.MX]{Secure: true, TTL: time.Hour}
	for i := range g.hosts {
		a.Records = append(a.Records, resolver.MX{Host: fmt.Sprintf("mx%d.example", i), Pref: uint16(i)})
	}
	return a, nil
}

func (g *gate) Addr(ctx context.Context, name string) (resolver.Answer[netip.Addr], error) {
	g.wait(+1)
	defer g.wait(-1)
	open := g.open
	if name == g.stuck {
		open = nil
	}
	select {
	case <-open:
	case <-ctx.Done():
		return resolver.Answer[netip.Addr]{}, &resolver.Error{Name: name, Type: "A", Kind: resolver.Timeout, Err: ctx.Err()}
	}
	return resolver.Answer[netip.Addr]{
		Records: []netip.Addr{netip.IPv6Loopback()}, Name: name, Secure: true, TTL: time.Minute,
	}, nil
}

func (g *gate) wait(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inFlight += n
}

func (g *gate) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inFlight
}

func (g *gate) Alias(_ context.Context, name string) (resolver.Answer[string], error) {
	return resolver.Answer[string]{Name: name, Secure: true, TTL: time.Second}, nil
}

func (g *gate) TLSA(_ context.Context, name string) (resolver.Answer[resolver.TLSA], error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tlsa = append(g.tlsa, name)
	return resolver.Answer[resolver.TLSA]{Name: name, Secure: true, TTL: time.Hour}, nil
}

// TestConcurrent checks that hosts are looked up at the same time, and how many.
func TestConcurrent(t *testing.T) {
	for _, hosts := range []int{1, 2, maxConcurrent, maxConcurrent + 1, maxHosts} {
		synctest.Test(t, func(t *testing.T) {
			g := &gate{hosts: hosts, open: make(chan struct{})}
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() {
				res, err := Check(t.Context(), g, NextHop{Domain: "example"})
				if err != nil || res.Count(None) != hosts || res.TTL != time.Minute {
					t.Errorf("%d hosts: result %v, %v", hosts, res, err)
				}
			})
			synctest.Wait()
			if n := g.waiting(); n != min(hosts, maxConcurrent) {
				t.Errorf("%d hosts: %d looked up at the same time", hosts, n)
			}
			close(g.open)
		})
	}
}

// TestStuck checks that a host without a response does not keep the others from
// being looked up, and fails alone when the context ends (conformance C4, C5).
func TestStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		g := &gate{hosts: 20, open: make(chan struct{}), stuck: "mx0.example"}
		close(g.open)
		began := time.Now()
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			res, err := Check(ctx, g, NextHop{Domain: "example"})
			if err != nil || res.Count(None) != 19 || res.Hosts[0].State != Failed {
				t.Errorf("result %v, %v", res, err)
			}
			if d := time.Since(began); d != 10*time.Second {
				t.Errorf("it took %v of the bubble's time", d)
			}
		})
		synctest.Wait()
		if len(g.tlsa) != 19 || g.waiting() != 1 {
			t.Errorf("%d hosts were looked up, %d wait", len(g.tlsa), g.waiting())
		}
	})
}

// A moved host is an insecure alias when its addresses are queried, and none a
// moment later.
type moved struct{ *gate }

func (moved) Addr(context.Context, string) (resolver.Answer[netip.Addr], error) {
	return resolver.Answer[netip.Addr]{Records: []netip.Addr{netip.IPv6Loopback()}, Name: "old.example", TTL: time.Minute}, nil
}

// TestMoved checks that a name that is secure, but no longer an alias, is queried
// for its own TLSA records (conformance C11), and the TTL of the result.
func TestMoved(t *testing.T) {
	g := new(gate)
	res, err := Check(t.Context(), moved{g}, NextHop{Domain: "mx.example", NoMX: true})
	if err != nil || res.Count(None) != 1 || res.TTL != time.Second {
		t.Errorf("result %v, %v", res, err)
	}
	if want := []string{"_25._tcp.mx.example"}; !slices.Equal(g.tlsa, want) {
		t.Errorf("queried %q for TLSA records, want %q", g.tlsa, want)
	}
}
