package policy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/stsfetch"
)

// recount compares what a memory has counted with what it holds.
func (m *memory) recount(t *testing.T) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	var bytes int64
	domains, owned := make(map[*domain]bool), make(map[*owner]int64)
	for name, h := range m.hops {
		if h.name != name || h.domain == nil {
			t.Fatalf("%s is kept as %s", h.name, name)
		}
		if h != &h.domain.hop {
			continue
		}
		d := h.domain
		domains[d] = true
		bytes += int64(d.bytes)
		if d.owner != nil {
			owned[d.owner] += int64(d.bytes)
			if _, there := d.owner.domains[d]; !there {
				t.Errorf("%s does not have %s", d.owner.name, name)
			}
		}
		n := hopBytes + int64(len(d.name)) + d.facts.Load().size() + d.daneState.Load().size()
		for h := d.next; h != nil; h = h.next {
			n += hopBytes + int64(len(h.name)) + h.daneState.Load().size()
			if m.hops[h.name] != h {
				t.Errorf("%s is not kept", h.name)
			}
		}
		if n != int64(d.bytes) {
			t.Errorf("%s has %d bytes, counted are %d", name, n, d.bytes)
		}
	}
	for name, h := range m.hops {
		if !domains[h.domain] {
			t.Errorf("the domain of %s is not kept", name)
		}
	}
	if bytes != m.bytes {
		t.Errorf("%d bytes are counted, %d taken", m.bytes, bytes)
	}
	for d := range m.unsaved {
		if !domains[d] {
			t.Errorf("%s is unsaved, and not kept", d.name)
		}
	}
	if len(owned) != len(m.owners) {
		t.Errorf("%d owners are counted, %d have something", len(m.owners), len(owned))
	}
	for name, o := range m.owners {
		if _, heavy := m.heavy[o]; o.bytes != owned[o] || heavy != (o.bytes > m.maxBytes/ownerShare) {
			t.Errorf("%s has %d bytes, counted are %d; heavy is %v", name, owned[o], o.bytes, heavy)
		}
	}
	for o := range m.heavy {
		if m.owners[o.name] != o {
			t.Errorf("%s is heavy, and no owner", o.name)
		}
	}
}

// bounds fails the test if m takes more than it may, but for some next-hops and
// bytes.
func (m *memory) bounds(t *testing.T, hops int, bytes int64) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.hops) > m.maxHops+hops || m.bytes > m.maxBytes+bytes {
		t.Fatalf("%d next-hops of %d, %d bytes of %d", len(m.hops), m.maxHops, m.bytes, m.maxBytes)
	}
}

// A testMemory is a memory with a clock that the test sets.
type testMemory struct {
	*memory
	engine *Engine
	now    instant
}

func newTestMemory(n int) *testMemory {
	s := &testMemory{memory: newMemory(n), engine: New(Config{})}
	s.now = instant{wall: day(1), mono: int64(time.Minute)}
	return s
}

// pass lets a minute pass.
func (s *testMemory) pass() {
	s.now.mono += int64(time.Minute)
	s.now.wall = s.now.wall.Add(time.Minute)
}

// set makes a policy, or its absence, known of a domain, in a new minute.
func (s *testMemory) set(name string, e cache.Entry, unsaved bool) *domain {
	s.pass()
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.add(dane.NextHop{Domain: name}, s.now).domain
	e.Domain = name
	f := s.engine.newFacts(e, s.now, nil)
	if (f.policy == nil) != (e.Policy == "") {
		panic(f.noPolicy)
	}
	s.setUnsaved(d, unsaved)
	s.setFacts(d, f, s.now)
	return d
}

// policy is an entry of a policy that lasts that long, of at least that many bytes.
func (s *testMemory) policy(life time.Duration, bytes int) cache.Entry {
	e := known()
	e.Fetched, e.Expires = s.now.wall.Add(-time.Hour), s.now.wall.Add(life)
	e.Policy += strings.Repeat("x: "+strings.Repeat("y", 96)+"\n", bytes/100)
	return e
}

// absence is an entry without a policy.
func (s *testMemory) absence() cache.Entry {
	return cache.Entry{Expires: s.now.wall.Add(30 * time.Minute), Recheck: s.now.wall.Add(30 * time.Minute)}
}

func (s *testMemory) has(name string) bool { return s.domainOf(name) != nil }

// evictOne makes the memory a domain too small, and returns which of some domains
// has been evicted for that.
func (s *testMemory) evictOne(names ...string) string {
	s.mu.Lock()
	was := s.maxHops
	s.maxHops = len(s.hops) - 1
	s.evict(nil, s.now)
	s.maxHops = was
	s.mu.Unlock()
	evicted := "none"
	for _, name := range names {
		if !s.has(name) {
			evicted = name
		}
	}
	return evicted
}

