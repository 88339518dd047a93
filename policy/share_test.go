package policy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A shareTest has fetches that hold a place or wait for one.
type shareTest struct {
	t     *testing.T
	share *fairShare

	mu      sync.Mutex
	holding map[string]int // owner to the fetches that have a place and were not ended
	ended   map[string]int
	order   []string // names of fetches, as they got a place
}

func newShareTest(t *testing.T, size int) *shareTest {
	c := &shareTest{t: t, share: newFairShare(), holding: make(map[string]int), ended: make(map[string]int)}
	c.share.resize(size)
	return c
}

// fetch holds a place for that time, once it has one; address can be empty.
func (c *shareTest) fetch(ctx context.Context, owner, address string, lasts time.Duration) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	p, err := c.share.acquire(ctx, owner, end)
	if err != nil {
		return err
	}
	defer p.release()
	if address != "" {
		p.at(netip.MustParseAddr(address))
	}
	c.change(func() { c.holding[owner]++; c.order = append(c.order, owner) })
	defer c.change(func() { c.holding[owner]-- })
	select {
	case <-time.After(lasts):
	case <-ctx.Done():
		if errors.Is(context.Cause(ctx), errEnded) {
			c.change(func() { c.ended[owner]++ })
		}
	}
	return context.Cause(ctx)
}

func (c *shareTest) change(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

// shareCounts are the counts of a shareTest and its share at one moment.
type shareCounts struct {
	running, waiting, owners int
	holding, ended           map[string]int
	order                    []string
}

// state returns what is counted once everything that can go on without time
// passing has done so.
func (c *shareTest) state() shareCounts {
	synctest.Wait()
	c.share.mu.Lock()
	defer c.share.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	return shareCounts{c.share.running, len(c.share.waiting), len(c.share.owners), maps.Clone(c.holding), maps.Clone(c.ended), slices.Clone(c.order)}
}

// flood begins n fetches of an owner that last as long as they can.
func (c *shareTest) flood(ctx context.Context, n int, owner func(i int) string, address string) {
	for i := range n {
		go func() { _ = c.fetch(ctx, owner(i), address, 24*time.Hour) }()
		synctest.Wait()
	}
}

// wantPlace has a fetch of an owner begin within that time.
func (c *shareTest) wantPlace(owner string, within time.Duration) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	began := time.Now()
	p, err := c.share.acquire(ctx, owner, func(error) {})
	if took := time.Since(began); err != nil || took > within {
		c.t.Errorf("%s: %v after %s, want a place within %s", owner, err, took, within)
	}
	if err == nil {
		p.release()
	}
	synctest.Wait()
}

// check compares the counts of the share with each other.
func (c *shareTest) check() {
	c.t.Helper()
	c.share.mu.Lock()
	defer c.share.mu.Unlock()
	all := make(map[*place]bool)
	for owner, places := range c.share.owners {
		if len(places) == 0 {
			c.t.Errorf("%s is kept without a place", owner)
		}
		for i, p := range places {
			all[p] = true
			if p.ended || !slices.Contains(p.owners, owner) {
				c.t.Errorf("%s has a place that is not its own", owner)
			}
			if i > 0 && owner[0] != addressOwner && p.began.Before(places[i-1].began) {
				c.t.Errorf("the places of %s are out of order", owner)
			}
		}
	}
	if len(all) != c.share.running {
		c.t.Errorf("%d places, %d counted", len(all), c.share.running)
	}
}

func always(owner string) func(int) string { return func(int) string { return owner } }

// TestShareBelowBound: as long as there are places, one owner can have all of them,
// and nothing is ended or waits.
func TestShareBelowBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newShareTest(t, 100)
		ctx, cancel := context.WithCancel(t.Context())
		c.flood(ctx, 100, always("big.example"), "192.0.2.1")
		time.Sleep(time.Hour)
		if c.state().holding["big.example"] != 100 || len(c.state().ended) > 0 || c.state().waiting > 0 {
			t.Errorf("%v hold, %v ended, %d wait", c.state().holding, c.state().ended, c.state().waiting)
		}
		c.check()
		cancel()
		synctest.Wait()
		c.check()
		if c.state().running != 0 || c.state().owners != 0 {
			t.Errorf("%d run, %d owners at the end", c.state().running, c.state().owners)
		}
	})
}

