package policy

import (
	"hash/maphash"
	"math/bits"
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// ways is how many decisions share a set: as many as fit, with their tags, in
// one line of the processor's cache.
const ways = 7

// decisions keeps decisions at hand, by next-hop. It is a cache of what the
// store says, bounded in size and without I/O, and answers come from it while
// many goroutines ask at once.
//
// That is why it is not a map with a lock. Readers of a lock write to it, and
// processors then wait for each other; a map of strings touches twice as many
// pieces of memory. Here a next-hop has its place in one set, chosen by a hash,
// and there are so many sets that hardly any is ever full. When there are as
// many decisions as there may be, a new one takes the place of some other: it
// is made again from the store when it is asked for.
type decisions struct {
	seed maphash.Seed
	mask uint64 // number of sets, a power of two, less one
	most int    // how many decisions are kept
	room int    // for how many bytes of what strangers make long

	mu    sync.Mutex     // held to change sets; reading them needs no lock
	kept  int            // how many there are
	used  int            // of room
	other map[string]int // domain to how many are about another next-hop of it
	sets  []set
}

// A set has a tag of eight bits for each of its decisions, so that those of
// other domains need not be looked at. The two are not changed as one: who
// reads an old tag with a new decision sees another domain, or misses one that
// is there, and both mean only that the store is asked.
type set struct {
	tags  atomic.Uint64
	slots [ways]atomic.Pointer[Decision]
}

// usual is room enough for what is kept of most policies, in bytes. A policy
// can have 64 kilobytes, and whoever has many domains must not fill the memory
// with them.
const usual = 1024

// size is about how many bytes d takes of what a stranger can make long.
func (d *Decision) size() int {
	n := len(d.NextHop) + len(d.Answer)
	if d.STS != nil {
		for _, p := range d.STS.MX {
			n += len(p) + 16 // and the string that points to it
		}
	}
	return n
}

// newDecisions makes room for n decisions.
func newDecisions(n int) *decisions {
	n = max(n, 1)
	count := 1 << bits.Len(uint(n/2)) // one to two decisions a set when full
	return &decisions{seed: maphash.MakeSeed(), mask: uint64(count - 1), most: n, room: n * usual, other: make(map[string]int), sets: make([]set, count)}
}

// at returns the number of the set of a next-hop, and its tag.
func (s *decisions) at(nextHop []byte) (number, tag uint64) {
	h := maphash.Bytes(s.seed, nextHop)
	return h & s.mask, h >> 56
}

// get returns the decision about a next-hop, or nil.
func (s *decisions) get(nextHop []byte) *Decision {
	number, tag := s.at(nextHop)
	set := &s.sets[number]
	tags := set.tags.Load()
	for i := range set.slots {
		if tags>>(8*i)&0xff != tag {
			continue
		}
		if d := set.slots[i].Load(); d != nil && d.NextHop == string(nextHop) {
			return d
		}
	}
	return nil
}

// put replaces what is known about d.NextHop.
func (s *decisions) put(d *Decision) {
	number, tag := s.at([]byte(d.NextHop))
	s.mu.Lock()
	defer s.mu.Unlock()
	set := &s.sets[number]
	place := set.find(d.NextHop)
	if place < 0 {
		if s.kept >= s.most {
			s.evict(number)
		}
		if place = set.find(""); place < 0 {
			place = rand.IntN(ways) // full, which is rare
		}
	}
	s.swap(&set.slots[place], d)
	shift := 8 * place
	set.tags.Store(set.tags.Load()&^(0xff<<shift) | tag<<shift)
	for s.used > s.room && s.kept > 1 {
		s.evict(number + 1) // its own set comes last
	}
}

// swap puts d, which can be nil, into slot, and reports whether another one had
// been there. The lock must be held.
func (s *decisions) swap(slot *atomic.Pointer[Decision], d *Decision) bool {
	old := slot.Swap(d)
	if old != nil {
		s.kept--
		s.used -= old.size()
		s.count(old, -1)
	}
	if d != nil {
		s.kept++
		s.used += d.size()
		s.count(d, 1)
	}
	return old != nil
}

// count notes that there are n more of what d is, if it is about another
// next-hop than its domain. The lock must be held.
func (s *decisions) count(d *Decision, n int) {
	if d.NextHop == d.Domain {
		return
	}
	if s.other[d.Domain] += n; s.other[d.Domain] == 0 {
		delete(s.other, d.Domain)
	}
}

// evict gives up one decision: the first from the set with this number on. As
// hashes are even, so is what is given up. The lock must be held, and there
// must be a decision.
func (s *decisions) evict(number uint64) {
	for ; ; number++ {
		set := &s.sets[number&s.mask]
		for i := range set.slots {
			if s.swap(&set.slots[i], nil) {
				return
			}
		}
	}
}

// drop forgets a domain, and all next-hops of it. Most have no other than
// themselves; for the others, which have places of their own, all are looked at.
func (s *decisions) drop(domain string) {
	number, _ := s.at([]byte(domain))
	s.mu.Lock()
	defer s.mu.Unlock()
	set := &s.sets[number]
	if i := set.find(domain); i >= 0 {
		s.swap(&set.slots[i], nil)
	}
	if s.other[domain] > 0 {
		s.remove(func(d *Decision) bool { return d.Domain == domain })
	}
}

// clear forgets everything.
func (s *decisions) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(func(*Decision) bool { return true })
}

// remove forgets what is meant. The lock must be held.
func (s *decisions) remove(meant func(*Decision) bool) {
	for i := range s.sets {
		for j := range s.sets[i].slots {
			if d := s.sets[i].slots[j].Load(); d != nil && meant(d) {
				s.swap(&s.sets[i].slots[j], nil)
			}
		}
	}
}

// find returns where the decision about a next-hop is, or for "" an empty slot,
// or -1. The lock must be held.
func (s *set) find(nextHop string) int {
	for i := range s.slots {
		d := s.slots[i].Load()
		if d == nil && nextHop == "" || d != nil && d.NextHop == nextHop {
			return i
		}
	}
	return -1
}