// TestMemoryChurn: whatever comes, grows, shrinks, changes its rank, has next-hops
// of its own and is busy or not: the bounds in number and bytes hold, and what is
// counted is what is there.
func TestMemoryChurn(t *testing.T) {
	s := newTestMemory(300)
	r := rand.New(rand.NewPCG(3, 4))
	name := func() string {
		switch r.IntN(3) {
		case 0:
			return fmt.Sprintf("d%d.example", r.IntN(1000))
		case 1:
			return fmt.Sprintf("h%d.big%d.example", r.IntN(1000), r.IntN(3))
		}
		return fmt.Sprintf("big%d.example", r.IntN(3))
	}
	for i := range 20_000 {
		name := name()
		switch r.IntN(6) {
		case 0:
			s.set(name, s.absence(), false)
		case 1:
			s.set(name, s.policy(time.Duration(r.IntN(1000)-100)*time.Minute, 0), r.IntN(4) == 0)
		case 2:
			s.set(name, s.policy(time.Hour, r.IntN(6000)), r.IntN(4) == 0)
		case 3:
			s.mu.Lock()
			d := s.add(dane.NextHop{Domain: name, Port: uint16(r.IntN(3))}, s.now).domain
			hosts := make([]dane.Host, r.IntN(10))
			for i := range hosts {
				hosts[i].Name = strings.Repeat("m", r.IntN(250))
			}
			d.daneState.Store(&daneState{result: &dane.Result{Hosts: hosts}})
			s.count(d)
			s.evict(d, s.now)
			s.mu.Unlock()
		case 4:
			s.mu.Lock()
			if h := s.hops[name]; h != nil {
				s.setFacts(h.domain, nil, s.now)
			}
			s.mu.Unlock()
		case 5:
			s.mu.Lock()
			if h := s.hops[name]; h != nil && r.IntN(2) == 0 {
				s.remove(h.domain)
			}
			s.mu.Unlock()
		}
		s.bounds(t, 2, 8000) // a domain is not evicted for its own sake
		if i%200 == 0 {
			s.recount(t)
		}
		if t.Failed() {
			t.Fatalf("after %d steps", i)
		}
	}
	s.recount(t)
	s.mu.Lock()
	for _, h := range s.hops {
		if h == &h.domain.hop {
			s.remove(h.domain)
		}
	}
	s.mu.Unlock()
	s.recount(t)
	if s.bytes != 0 || len(s.owners)+len(s.heavy)+len(s.unsaved)+len(s.hops) != 0 {
		t.Errorf("%d bytes and %d owners are left", s.bytes, len(s.owners))
	}
}

// TestMemoryHolds: what there is room for stays, all of it.
func TestMemoryHolds(t *testing.T) {
	const n = 5000
	s := newTestMemory(n)
	for i := range n {
		s.set(fmt.Sprintf("d%d.example", i), s.policy(1000*time.Hour, 0), i%2 == 0)
	}
	for i := range n {
		if !s.has(fmt.Sprintf("d%d.example", i)) {
			t.Fatalf("d%d.example is evicted although there is room", i)
		}
	}
	s.recount(t)
}

// TestMemoryOrder: evicted is first what is worth nothing any more, then what costs
// a question, then what can be read again, and last what is nowhere else; of each
// kind what was used least recently.
func TestMemoryOrder(t *testing.T) {
	s := newTestMemory(samples) // few enough for all to be compared
	order := []string{"expired.example", "nothing.example", "absent1.example", "absent2.example", "saved1.example", "saved2.example", "unsaved1.example", "unsaved2.example"}
	s.set("unsaved1.example", s.policy(1000*time.Hour, 0), true)
	s.set("saved1.example", s.policy(1000*time.Hour, 0), false)
	s.set("expired.example", s.policy(-time.Minute, 0), false)
	s.set("absent1.example", s.absence(), false)
	s.set("saved2.example", s.policy(1000*time.Hour, 0), false)
	s.set("absent2.example", s.absence(), false)
	s.set("unsaved2.example", s.policy(1000*time.Hour, 0), true)
	s.pass()
	s.mu.Lock()
	s.add(dane.NextHop{Domain: "nothing.example"}, s.now)
	s.mu.Unlock()
	for i, want := range order {
		if got := s.evictOne(order[i:]...); got != want {
			t.Fatalf("%s is evicted, want %s", got, want)
		}
	}
	s.recount(t)
	want := [unsavedPolicy + 1]uint64{2, 2, 2, 2}
	if s.evicted != want {
		t.Errorf("counted as evicted: %v", s.evicted)
	}
}