// TestShareFlood: however many fetches of one owner hang, and wait, the fetch of
// another owner begins at once. The one that has run for longest is ended for it.
func TestShareFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newShareTest(t, 50)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c.flood(ctx, 1000, always("big.example"), "")
		if c.state().holding["big.example"] != 50 || len(c.state().ended) > 0 {
			t.Errorf("%v hold, %v ended", c.state().holding, c.state().ended)
		}
		for i := range 200 {
			c.wantPlace(fmt.Sprintf("d%d.example", i), 0)
			time.Sleep(100 * time.Millisecond)
		}
		for i := range 20 { // that do not end soon
			go func() { _ = c.fetch(ctx, fmt.Sprintf("d%d.example", i), "", time.Hour) }()
			synctest.Wait()
			if owner := fmt.Sprintf("d%d.example", i); c.state().holding[owner] != 1 {
				t.Errorf("%s has no place", owner)
			}
		}
		time.Sleep(time.Minute)
		for i := range 20 {
			if owner := fmt.Sprintf("d%d.example", i); c.state().ended[owner] > 0 {
				t.Errorf("%s was ended", owner)
			}
		}
		c.check()
	})
}

// TestShareEndsLongest: of an owner that holds too many, the fetch that has run for
// longest is ended.
func TestShareEndsLongest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFairShare()
		s.resize(3)
		ended := make([]error, 3)
		for i := range ended {
			if _, err := s.acquire(t.Context(), "big.example", func(err error) { ended[i] = err }); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if _, err := s.acquire(t.Context(), "a.example", func(error) {}); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(ended[0], errEnded) || ended[1] != nil || ended[2] != nil {
			t.Errorf("ended: %v", ended)
		}
	})
}

// TestShareEqual: a hundred owners with ten fetches each have about the same number
// of places, none much less than its share, and another owner is not kept waiting.
func TestShareEqual(t *testing.T) {
	for name, order := range map[string]func(i int) int{
		"one after the other": func(i int) int { return i / 10 },
		"in turn":             func(i int) int { return i % 100 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newShareTest(t, 512)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				c.flood(ctx, 1000, func(i int) string { return fmt.Sprintf("d%d.example", order(i)) }, "")
				low, high := 512, 0
				for i := range 100 {
					n := c.state().holding[fmt.Sprintf("d%d.example", i)]
					low, high = min(low, n), max(high, n)
				}
				if low < 4 || high > 7 || c.state().running != 512 {
					t.Errorf("between %d and %d places each, %d in all", low, high, c.state().running)
				}
				c.wantPlace("another.example", 0)
				c.check()
			})
		})
	}
}

// TestShareNeverBelowEqual: a fetch of an owner is ended for another owner only
// if the first holds at least two more than the second. Otherwise the two would
// go on ending each other's fetches.
func TestShareNeverBelowEqual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newShareTest(t, 3)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c.flood(ctx, 2, always("a.example"), "")
		c.flood(ctx, 5, always("b.example"), "")
		if c.state().holding["a.example"] != 2 || c.state().holding["b.example"] != 1 || len(c.state().ended) > 0 {
			t.Errorf("%v hold, %v ended", c.state().holding, c.state().ended)
		}
	})
}

// TestShareWaitersInOrder: those that wait get places as they come free: first who
// holds the fewest, and of these in the order in which they came.
func TestShareWaitersInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newShareTest(t, 2)
		for i, owner := range []string{"a.example", "b.example"} {
			go func() { _ = c.fetch(t.Context(), owner, "", time.Duration(10+10*i)*time.Second) }()
			synctest.Wait()
		}
		for _, owner := range []string{"b.example", "c.example", "b.example", "d.example", "a.example"} {
			go func() { _ = c.fetch(t.Context(), owner, "", 100*time.Second) }()
			synctest.Wait()
		}
		time.Sleep(time.Hour)
		// A place is free at 10, 20, 110 and 120 seconds, and so on.
		if got := strings.Join(c.state().order[2:], " "); got != "c.example b.example d.example b.example a.example" {
			t.Errorf("in the order %s", got)
		}
		c.check()
	})
}

