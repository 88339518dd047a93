package policy

import "sync"

// decisions keeps decisions at hand, by domain. It is a cache of what the
// store says, bounded in size and without I/O.
//
// It is two maps, of which the older is dropped when the younger is full. A
// list ordered by use would be exact, but every answer would have to write to
// it; here the answers for domains in use only read, and dropping a generation
// is one assignment.
type decisions struct {
	most int // per generation

	mu    sync.RWMutex
	young map[string]*Decision // domain to decision
	old   map[string]*Decision // domain to decision, one generation earlier
}

func newDecisions(n int) *decisions {
	return &decisions{most: max(n/2, 1), young: make(map[string]*Decision)}
}

// get returns the decision about domain, or nil.
func (s *decisions) get(domain []byte) *Decision {
	s.mu.RLock()
	d := s.young[string(domain)]
	if d != nil {
		s.mu.RUnlock()
		return d
	}
	d = s.old[string(domain)]
	s.mu.RUnlock()
	if d != nil {
		s.promote(d)
	}
	return d
}

// promote moves d to the younger generation, unless it was replaced since.
func (s *decisions) promote(d *Decision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.old[d.Domain] == d && s.young[d.Domain] == nil {
		s.add(d)
	}
}

// put replaces what is known about d.Domain.
func (s *decisions) put(d *Decision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(d)
}

// drop forgets domain.
func (s *decisions) drop(domain string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.young, domain)
	delete(s.old, domain)
}

// add is put with the lock held.
func (s *decisions) add(d *Decision) {
	if len(s.young) >= s.most && s.young[d.Domain] == nil {
		s.old, s.young = s.young, make(map[string]*Decision, s.most)
	}
	s.young[d.Domain] = d
}
