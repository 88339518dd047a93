package policy

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/cache"
	"stsmap/dane"
)

// A racingStore changes what it has in the middle of a Get, after it has read it.
type racingStore struct {
	*testStore
	meanwhile func() // once
}

func (s *racingStore) Get(ctx context.Context, name string) (cache.Entry, error) {
	e, err := s.testStore.Get(ctx, name)
	if f := s.meanwhile; f != nil {
		s.meanwhile = nil
		f()
	}
	return e, err
}

// TestChangedDuringRead: what another host stores between the read of the store and
// the decision is not covered up by that decision.
func TestChangedDuringRead(t *testing.T) {
	for _, name := range []string{"a.example", ""} {
		synctest.Test(t, func(t *testing.T) {
			x := newSharedTrials(t, 1)[0]
			x.close()
			store := &racingStore{testStore: x.store}
			x.Engine = New(Config{Store: store, Shared: store, Fetch: x.net})
			defer x.Close()
			x.want("a.example", Enforce, "A")
			time.Sleep(2 * time.Minute)
			store.meanwhile = func() {
				x.put(storedPolicy("a.example", "N", "none", time.Now(), time.Hour))
				x.hint(name, false)
			}
			x.lookup("a.example") // began before the change
			x.wantAtOnce("a.example", None, "N")
		})
	}
}

// TestHintWithoutStore: what another host has changed does not take a known policy
// out of force while the store cannot be read, and counts once it can.
func TestHintWithoutStore(t *testing.T) {
	for _, name := range []string{"a.example", ""} {
		synctest.Test(t, func(t *testing.T) {
			x := newSharedTrials(t, 1)[0]
			defer x.close()
			x.run()
			x.want("a.example", Enforce, "A")
			n := x.net.of("a.example")
			if err := n.setRecord([]string{"silent"}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			x.put(storedPolicy("a.example", "N", "none", time.Now(), 24*time.Hour))
			x.store.fail(OpGet, OpPut)
			x.hint(name, false)
			for range 30 {
				x.want("a.example", Enforce, "A")
				time.Sleep(20 * time.Second)
			}
			x.store.fail()
			time.Sleep(time.Minute)
			x.wantAtOnce("a.example", None, "N")
		})
	}
}

// TestRefusedClaim: a host that gets no claim, because another one is downloading,
// goes by what that one has stored, and not by the absence that it has itself.
func TestRefusedClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newSharedTrials(t, 2)
		x, other := all[0], all[1]
		defer x.close()
		defer other.close()
		n := x.net.of("a.example")
		if err := n.setRecord([]string{"none", "ttl=10s"}); err != nil {
			t.Fatal(err)
		}
		x.want("a.example", None, "")
		if err := n.setRecord([]string{"A"}); err != nil {
			t.Fatal(err)
		}
		n.set(func(n *fakeDomain) { n.delay = 2 * time.Second })
		time.Sleep(11 * time.Second)
		go other.lookup("a.example")
		time.Sleep(3 * time.Second) // the other one is downloading
		x.want("a.example", Enforce, "A")
		x.wantAsked("a.example", 3, 1)
	})
}

// TestHopsFollowDomain: what becomes known of a domain counts at once for all its
// next-hops.
func TestHopsFollowDomain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{})
		defer x.close()
		hops := []dane.NextHop{{Domain: "a.example"}, {Domain: "a.example", Port: 587}, {Domain: "a.example", NoMX: true}}
		for _, id := range []string{"A", "B", "C"} {
			if err := x.net.of("a.example").setRecord([]string{id}); err != nil {
				t.Fatal(err)
			}
			if _, err := x.Retrieve(t.Context(), "a.example", true); err != nil {
				t.Fatal(err)
			}
			for _, hop := range hops {
				d := x.Cached([]byte(hop.String()), false)
				if d == nil {
					d = x.Lookup(t.Context(), hop, false)
				}
				if d.ID != id {
					t.Errorf("%s: id %q, want %q", hop, d.ID, id)
				}
			}
		}
		x.wantAsked("a.example", 3, 3)
	})
}

// TestCopyIsAMinuteOld: what another host has stored counts within a minute without
// any hint, and without a question to the domain.
func TestCopyIsAMinuteOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newSharedTrials(t, 1)[0]
		defer x.close()
		x.want("a.example", Enforce, "A")
		x.wantAsked("a.example", 1, 1)
		time.Sleep(time.Second)
		x.put(storedPolicy("a.example", "N", "none", time.Now(), time.Hour))
		time.Sleep(time.Minute)
		x.wantAtOnce("a.example", None, "N")
		x.wantAsked("a.example", 0, 0)
	})
}