// TestShareWaitEnds: a wait ends with its context, tells that there are too many
// fetches and why it ended, and leaves nothing behind.
func TestShareWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newShareTest(t, 1)
		holder, release := context.WithCancel(t.Context())
		c.flood(holder, 1, always("a.example"), "")
		cause := errors.New("a reason")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		_, err := c.share.acquire(ctx, "b.example", func(error) {})
		if !errors.Is(err, cause) || !strings.Contains(err.Error(), "too many fetches at once") {
			t.Errorf("the error is %v", err)
		}
		if c.state().waiting != 0 {
			t.Errorf("%d wait", c.state().waiting)
		}
		release()
		synctest.Wait()
		c.wantPlace("c.example", 0)
		c.check()
	})
}

// TestShareResize: with more places those that wait begin; with fewer nothing is
// ended for that, and nothing begins until there is room again.
func TestShareResize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newShareTest(t, 10)
		for i := range 30 {
			go func() { _ = c.fetch(t.Context(), fmt.Sprintf("d%d.example", i), "", time.Duration(i+1)*time.Minute) }()
			synctest.Wait()
		}
		c.share.resize(20)
		synctest.Wait()
		if len(c.state().order) != 20 {
			t.Errorf("%d have begun, want 20", len(c.state().order))
		}
		c.share.resize(5)
		time.Sleep(15*time.Minute + time.Second)
		if len(c.state().order) != 20 || len(c.state().ended) > 0 || c.state().running != 5 {
			t.Errorf("%d have begun, %d run, %v ended", len(c.state().order), c.state().running, c.state().ended)
		}
		time.Sleep(time.Minute)
		if len(c.state().order) != 21 {
			t.Errorf("%d have begun, want 21", len(c.state().order))
		}
		c.check()
		time.Sleep(2 * time.Hour)
		if len(c.state().order) != 30 || c.state().running != 0 {
			t.Errorf("%d have begun, %d run", len(c.state().order), c.state().running)
		}
	})
}

// TestShareReleaseAfterEnd: a place is given back once, also if its fetch was ended
// before, and also if that is done twice.
func TestShareReleaseAfterEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newShareTest(t, 2)
		var places []*place
		for _, owner := range []string{"a.example", "a.example", "b.example"} {
			p, err := c.share.acquire(t.Context(), owner, func(error) {})
			if err != nil {
				t.Fatal(err)
			}
			places = append(places, p)
			time.Sleep(time.Second)
		}
		if c.check(); !places[0].ended || c.state().running != 2 {
			t.Fatalf("%d run", c.state().running)
		}
		places[0].at(netip.MustParseAddr("192.0.2.1"))
		for i, running := range []int{2, 1, 0} {
			for range 2 {
				places[i].release()
				if c.check(); c.state().running != running {
					t.Errorf("%d run, want %d", c.state().running, running)
				}
			}
		}
	})
}

// TestShareNetwork: fetches of any number of owners in one network count for it,
// once they have run for two seconds: then the longest is ended for the sake of
// another. So an honest domain there, which takes less, is not ended, and none is
// refused for its address.
func TestShareNetwork(t *testing.T) {
	for network, other := range map[string]string{"192.0.2.%d": "198.51.100.1", "2001:db8:1:%d::1": "2001:db8:2::1", "::ffff:192.0.2.%d": "198.51.100.1"} {
		t.Run(other, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newShareTest(t, 20)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				for i := range 40 {
					go func() { _ = c.fetch(ctx, fmt.Sprintf("evil%d.example", i), fmt.Sprintf(network, i), 30*time.Second) }()
				}
				time.Sleep(addressPatience + time.Second)
				for i := range 10 {
					honest, address := fmt.Sprintf("honest%d.example", i), fmt.Sprintf(network, 100+i)
					if i%2 == 0 {
						address = other
					}
					began := time.Now()
					if err := c.fetch(ctx, honest, address, time.Second); err != nil || time.Since(began) > time.Second {
						t.Errorf("%s at %s: %v after %s", honest, address, err, time.Since(began))
					}
					c.check()
				}
			})
		})
	}
}