// TestMemoryOrderOfUse: a use of any next-hop of a domain counts for it.
func TestMemoryOrderOfUse(t *testing.T) {
	s := newTestMemory(samples)
	for _, name := range []string{"a.example", "b.example", "c.example"} {
		s.set(name, s.policy(1000*time.Hour, 0), false)
	}
	s.pass()
	s.mu.Lock()
	h := s.add(dane.NextHop{Domain: "a.example", Port: 587}, s.now)
	h.used.Store(s.now.minute())
	s.mu.Unlock()
	for _, want := range []string{"b.example", "c.example", "a.example"} {
		if got := s.evictOne("a.example", "b.example", "c.example"); got != want && s.has(want) {
			t.Fatalf("%s is evicted, want %s", got, want)
		}
	}
	if len(s.hops) != 0 {
		t.Errorf("%d next-hops are left of domains that are not", len(s.hops))
	}
}

// TestMemoryOftenUsed: what is used all the time stays, however much is used once.
func TestMemoryOftenUsed(t *testing.T) {
	s := newTestMemory(1000)
	for i := range 10_000 {
		if i%10 == 0 {
			d := s.domainOf("often.example")
			if d == nil {
				if i > 0 {
					t.Fatalf("it was evicted after %d others", i)
				}
				d = s.set("often.example", s.policy(1000*time.Hour, 0), false)
			}
			d.used.Store(s.now.minute())
		}
		s.set(fmt.Sprintf("d%d.example", i), s.policy(1000*time.Hour, 0), false)
	}
}

// TestMemoryNoBetterForWorse: no policy that is nowhere else is evicted for the sake
// of one that is stored.
func TestMemoryNoBetterForWorse(t *testing.T) {
	s := newTestMemory(20)
	for i := range 20 {
		s.set(fmt.Sprintf("unsaved%d.example", i), s.policy(1000*time.Hour, 0), true)
	}
	for i := range 100 {
		s.set(fmt.Sprintf("d%d.example", i), s.policy(1000*time.Hour, 0), false)
		s.set(fmt.Sprintf("a%d.example", i), s.absence(), false)
		s.bounds(t, 1, hopBytes) // the last one, until the next one comes
	}
	for i := range 20 {
		if name := fmt.Sprintf("unsaved%d.example", i); !s.has(name) {
			t.Errorf("%s is evicted", name)
		}
	}
	s.set("unsaved20.example", s.policy(1000*time.Hour, 0), true)
	s.set("unsaved21.example", s.policy(1000*time.Hour, 0), true)
	s.bounds(t, 0, 0) // the bounds hold for unsaved policies, too
}

// TestMemoryBusy: what is under way is not evicted, and what could not be evicted
// for that reason is so when it ends.
func TestMemoryBusy(t *testing.T) {
	busy := map[string]func(d *domain, on bool){
		"flight":  func(d *domain, on bool) { d.flight = map[bool]*flight{true: {}}[on] },
		"leaving": func(d *domain, on bool) { d.leaving = map[bool]*flight{true: {}}[on] },
		"read":    func(d *domain, on bool) { d.read = map[bool]*storeRead{true: {}}[on] },
		"check":   func(d *domain, on bool) { d.check = map[bool]*daneCheck{true: {}}[on] },
		"another": func(d *domain, on bool) { d.next.check = map[bool]*daneCheck{true: {}}[on] },
	}
	for name, set := range busy {
		s := newTestMemory(10)
		s.pass()
		s.mu.Lock()
		d := s.add(dane.NextHop{Domain: "busy.example", Port: 587}, s.now).domain
		set(d, true)
		s.mu.Unlock()
		for i := range 100 {
			s.set(fmt.Sprintf("d%d.example", i), s.policy(1000*time.Hour, 0), false)
		}
		if !s.has("busy.example") {
			t.Errorf("%s: it is evicted", name)
		}
		s.bounds(t, 0, 0)
		set(d, false)
		if got := s.evictOne("busy.example"); got != "busy.example" {
			t.Errorf("%s: it is not evicted when it is over", name)
		}
		s.recount(t)
	}
}

