package policy

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/publicsuffix"

	"stsmap/dane"
	"stsmap/sts"
)

const (
	// bytesPerHop is how many bytes each next-hop may take on average. A policy
	// can have 64 kilobytes, and a stranger any number of domains.
	bytesPerHop = 1536
	// minBytes is enough for some large policies, however few next-hops there may
	// be.
	minBytes = 1 << 20
	// hopBytes, factsBytes and daneBytes are what the structures themselves take,
	// with their part of the table.
	hopBytes    = 450
	factsBytes  = 96
	daneBytes   = 112
	errorBytes  = 64
	stringBytes = 16
	// ownerShare is which part of the memory one owner of domains may take before
	// what it takes is evicted first.
	ownerShare = 64
	// ownerFrom is from which size on a domain counts for its owner even if it
	// has no other domain.
	ownerFrom = 4096
	// replacedBytes is how much a decision may hold of what was replaced.
	replacedBytes = 512
	// samples is how many domains are compared to find one to evict: enough for
	// the one chosen to be among the least recently used.
	samples = 16
	// sampleAgain is how long it takes until a table in which everything is unsaved is
	// searched once more.
	sampleAgain = time.Second
)

// memory holds what the Engine knows, by next-hop. It is bounded in next-hops
// and in bytes.
//
// It is a map with a lock: a table that readers need no lock for was measured,
// and was no faster below 10,000 next-hops.
type memory struct {
	maxHops  int
	maxBytes int64
	modes    [3]*sts.Policy // shared by all facts, by mode

	mu      sync.RWMutex
	hops    map[string]*hop      // by hop.name
	bytes   int64                // taken by all
	owners  map[string]*owner    // by registrable domain; of some domains
	heavy   map[*owner]struct{}  // which take more than their share
	unsaved map[*domain]struct{} // whose policy the store has yet to take
	// onlyUnsaved is until when nothing else is looked for: all of the table was
	// gone through in vain.
	onlyUnsaved int64
	evicted     [unsavedPolicy + 1]uint64
}

// A hop is one next-hop. What an answer reads comes first, for the processor's
// cache: with many thousand domains its time is that of fetching these lines.
type hop struct {
	name      string // dane.NextHop.String()
	decision  atomic.Pointer[Decision]
	daneState atomic.Pointer[daneState]
	domain    *domain
	used      atomic.Int64 // monotonic: minute of the last answer

	next  *hop       // of the same domain, beside the one of its name
	check *daneCheck // under way; memory.mu guards it
	port  uint16
	noMX  bool

	mu sync.Mutex // orders decisions
}

// nextHop returns what h is about.
func (h *hop) nextHop() dane.NextHop {
	return dane.NextHop{Domain: h.domain.name, Port: h.port, NoMX: h.noMX}
}

// A domain is a policy domain, and the next-hop of that name.
type domain struct {
	facts    atomic.Pointer[facts] // nil: nothing is known; memory.mu orders writes
	usedHour atomic.Int64          // since 1970: when the use was last noted
	hop

	rechecked atomic.Int64 // monotonic: when a recheck last began on use
	asked     atomic.Int64 // monotonic: when the record was last looked up
	unread    atomic.Int64 // monotonic: when the store could not be read for it
	verified  atomic.Int64 // monotonic: when facts were last known to be those in a shared store
	leased    atomic.Int64 // monotonic: until when memory does not say again that a refresh is due

	// memory.mu guards what follows.
	flight      *flight    // under way
	leaving     *flight    // was detached, and has not ended yet
	read        *storeRead // under way
	owner       *owner     // nil: too small to count
	refuted     int64      // Fetched of a stored policy that a download here replaces, in Unix nanoseconds
	bytes       int32      // as counted
	changes     uint16     // counts changes from outside: commands and hints
	deleted     bool       // one of them was a deletion by another process
	lastDeleted bool       // the last of them was

	// The allocator has pieces of 192 bytes, which begin where lines of the
	// processor's cache do.
	_ [8]byte
}

