package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// errEnded is the cause of a context that fairShare has ended: nothing was
// learned about the domain, and it is not to blame.
var errEnded = errors.New("ended for others: too many fetches at once (fetch.concurrency)")

// addressPatience is how long a fetch runs before it is ended because many
// others are at the same address: those of honest domains, which share the
// addresses of a provider, take less.
const addressPatience = 2 * time.Second

// waitTick is how often a fetch that waits looks again whether one can be ended
// for its sake.
const waitTick = 250 * time.Millisecond

// A fairShare bounds how many fetches run at once. Waiting costs little, so the
// bound is high, and as long as it is not reached it does nothing. Then each
// owner has the same right to places: a fetch that finds none takes that of the
// owner that holds most, if that holds at least two more. The one that has run
// for longest there is ended. A fetch waits only if its owner holds
// as many as any other.
//
// An owner is the registrable domain of a policy domain: its holder can make
// any number of names below it, whose hosts never answer. Once the address of
// the policy host is known, a fetch counts for its network, too; so a network
// full of domains of one owner is found, and a new domain in it is not refused
// for that.
type fairShare struct {
	mu      sync.Mutex
	max     int
	running int
	owners  map[string][]*place // in the order in which they began
	waiting []*waiter
	retried time.Time // when one that waited was given the place of another
}

// A place is the right to fetch.
type place struct {
	share  *fairShare
	owners []string
	began  time.Time
	ended  bool
	end    context.CancelCauseFunc
}

// A waiter waits for a place.
type waiter struct {
	place *place
	ready chan struct{} // closed when place is its own
}

func newFairShare() *fairShare { return &fairShare{owners: make(map[string][]*place)} }

// resize changes how many places there are.
func (s *fairShare) resize(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.max = max(n, 1)
	s.admit()
}

// size is how many places there are.
func (s *fairShare) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.max
}

// acquire returns a place for a fetch of an owner, which ends with end. It waits
// for one if it has to, until ctx ends, and then says why.
func (s *fairShare) acquire(ctx context.Context, owner string, end context.CancelCauseFunc) (*place, error) {
	p := &place{share: s, owners: []string{owner}, end: end}
	s.mu.Lock()
	if s.running < s.max && len(s.waiting) == 0 || s.makeRoom(owner) {
		s.start(p)
		s.mu.Unlock()
		return p, nil
	}
	w := &waiter{place: p, ready: make(chan struct{})}
	s.waiting = append(s.waiting, w)
	s.mu.Unlock()
	tick := time.NewTicker(waitTick)
	defer tick.Stop()
	for {
		select {
		case <-w.ready:
			return p, nil
		case <-tick.C:
			s.retry(w)
		case <-ctx.Done():
			if s.leave(w) {
				return nil, fmt.Errorf("too many fetches at once (fetch.concurrency): %w", context.Cause(ctx))
			}
			return p, nil // it came just now
		}
	}
}

// retry looks again whether a fetch can be ended for the sake of w, if it waits for
// longest: the others may have addresses by now, or have run for long. It does so
// seldom, or those that wait for a place of their own network would leave nothing
// that a new one could end at once.
func (s *fairShare) retry(w *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 || s.waiting[0] != w || time.Since(s.retried) < waitTick || !s.makeRoom(w.place.owners[0]) {
		return
	}
	s.retried = time.Now()
	s.waiting = slices.Delete(s.waiting, 0, 1)
	s.start(w.place)
	close(w.ready)
}

// leave has w wait no longer, and reports whether it did until now.
func (s *fairShare) leave(w *waiter) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.waiting, w)
	if i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
	}
	return i >= 0
}

// start gives p its place. The lock must be held.
func (s *fairShare) start(p *place) {
	p.began = time.Now()
	s.running++
	for _, owner := range p.owners {
		s.owners[owner] = append(s.owners[owner], p)
	}
}

// makeRoom ends a fetch of an owner who holds at least two places more than
// another one, for whose sake it is done, and reports whether there was one. The
// lock must be held.
func (s *fairShare) makeRoom(owner string) bool {
	var victim *place
	most := len(s.owners[owner]) + 1
	for name, places := range s.owners {
		if len(places) <= most || name == owner {
			continue
		}
		if p := places[0]; name[0] != addressOwner || time.Since(p.began) >= addressPatience {
			victim, most = p, len(places)
		}
	}
	if victim == nil {
		return false
	}
	s.remove(victim)
	victim.end(errEnded)
	return true
}

// addressOwner begins the name of an owner that is a network.
const addressOwner = '@'

// at counts p for the network of an address, too.
func (p *place) at(a netip.Addr) {
	a = a.Unmap()
	bits := 48
	if a.Is4() {
		bits = 24
	}
	network, err := a.Prefix(bits)
	if err != nil {
		return
	}
	name := string(addressOwner) + network.String()
	s := p.share
	s.mu.Lock()
	defer s.mu.Unlock()
	if !p.ended && !slices.Contains(p.owners, name) {
		p.owners = append(p.owners, name)
		s.owners[name] = append(s.owners[name], p)
	}
}

// release gives the place back.
func (p *place) release() {
	p.share.mu.Lock()
	defer p.share.mu.Unlock()
	if !p.ended {
		p.share.remove(p)
		p.share.admit()
	}
}

// remove takes p its place. The lock must be held.
func (s *fairShare) remove(p *place) {
	p.ended = true
	s.running--
	for _, owner := range p.owners {
		left := s.owners[owner]
		if i := slices.Index(left, p); i >= 0 {
			left = slices.Delete(left, i, i+1)
		}
		if s.owners[owner] = left; len(left) == 0 {
			delete(s.owners, owner)
		}
	}
}

// admit gives free places to waiting fetches: first to those of the owner that
// holds the fewest, and of these to the one that has waited longest. The lock must be held.
func (s *fairShare) admit() {
	for s.running < s.max && len(s.waiting) > 0 {
		next := 0
		for i, w := range s.waiting {
			if len(s.owners[w.place.owners[0]]) < len(s.owners[s.waiting[next].place.owners[0]]) {
				next = i
			}
		}
		w := s.waiting[next]
		s.waiting = slices.Delete(s.waiting, next, next+1)
		s.start(w.place)
		close(w.ready)
	}
}
