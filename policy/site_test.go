package policy

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/stsfetch"
)

// A sharedMemory is a store that engines share, with claims.
type sharedMemory struct {
	*cache.Memory

	mu       sync.Mutex
	claims   map[string]claim
	refused  int
	released int
	broken   bool
}

type claim struct {
	owner any
	until time.Time
}

// A handle is the store as one engine has it.
type handle struct{ *sharedMemory }

func (h *handle) Claim(_ context.Context, domain string, lease time.Duration) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.broken {
		return false, errors.New("away")
	}
	if c, ok := h.claims[domain]; ok && time.Now().Before(c.until) {
		h.refused++
		return false, nil
	}
	h.claims[domain] = claim{h, time.Now().Add(lease)}
	return true, nil
}

func (h *handle) Release(_ context.Context, domain string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.claims[domain].owner == h {
		delete(h.claims, domain)
		h.released++
	}
	return nil
}

func (h *handle) Watch(ctx context.Context, _ func(string, bool)) { <-ctx.Done() }

func (h *handle) Put(ctx context.Context, e cache.Entry) error {
	return h.Replace(ctx, e, time.Time{})
}

func (h *handle) Replace(ctx context.Context, e cache.Entry, wrong time.Time) error {
	err := h.Memory.Replace(ctx, e, wrong)
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.claims, e.Domain)
	return err
}

// A site is some engines with one store, in a bubble, who ask one domain.
type aSite struct {
	domain  *fakeDomain
	store   *sharedMemory
	engines []*Engine
}

func newSite(n int) *aSite {
	s := &aSite{domain: new(fakeDomain), store: &sharedMemory{Memory: cache.NewMemory(100), claims: make(map[string]claim)}}
	for range n {
		h := &handle{s.store}
		s.engines = append(s.engines, New(Config{Store: h, Shared: h, Fetch: s.domain}))
	}
	_ = s.domain.setRecord([]string{"A"})
	s.domain.set(func(n *fakeDomain) { n.delay = time.Second })
	return s
}

func (s *aSite) close() {
	for _, e := range s.engines {
		e.Close()
	}
}

// ask has every engine asked at the same time, and returns what each decided.
func (s *aSite) ask() []*Decision {
	all := make([]*Decision, len(s.engines))
	var asking sync.WaitGroup
	for i, e := range s.engines {
		asking.Go(func() { all[i] = e.Lookup(context.Background(), dane.NextHop{Domain: "example.com"}, false) })
	}
	asking.Wait()
	synctest.Wait()
	return all
}

// TestSite: of many who share a store one downloads, and all have the policy.
func TestSite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(10)
		defer s.close()
		_ = s.domain.setPolicy([]string{"enforce", "mx.example.com"})
		for i, d := range s.ask() {
			if d.Kind != Enforce {
				t.Errorf("%d decided %s: %s", i, d.Kind, d)
			}
		}
		if s.domain.policies != 1 || s.store.refused == 0 {
			t.Errorf("%d downloads, %d claims refused", s.domain.policies, s.store.refused)
		}
	})
}

// TestSiteFailure: a download that failed is not repeated by the others.
func TestSiteFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(10)
		defer s.close()
		s.domain.set(func(n *fakeDomain) {
			n.policyErr = &stsfetch.Error{Step: stsfetch.StepTLS, Err: errors.New("handshake")}
		})
		for i, d := range s.ask() {
			if d.Kind != None {
				t.Errorf("%d decided %s: %s", i, d.Kind, d)
			}
		}
		if s.domain.policies != 1 {
			t.Errorf("%d downloads", s.domain.policies)
		}
	})
}

// TestSiteDeath: a host that dies while it holds a claim delays the others by a
// third of fetch.timeout.
func TestSiteDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(2)
		defer s.close()
		_ = s.domain.setPolicy([]string{"enforce", "mx.example.com"})
		s.store.claims["example.com"] = claim{nil, time.Now().Add(10 * time.Second)} // of the dead
		began := time.Now()
		for i, d := range s.ask() {
			if d.Kind != Enforce {
				t.Errorf("%d decided %s: %s", i, d.Kind, d)
			}
		}
		if took := time.Since(began); took < 10*time.Second || took > 15*time.Second {
			t.Errorf("it took %s", took)
		}
		if s.domain.policies != 1 {
			t.Errorf("%d downloads", s.domain.policies)
		}
	})
}