// An owner has some domains: it is the registrable domain that they are below.
type owner struct {
	name    string
	bytes   int64
	domains map[*domain]struct{}
}

// newMemory returns an empty memory for at most n next-hops.
func newMemory(n int) *memory {
	n = max(n, 1)
	m := &memory{
		maxHops:  n,
		maxBytes: max(int64(n)*bytesPerHop, minBytes),
		hops:     make(map[string]*hop),
		owners:   make(map[string]*owner),
		heavy:    make(map[*owner]struct{}),
		unsaved:  make(map[*domain]struct{}),
	}
	for mode := range m.modes {
		m.modes[mode] = &sts.Policy{Mode: sts.Mode(mode)}
	}
	return m
}

// find returns the next-hop of that name, or nil. It does not allocate.
func (m *memory) find(name []byte) *hop {
	m.mu.RLock()
	h := m.hops[string(name)]
	m.mu.RUnlock()
	return h
}

// domainOf returns a domain, or nil.
func (m *memory) domainOf(name string) *domain {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if h := m.hops[name]; h != nil {
		return h.domain
	}
	return nil
}

// add returns a next-hop, new if need be. The lock must be held.
func (m *memory) add(nextHop dane.NextHop, now instant) *hop {
	name := nextHop.String()
	if h := m.hops[name]; h != nil {
		return h
	}
	name = strings.Clone(name) // the caller's can be a part of something large
	if name == nextHop.Domain {
		d := &domain{hop: hop{name: name}}
		d.domain = d
		m.insert(&d.hop, now)
		return &d.hop
	}
	d := m.add(dane.NextHop{Domain: nextHop.Domain}, now).domain
	h := &hop{name: name, domain: d, port: nextHop.Port, noMX: nextHop.NoMX, next: d.next}
	d.next = h
	m.insert(h, now)
	return h
}

func (m *memory) insert(h *hop, now instant) {
	h.used.Store(now.minute())
	m.hops[h.name] = h
	m.count(h.domain)
	m.evict(h.domain, now)
}

// minute is t in minutes, for what need not be more exact.
func (t instant) minute() int64 { return t.mono / 60e9 }

// setFacts replaces the facts of d. The lock must be held.
func (m *memory) setFacts(d *domain, f *facts, now instant) {
	d.facts.Store(f)
	d.hop.dropReplaced()
	for h := d.next; h != nil; h = h.next {
		h.dropReplaced()
	}
	m.count(d)
	m.evict(d, now)
}

// dropReplaced drops the decision of h if it holds facts or DANE results that were
// replaced and take much memory, which is not counted any more. A small one stays
// until the next lookup, which learns from it that the domain was answered before.
func (h *hop) dropReplaced() {
	d := h.decision.Load()
	if d == nil {
		return
	}
	var held int64
	if d.from != h.domain.facts.Load() {
		held += d.from.size()
	}
	if d.dane != h.daneState.Load() {
		held += d.dane.size()
	}
	if held > replacedBytes {
		h.decision.CompareAndSwap(d, nil)
	}
}

// has reports whether d is in the table: it may have been evicted since it was
// found there. The lock must be held.
func (m *memory) has(d *domain) bool { return m.hops[d.name] == &d.hop }

// count brings the accounting of d up to date. The lock must be held.
func (m *memory) count(d *domain) {
	if !m.has(d) {
		return
	}
	n := hopBytes + int64(len(d.name)) + d.facts.Load().size() + d.daneState.Load().size()
	for h := d.next; h != nil; h = h.next {
		n += hopBytes + int64(len(h.name)) + h.daneState.Load().size()
	}
	m.bytes += n - int64(d.bytes)
	if d.owner == nil {
		d.owner = m.ownerOf(d, n)
		if d.owner != nil {
			m.countOwner(d.owner, n)
		}
	} else {
		m.countOwner(d.owner, n-int64(d.bytes))
	}
	d.bytes = int32(n)
}

