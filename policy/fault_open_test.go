package policy

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/dane"
)

// TestShareNetworkWaiting: a fetch that finds all places taken by one network begins
// as soon as the longest there has run for two seconds, and not only when one ends.
func TestShareNetworkWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newShareTest(t, 20)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c.flood(ctx, 20, func(i int) string { return fmt.Sprintf("evil%d.example", i) }, "192.0.2.1")
		time.Sleep(time.Second)
		c.wantPlace("honest.example", addressPatience)
	})
}

// TestShareWaitingOwner: so does one that waited before the others had an address.
func TestShareWaitingOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newShareTest(t, 20)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for i := range 20 {
			ctx, end := context.WithCancelCause(ctx)
			p, err := c.share.acquire(ctx, fmt.Sprintf("evil%d.example", i), end)
			if err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(3*time.Second, func() { p.at(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})) })
		}
		time.Sleep(time.Second)
		c.wantPlace("honest.example", 2*addressPatience)
	})
}

// TestMemoryBoundWhileHeavyIsBusy: the bounds hold, too, while all that an owner has
// that takes more than its share is being fetched.
func TestMemoryBoundWhileHeavyIsBusy(t *testing.T) {
	s := newTestMemory(100)
	d := s.set("d0.evil.example", s.policy(1000*time.Hour, 8000), false)
	s.mu.Lock()
	d.flight = new(flight)
	s.mu.Unlock()
	for i := range 1000 {
		s.set(fmt.Sprintf("d%d.example", i), s.absence(), false)
	}
	if n := len(s.hops); n > 100 {
		t.Errorf("%d next-hops are in memory, at most 100 may be", n)
	}
}

// TestMemoryReadOfEvicted: a domain that is evicted between a lookup's first step and
// its read of the store is not counted any more.
func TestMemoryReadOfEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{})
		defer x.close()
		x.put(storedPolicy("a.example", "A", "enforce", time.Now(), time.Hour))
		h := x.hop(dane.NextHop{Domain: "a.example"}, x.now())
		x.memory.mu.Lock()
		x.memory.remove(h.domain)
		x.memory.mu.Unlock()
		if err := x.readStore(t.Context(), h.domain); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		x.memory.recount(t)
		x.want("a.example", Enforce, "A")
		x.memory.recount(t)
	})
}

// TestMemoryCrowd: what is counted is what is there after more lookups at once than
// memory may have next-hops.
func TestMemoryCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{CacheSize: 10})
		defer x.close()
		var asking sync.WaitGroup
		for i := range 200 {
			name := fmt.Sprintf("d%d.example", i)
			if i%2 == 0 {
				if err := x.net.of(name).setRecord([]string{"fails"}); err != nil {
					t.Fatal(err)
				}
			}
			x.net.of(name).set(func(n *fakeDomain) { n.delay = time.Second })
			asking.Go(func() { x.lookup(name) })
		}
		asking.Wait()
		synctest.Wait()
		x.memory.bounds(t, 0, 0)
		x.memory.recount(t)
	})
}

// TestMemoryOfDANEErrors: why MX hosts failed is counted, too.
func TestMemoryOfDANEErrors(t *testing.T) {
	check := func(_ context.Context, h dane.NextHop) (dane.Result, error) {
		r := dane.Result{MXSecure: true, TTL: time.Hour}
		for i := range 33 {
			host := fmt.Sprintf("%s.%02d.%s", strings.Repeat("m", 190), i, h.Domain)
			r.Hosts = append(r.Hosts, dane.Host{Name: host, State: dane.Failed, Err: fmt.Errorf("_25._tcp.%s TLSA: SERVFAIL from 192.0.2.1", host)})
		}
		r.Hosts[0].State = dane.Usable
		return r, nil
	}
	e := New(Config{Fetch: absentFetcher{}, CacheSize: 4096, DANE: DANEConfig{All: true, Check: check}})
	defer e.Close()
	e.AllowDANE(nil)
	before := heapInUse()
	for i := range 4000 {
		e.Lookup(t.Context(), dane.NextHop{Domain: fmt.Sprintf("d%d.example", i)}, false)
	}
	u := e.Usage()
	if grown := heapInUse() - before; grown > 3*u.MostBytes/2 {
		t.Errorf("memory has grown by %d bytes, and may by %d", grown, u.MostBytes)
	}
}

// TestRecheckAtStart: the record of a stored policy is looked up behind the first
// answer, however soon after the start that is.
func TestRecheckAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{})
		defer x.close()
		x.want("a.example", Enforce, "A")
		x.close()
		time.Sleep(time.Hour)
		if err := x.net.of("a.example").setRecord([]string{"B"}); err != nil {
			t.Fatal(err)
		}
		x.start()
		x.want("a.example", Enforce, "A")
		x.wantAtOnce("a.example", Enforce, "B")
	})
}