// TestSiteHeld: a claim that another host renews for ever delays a lookup by no
// more than a lookup may take, and the domain gets no failure.
func TestSiteHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(1)
		defer s.close()
		s.store.claims["example.com"] = claim{nil, time.Now().Add(time.Hour)}
		began := time.Now()
		d := s.ask()[0]
		if took := time.Since(began); d.Kind != None || took > 30*time.Second {
			t.Errorf("decided %s after %s: %s", d.Kind, took, d)
		}
		if _, err := s.store.Get(t.Context(), "example.com"); !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("something is remembered: %v", err)
		}
	})
}

// TestSiteAway: with an unreachable store, every host downloads.
func TestSiteAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(3)
		defer s.close()
		s.store.broken = true
		_ = s.domain.setPolicy([]string{"enforce", "mx.example.com"})
		for i, d := range s.ask() {
			if d.Kind != Enforce {
				t.Errorf("%d decided %s: %s", i, d.Kind, d)
			}
		}
	})
}

// TestSiteCutShort: a daemon that ends in the middle of a download gives its
// claim back.
func TestSiteCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(2)
		defer s.close()
		_ = s.domain.setPolicy([]string{"enforce", "mx.example.com"})
		s.domain.set(func(n *fakeDomain) { n.hangs = true })
		go s.engines[0].Lookup(context.Background(), dane.NextHop{Domain: "example.com"}, false)
		time.Sleep(5 * time.Second) // it has the claim
		s.domain.set(func(n *fakeDomain) { n.hangs = false })
		s.engines[0].Close()
		s.engines = s.engines[1:]
		if s.store.released != 1 {
			t.Errorf("%d claims given back", s.store.released)
		}
		began := time.Now()
		if d := s.ask()[0]; d.Kind != Enforce {
			t.Errorf("decided %s: %s", d.Kind, d)
		}
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// TestChanged: an entry that another host has put counts from the next lookup
// on.
func TestChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(2)
		defer s.close()
		_ = s.domain.setPolicy([]string{"enforce", "mx.example.com"})
		s.ask()
		e, err := s.store.Get(t.Context(), "example.com")
		if err != nil {
			t.Fatal(err)
		}
		for _, domain := range []string{"example.com", ""} {
			e.ID += "B"
			e.Fetched = e.Fetched.Add(time.Second)
			if err := s.store.Memory.Put(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			s.engines[0].hint(domain, false)
			if d := s.ask()[0]; d.ID != e.ID {
				t.Errorf("id %q, want %q", d.ID, e.ID)
			}
		}
	})
}

// TestForgetHops: to forget a domain is to forget it for all its next-hops.
func TestForgetHops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(1)
		defer s.close()
		e := s.engines[0]
		_ = s.domain.setPolicy([]string{"enforce", "mx.example.com"})
		hops := []dane.NextHop{{Domain: "example.com"}, {Domain: "example.com", Port: 587}, {Domain: "example.com", Port: 587, NoMX: true}}
		for _, hop := range hops {
			if d := e.Lookup(t.Context(), hop, false); d.Kind != Enforce {
				t.Fatalf("%s: decided %s", hop, d.Kind)
			}
		}
		other := dane.NextHop{Domain: "example.org", Port: 587}
		e.Lookup(t.Context(), other, false)
		if err := e.Delete(t.Context(), "example.com"); err != nil {
			t.Fatal(err)
		}
		for _, hop := range hops {
			if e.Cached([]byte(hop.String()), false) != nil {
				t.Errorf("%s is still at hand", hop)
			}
		}
		if e.Cached([]byte(other.String()), false) == nil {
			t.Errorf("%s is not at hand any more", other)
		}
	})
}