// ownerOf returns the owner to count d for, which takes n bytes: nil for a
// domain of usual size that is a registrable domain itself, as most are.
func (m *memory) ownerOf(d *domain, n int64) *owner {
	name := registrable(d.name)
	if name == d.name && n < ownerFrom && m.owners[name] == nil {
		return nil
	}
	o := m.owners[name]
	if o == nil {
		o = &owner{name: name, domains: make(map[*domain]struct{})}
		m.owners[name] = o
	}
	o.domains[d] = struct{}{}
	return o
}

// registrable returns the registrable domain that a domain is below, or the
// domain itself if it is a public suffix.
func registrable(domain string) string {
	name, err := publicsuffix.EffectiveTLDPlusOne(domain)
	if err != nil {
		return domain
	}
	return name
}

func (m *memory) countOwner(o *owner, n int64) {
	o.bytes += n
	if o.bytes > m.maxBytes/ownerShare {
		m.heavy[o] = struct{}{}
	} else {
		delete(m.heavy, o)
	}
}

// An evictionRank says what evicting a domain costs: the lowest goes first.
type evictionRank uint8

const (
	nothingKnown  evictionRank = iota // nothing, or an expired policy
	noPolicyKnown                     // one DNS question
	savedPolicy                       // reading the store again
	unsavedPolicy                     // the protection of the next message (RFC 8461, Section 10.2)
)

// rank returns the rank of d. Without a store no policy is saved. The lock must
// be held.
func (m *memory) rank(d *domain, now instant) evictionRank {
	_, unsaved := m.unsaved[d]
	f := d.facts.Load()
	switch {
	case unsaved && f.hasPolicy(now):
		return unsavedPolicy
	case f == nil || f.policy != nil && !f.inForce(now):
		return nothingKnown
	case f.policy == nil:
		return noPolicyKnown
	}
	return savedPolicy
}

// evict makes room if there is too little, for the sake of d, or of none if that
// is nil. The lock must be held.
func (m *memory) evict(d *domain, now instant) {
	limit := unsavedPolicy
	if d != nil {
		limit = max(m.rank(d, now), savedPolicy) // nothing better goes for it
	}
	for len(m.hops) > m.maxHops || m.bytes > m.maxBytes {
		victim, rank := m.victim(d, limit, now)
		if victim == nil {
			return // all are in use at this moment
		}
		m.evicted[rank]++
		m.remove(victim)
	}
}

// victim returns the domain to evict next for the sake of one, and its rank; nil
// if none may go. What an owner takes beyond its share goes first.
func (m *memory) victim(for_ *domain, limit evictionRank, now instant) (*domain, evictionRank) {
	var heaviest *owner
	for o := range m.heavy {
		if heaviest == nil || o.bytes > heaviest.bytes {
			heaviest = o
		}
	}
	if heaviest != nil {
		c := candidates{memory: m, except: for_, now: now, limit: unsavedPolicy}
		if c.sample(heaviest.domains); c.best != nil {
			return c.best, c.rank
		}
		// All of it is being fetched, and goes when that ends. As long as the
		// rest fits, no other owner pays for it.
		if len(m.hops) <= m.maxHops && m.bytes-heaviest.bytes <= m.maxBytes {
			return nil, 0
		}
		limit = savedPolicy
	}
	c := candidates{memory: m, except: for_, now: now, limit: savedPolicy}
	if m.onlyUnsaved < now.mono {
		if others := c.sampleHops(m.hops); !others {
			m.onlyUnsaved = now.in(sampleAgain)
		}
	}
	if c.limit = limit; c.best == nil && limit == unsavedPolicy {
		c.sample(m.unsaved)
	}
	return c.best, c.rank
}

// candidates choose the domain that is best evicted of those offered.
type candidates struct {
	memory *memory
	except *domain
	now    instant
	limit  evictionRank

	seen int
	best *domain
	rank evictionRank
}