// TestShareNetworkPatience: no fetch is ended for its network before it has run for
// two seconds.
func TestShareNetworkPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newShareTest(t, 20)
		for i := range 20 {
			go func() {
				_ = c.fetch(t.Context(), fmt.Sprintf("customer%d.example", i), "192.0.2.1", 1900*time.Millisecond)
			}()
		}
		time.Sleep(time.Second)
		for i := range 20 {
			go func() { _ = c.fetch(t.Context(), fmt.Sprintf("d%d.example", i), "", time.Second) }()
		}
		time.Sleep(time.Minute)
		if len(c.state().ended) > 0 {
			t.Errorf("ended: %v", c.state().ended)
		}
	})
}

// TestShareChurn: whatever comes, goes, is ended and changes size, the counts hold,
// no more run than may, and in the end nothing is left.
func TestShareChurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newShareTest(t, 10)
		r := rand.New(rand.NewPCG(1, 2))
		var fetching sync.WaitGroup
		most := 10
		for range 5000 {
			owner, address := fmt.Sprintf("d%d.example", r.IntN(r.IntN(30)+1)), ""
			if r.IntN(2) == 0 {
				address = fmt.Sprintf("192.0.%d.1", r.IntN(3))
			}
			patience, lasts := time.Duration(r.IntN(5000))*time.Millisecond, time.Duration(r.IntN(5000))*time.Millisecond
			fetching.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				_ = c.fetch(ctx, owner, address, lasts)
			})
			if time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond); r.IntN(500) == 0 {
				most = r.IntN(20) + 1
				c.share.resize(most)
				time.Sleep(5 * time.Second)
			}
			if synctest.Wait(); r.IntN(10) == 0 {
				c.check()
			}
			if c.state().running > most {
				t.Fatalf("%d run, at most %d may", c.state().running, most)
			}
		}
		fetching.Wait()
		c.check()
		if c.state().running != 0 || c.state().owners != 0 || c.state().waiting != 0 {
			t.Errorf("%d run, %d owners, %d wait at the end", c.state().running, c.state().owners, c.state().waiting)
		}
	})
}

// TestShareStarvation: while an owner has any number of names looked up whose hosts
// hang, a first contact with another domain takes as long as undisturbed, and
// refreshes keep pace.
func TestShareStarvation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{Concurrency: 32})
		defer x.close()
		honest := func(i int) string { return fmt.Sprintf("honest%d.example", i) }
		due := func(i int) string { return fmt.Sprintf("due%d.example", i) }
		for i := range 50 {
			x.net.of(honest(i)).set(func(n *fakeDomain) { n.delay = time.Second })
			x.net.of(due(i)).set(func(n *fakeDomain) { n.delay = time.Second })
			x.put(storedPolicy(due(i), "A", "enforce", time.Now().Add(-24*time.Hour), 7*24*time.Hour))
		}
		var asking sync.WaitGroup
		for i := range 1000 {
			name := fmt.Sprintf("d%d.evil.example", i)
			n := x.net.of(name)
			switch i % 3 {
			case 0:
				n.set(func(n *fakeDomain) { n.hangs = true })
			default:
				n.set(func(n *fakeDomain) { n.delay = time.Hour })
			}
			asking.Go(func() { x.lookup(name) })
		}
		synctest.Wait()
		x.run()
		for i := range 25 {
			began := time.Now()
			x.want(honest(i), Enforce, "A")
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("%s took %s", honest(i), took)
			}
		}
		for i := range 25 { // all at once
			asking.Go(func() {
				if d := x.lookup(honest(25 + i)); d.Kind != Enforce {
					t.Errorf("%s is decided %s: %s", d.Domain, d.Kind, d)
				}
			})
		}
		time.Sleep(3 * time.Second)
		if n := x.count(PolicyRenewed); n != 50 {
			t.Errorf("%d of 50 are refreshed", n)
		}
		if n := x.count(PolicyNew); n != 50 {
			t.Errorf("%d of 50 are downloaded", n)
		}
		asking.Wait()
	})
}