// TestMemoryBusyCatchesUp: more fetches under way than memory may have next-hops are
// all answered, and evicted as they end, whether they have found out something or
// not.
func TestMemoryBusyCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, fails := range []error{nil, errors.New("SERVFAIL")} {
			x := newTrial(t, Config{CacheSize: 10})
			var asking sync.WaitGroup
			for i := range 100 {
				name := fmt.Sprintf("d%d.example", i)
				x.net.of(name).set(func(n *fakeDomain) {
					if n.delay = time.Second; fails != nil {
						n.record, n.recordErr = stsfetch.Record{}, fails
					}
				})
				asking.Go(func() {
					if d := x.lookup(name); (d.Kind == Enforce) != (fails == nil) {
						t.Errorf("%s is decided %s: %s", name, d.Kind, d)
					}
				})
			}
			asking.Wait()
			synctest.Wait()
			x.memory.bounds(t, 0, 0)
			x.close()
		}
	})
}

// TestMemoryHeavyOwner: one owner's large policies, under any number of names, evict
// only that owner's: honest ones stay in force, though they are used less.
func TestMemoryHeavyOwner(t *testing.T) {
	for _, unsaved := range []bool{false, true} {
		s := newTestMemory(1024)
		for i := range 50 {
			s.set(fmt.Sprintf("honest%d.example", i), s.policy(1000*time.Hour, 0), unsaved)
		}
		for i := range 150 {
			s.set(fmt.Sprintf("d%d.evil.example", i), s.policy(1000*time.Hour, 64<<10), unsaved)
			if s.bounds(t, 0, 0); i%50 == 0 {
				s.recount(t)
			}
		}
		for i := range 50 {
			if name := fmt.Sprintf("honest%d.example", i); !s.has(name) {
				t.Errorf("unsaved %v: %s is evicted", unsaved, name)
			}
		}
		for i := range 700 { // and it is the owner's that go for others
			s.set(fmt.Sprintf("later%d.example", i), s.policy(1000*time.Hour, 0), unsaved)
		}
		for i := range 700 {
			if name := fmt.Sprintf("later%d.example", i); !s.has(name) {
				t.Fatalf("unsaved %v: %s is evicted", unsaved, name)
			}
		}
		s.recount(t)
	}
}

// TestFaultLargePolicies: in an Engine without a store, 1,600 policies of 64 KiB of
// one owner leave all fifty of others in force, with their record failing.
func TestFaultLargePolicies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{})
		x.close()
		x.Engine = New(Config{Fetch: x.net, CacheSize: 4096})
		defer x.Close()
		for i := range 50 {
			name := fmt.Sprintf("honest%d.example", i)
			x.want(name, Enforce, "A")
			x.net.of(name).set(func(n *fakeDomain) { n.record, n.recordErr = stsfetch.Record{}, errors.New("SERVFAIL") })
		}
		large := "version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 604800\n" + strings.Repeat("x: "+strings.Repeat("y", 996)+"\n", 65)
		for i := range 1600 {
			name := fmt.Sprintf("d%d.evil.example", i)
			x.net.of(name).set(func(n *fakeDomain) { n.text = large })
			x.want(name, Enforce, "A")
		}
		for i := range 50 {
			x.wantAtOnce(fmt.Sprintf("honest%d.example", i), Enforce, "A")
		}
		x.memory.recount(t)
		x.memory.bounds(t, 0, 0)
	})
}

// TestFaultMemoryOfDANE: what DNS says about DANE is bounded in bytes: a wildcard
// with 33 MX hosts of long names takes no more memory than there is.
func TestFaultMemoryOfDANE(t *testing.T) {
	result := func(name string) dane.Result {
		r := dane.Result{MXSecure: true, TTL: time.Hour}
		for i := range 33 {
			host := fmt.Sprintf("%s.%02d.%s", strings.Repeat("m", 190), i, name)
			r.Hosts = append(r.Hosts, dane.Host{Name: host, State: dane.Usable, Base: strings.Clone(host)})
		}
		return r
	}
	e := New(Config{Store: cache.NewMemory(10), Fetch: absentFetcher{}, CacheSize: 4096, DANE: DANEConfig{All: true, Check: func(_ context.Context, h dane.NextHop) (dane.Result, error) {
		return result(h.Domain), nil
	}}})
	defer e.Close()
	e.AllowDANE(nil)
	before := heapInUse()
	for i := range 1500 {
		if d := e.Lookup(t.Context(), dane.NextHop{Domain: fmt.Sprintf("d%d.example", i)}, false); d.Kind != DANEOnly {
			t.Fatalf("decided %s: %s", d.Kind, d)
		}
	}
	u := e.Usage()
	if u.Bytes > u.MostBytes || u.Entries < 100 {
		t.Errorf("%+v", u)
	}
	if grown := heapInUse() - before; grown > 3*u.MostBytes/2 {
		t.Errorf("memory has grown by %d bytes, and may by %d", grown, u.MostBytes)
	}
	e.memory.recount(t)
	runtime.KeepAlive(e)
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}