// sampleHops offers some domains that are not unsaved: the first of a walk, which
// begins anywhere, and goes on to the end if it has to. It reports whether there
// are any, be they under way or not.
func (c *candidates) sampleHops(hops map[string]*hop) (any bool) {
	c.seen = 0
	for _, h := range hops {
		if _, unsaved := c.memory.unsaved[h.domain]; unsaved || h.domain == c.except {
			continue
		}
		any = true
		if c.offer(h.domain); c.seen >= samples {
			break
		}
	}
	return any
}

// sample offers some domains of a set. A walk over a map begins anywhere.
func (c *candidates) sample(set map[*domain]struct{}) {
	c.seen = 0
	for d := range set {
		if c.offer(d); c.seen >= samples {
			return
		}
	}
}

func (c *candidates) offer(d *domain) {
	if d == c.except || d.busy() {
		return
	}
	c.seen++
	rank := c.memory.rank(d, c.now)
	if rank > c.limit {
		return
	}
	if c.best == nil || rank < c.rank || rank == c.rank && d.lastUse() < c.best.lastUse() {
		c.best, c.rank = d, rank
	}
}

// busy reports whether something is under way for d. The lock must be held.
func (d *domain) busy() bool {
	if d.flight != nil || d.leaving != nil || d.read != nil || d.check != nil {
		return true
	}
	for h := d.next; h != nil; h = h.next {
		if h.check != nil {
			return true
		}
	}
	return false
}

// recheckAt is when the record is to be looked up again on use, by facts f:
// never so soon after the last time as to be a burden.
func (d *domain) recheckAt(f *facts) int64 {
	last := d.asked.Load()
	if last == 0 {
		return f.recheck
	}
	return max(f.recheck, last+int64(minTTL))
}

// lastUse is the minute in which any next-hop of d was last used.
func (d *domain) lastUse() int64 {
	last := d.used.Load()
	for h := d.next; h != nil; h = h.next {
		last = max(last, h.used.Load())
	}
	return last
}

// remove removes d and its next-hops. The lock must be held.
func (m *memory) remove(d *domain) {
	delete(m.hops, d.name)
	for h := d.next; h != nil; h = h.next {
		delete(m.hops, h.name)
	}
	delete(m.unsaved, d)
	m.bytes -= int64(d.bytes)
	if o := d.owner; o != nil {
		m.countOwner(o, -int64(d.bytes))
		if delete(o.domains, d); len(o.domains) == 0 {
			delete(m.owners, o.name)
			delete(m.heavy, o)
		}
	}
}

// setUnsaved notes whether the store has yet to take the policy of d. The lock
// must be held.
func (m *memory) setUnsaved(d *domain, unsaved bool) {
	if unsaved && m.has(d) {
		m.unsaved[d] = struct{}{}
	} else if _, was := m.unsaved[d]; was {
		delete(m.unsaved, d)
		m.onlyUnsaved = 0 // d may go now
	}
}

// A Usage says how full the memory is, and what was evicted since it was made.
type Usage struct {
	// Entries is how many next-hops there are, and Most how many there can be.
	Entries, Most int
	// Bytes is about how many they take, and MostBytes how many they can.
	Bytes, MostBytes int64
	// Expired is how many were evicted of which nothing was known any more,
	// Unused how many that are read or looked up again when they are needed, and
	// Policies how many that were nowhere else: each of these domains is met
	// unprotected the next time (RFC 8461, Section 10.2).
	Expired, Unused, Policies uint64
	// Unsaved is how many policies the store has yet to take.
	Unsaved int
}

// Usage returns how full the memory is.
func (e *Engine) Usage() Usage {
	m := e.memory
	m.mu.RLock()
	defer m.mu.RUnlock()
	u := Usage{
		Entries: len(m.hops), Most: m.maxHops, Bytes: m.bytes, MostBytes: m.maxBytes,
		Expired: m.evicted[nothingKnown], Unused: m.evicted[noPolicyKnown] + m.evicted[savedPolicy], Policies: m.evicted[unsavedPolicy],
	}
	if e.store != nil {
		u.Unsaved = len(m.unsaved)
	}
	return u
}