// TestSkew: a host whose clock is a little behind does not take a policy that
// another one downloaded for one of the future.
func TestSkew(t *testing.T) {
	for ahead, want := range map[time.Duration]string{30 * time.Second: "B", time.Hour: "A"} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(1)
			defer s.close()
			_ = s.domain.setPolicy([]string{"none"})
			at := time.Now().Add(ahead)
			go func() {
				time.Sleep(3 * time.Second / 2) // it is being downloaded here
				err := s.store.Memory.Put(context.Background(), cache.Entry{
					Domain: "example.com", ID: "B", Policy: "version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 86400\n",
					Fetched: at, Expires: at.Add(24 * time.Hour), Checked: at, Recheck: at.Add(time.Minute),
				})
				if err != nil {
					t.Error(err)
				}
			}()
			d := s.ask()[0]
			stored, err := s.store.Get(t.Context(), "example.com")
			if err != nil || d.ID != want || stored.ID != want {
				t.Errorf("%s ahead: decided by id %q, stored %q (%v), want %q", ahead, d.ID, stored.ID, err, want)
			}
		})
	}
}

// A killingStore is of a process that is killed after its second write. The first
// one is refused.
type killingStore struct {
	cache.Store
	writes int
}

func (s *killingStore) write() error {
	if s.writes++; s.writes > 2 {
		return errors.New("killed")
	}
	return nil
}

func (s *killingStore) Put(ctx context.Context, e cache.Entry) error {
	if err := s.write(); err != nil {
		return err
	}
	return s.Store.Put(ctx, e)
}

func (s *killingStore) Replace(ctx context.Context, e cache.Entry, wrong time.Time) error {
	if err := s.write(); err != nil {
		return err
	}
	return s.Store.Replace(ctx, e, wrong)
}

func (s *killingStore) Delete(ctx context.Context, domain string) error {
	if err := s.write(); err != nil {
		return err
	}
	return s.Store.Delete(ctx, domain)
}

// TestSkewKill: whenever the daemon is killed while it replaces a policy that was
// downloaded in the future, the store has one of the two.
func TestSkewKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		domain, memory := new(fakeDomain), cache.NewMemory(10)
		_ = domain.setRecord([]string{"A"})
		_ = domain.setPolicy([]string{"none"})
		at := time.Now().Add(time.Hour)
		entry := cache.Entry{
			Domain: "example.com", ID: "B", Policy: "version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 86400\n",
			Fetched: at, Expires: at.Add(24 * time.Hour), Checked: at, Recheck: at.Add(time.Minute),
		}
		if err := memory.Put(t.Context(), entry); err != nil {
			t.Fatal(err)
		}
		e := New(Config{Store: &killingStore{Store: memory}, Fetch: domain})
		defer e.Close()
		if _, err := e.Retrieve(t.Context(), "example.com", true); err != nil {
			t.Fatal(err)
		}
		if stored, err := memory.Get(t.Context(), "example.com"); err != nil || stored.ID != "A" {
			t.Errorf("the store has %q, %v", stored.ID, err)
		}
	})
}

// TestSlotFirst: a lookup takes a claim only when it has a slot, and a lookup
// that waits for a claim holds no slot.
func TestSlotFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(1)
		defer s.close()
		e := s.engines[0]
		e.Configure(Config{Fetch: s.domain, Concurrency: 1})
		s.domain.set(func(n *fakeDomain) { n.hangs = true })
		s.store.claims["held.example"] = claim{nil, time.Now().Add(time.Hour)}
		var asking sync.WaitGroup
		lookup := func(name string) {
			asking.Go(func() { e.Lookup(context.Background(), dane.NextHop{Domain: name}, false) })
		}
		lookup("held.example") // waits for its turn
		time.Sleep(2 * time.Second)
		lookup("a.example")
		time.Sleep(2 * time.Second)
		lookup("b.example") // waits for the slot
		time.Sleep(2 * time.Second)
		s.store.mu.Lock()
		_, a := s.store.claims["a.example"]
		_, b := s.store.claims["b.example"]
		s.store.mu.Unlock()
		if !a || b {
			t.Errorf("a.example is claimed: %t, b.example: %t", a, b)
		}
		asking.Wait()
	})
}
