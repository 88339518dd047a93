package policy

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"stsmap/dane"
)

const (
	// minTTL and maxTTL bound how long the result of a check counts. The engine
	// queries a zone every few seconds at most, here as for the record, and
	// uses no result for a week: it should notice soon that a domain starts or
	// stops using DANE.
	minTTL = 5 * time.Second
	maxTTL = time.Hour
	// grace is how long a result may still be used after its time while it is
	// renewed behind the answer, so that answers about a busy domain do not
	// wait for DNS.
	grace = 30 * time.Second
	// daneRetry is how long after a check that failed the next one follows,
	// and how long a partial result counts.
	daneRetry = time.Minute
	// unresolvedTTL is how long a result counts, before grace, that leaves out
	// hosts whose addresses cannot be looked up: a minute with grace.
	unresolvedTTL = time.Minute - grace
)

// A daneState is what DNS says about DANE for one next-hop. It is shared and not
// changed. It lives in memory only, for minutes.
type daneState struct {
	permission *danePermission // under which it was found out
	result     *dane.Result    // nil if nothing is known
	conclusive bool            // result says all that a decision can depend on
	err        error           // why the last check did not find out more; nil if it did
	known      *dane.Result    // stays in force while checks fail: the last result without hosts left out; or nil
	usable     []string        // hosts whose TLSA records were usable when they could last be looked up
	due        int64           // monotonic: when to check again behind the answer
	until      int64           // monotonic: when it expires; -1 if only the answers that wait may use it
}

// size is how many bytes s takes.
func (s *daneState) size() int64 {
	if s == nil {
		return 0
	}
	n := int64(daneBytes) + resultSize(s.result)
	if s.known != s.result {
		n += resultSize(s.known)
	}
	for _, name := range s.usable {
		n += stringBytes + int64(len(name))
	}
	return n
}

func resultSize(r *dane.Result) (n int64) {
	if r == nil {
		return 0
	}
	for _, h := range r.Hosts {
		n += daneBytes + int64(len(h.Name)+len(h.Base))
		if h.Err != nil {
			n += errorBytes + 2*int64(len(h.Err.Error())) // with what it wraps
		}
	}
	return n
}

// A daneCheck is the one check that may be under way for a next-hop.
type daneCheck struct {
	hop        *hop
	permission *danePermission // when it began
	last       *daneState      // what was known then, if it still counts for something
	state      *daneState      // set before done is closed; nil if DANE must not be used
	done       chan struct{}   // closed when state can be read
}

// A daneLookup is the DANE state of a next-hop, or else the check that
// finds it out; neither if DANE must not be used.
type daneLookup struct {
	state *daneState
	check *daneCheck
}

// daneFor returns the DANE state of h if that has not expired, or has
// it found out.
func (e *Engine) daneFor(h *hop, c *conditions) daneLookup {
	if c.dane.off() {
		return daneLookup{}
	}
	if s := h.daneState.Load(); s.counts(c, e.now()) {
		return daneLookup{state: s}
	}
	return e.joinCheck(h, func(s *daneState) bool { return s.counts(c, e.now()) })
}

// counts reports whether s, which can be nil, was found out under c and has not
// expired.
func (s *daneState) counts(c *conditions, now instant) bool {
	return s != nil && s.permission == c.dane && now.mono <= s.until
}

// joinCheck returns the check under way for h, and starts one if there is none, or
// one that began under other conditions; or the state, if a check that has just
// ended left one that will do.
func (e *Engine) joinCheck(h *hop, willDo func(*daneState) bool) daneLookup {
	m := e.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	c := e.conditions.Load()
	if h.check != nil && h.check.permission == c.dane {
		return daneLookup{check: h.check}
	}
	if s := h.daneState.Load(); willDo(s) {
		return daneLookup{state: s}
	}
	check := &daneCheck{hop: h, permission: c.dane, done: make(chan struct{})}
	if last := h.daneState.Load(); last != nil && last.permission == c.dane {
		check.last = last
	}
	h.check = check
	if !e.begin(func() { e.runCheck(check, c) }) {
		h.check = nil
		check.state = &daneState{permission: c.dane, err: errClosing, until: -1}
		close(check.done)
	}
	return daneLookup{check: check}
}

// runCheck runs check, and whatever happens leaves nothing waiting for it.
func (e *Engine) runCheck(check *daneCheck, c *conditions) {
	h := check.hop
	failed := func(err error) { check.state = &daneState{permission: check.permission, err: err, until: -1} }
	defer close(check.done)
	defer func() {
		e.memory.mu.Lock()
		defer e.memory.mu.Unlock()
		if h.check == check {
			h.check = nil
		}
		e.memory.evict(nil, e.now()) // what was under way could not go before
	}()
	defer func() {
		if p := recover(); p != nil {
			e.observe(Event{Kind: Panicked, Domain: h.domain.name, Err: fmt.Errorf("%v", p), Stack: debug.Stack()})
			failed(errors.New("internal error"))
		}
	}()
	ctx, cancel := context.WithTimeout(e.ctx, c.timeout)
	defer cancel()
	select {
	case <-e.daneDecided:
	case <-ctx.Done():
		failed(errors.New("it is not known yet whether DANE can be used"))
		return
	}
	if !check.permission.decided { // it began before the first AllowDANE
		e.memory.mu.Lock()
		check.permission = e.conditions.Load().dane
		e.memory.mu.Unlock()
	}
	if check.permission.off() || c.daneConfig.Check == nil {
		return
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	place, err := e.checks.acquire(ctx, registrable(h.domain.name), end)
	if err != nil {
		failed(err)
		return
	}
	defer place.release()
	result, err := c.daneConfig.Check(ctx, h.nextHop())
	if errors.Is(context.Cause(ctx), errEnded) {
		failed(errEnded)
		return
	}
	check.state = conclude(check.last, result, err, e.now())
	check.state.permission = check.permission
	e.publishState(check)
}

// publishState keeps and reports what check found out, unless it was cut short
// or the conditions that it began under are over.
func (e *Engine) publishState(check *daneCheck) {
	h, s, last := check.hop, check.state, check.last
	if e.ctx.Err() != nil || check.permission != e.conditions.Load().dane {
		// Answers that wait may use it, since they began under those conditions.
		kept := *s
		kept.until = -1
		check.state = &kept
		return
	}
	if s.until >= 0 {
		e.memory.mu.Lock()
		h.daneState.Store(s)
		h.dropReplaced()
		if e.memory.hops[h.name] == h {
			e.memory.count(h.domain)
			e.memory.evict(h.domain, e.now())
		}
		e.memory.mu.Unlock()
	}
	ev := Event{Kind: DANEChecked, Domain: h.domain.name, Err: s.err}
	if s.conclusive {
		ev.DANE = s.result
	}
	if last != nil && last.conclusive {
		ev.DANEBefore = last.result
	}
	if s.err != nil {
		ev.Kind = DANEFailed
	}
	e.observe(ev)
}

// conclude makes a state of what a check found out at now, where last, which can
// be nil, was known before. A result that is not conclusive leaves the last one
// that was in force: DNS that fails is no reason to drop it, whatever it was.
//
// Unresolved hosts are left out (conformance C.3, row 5a), unless they were last
// known to have usable TLSA records. Such a result counts for a minute at most, and
// never takes the place of the last one without them.
func conclude(last *daneState, r dane.Result, err error, now instant) *daneState {
	s := &daneState{err: err, conclusive: err == nil, until: -1}
	if last != nil {
		s.known, s.usable = last.known, last.usable
	}
	wait := min(max(r.TTL, minTTL), maxTTL)
	if err == nil {
		r = r.FailUnresolved(s.usable)
		s.result, s.usable = &r, usableHosts(&r, s.usable)
		undecided := r.MXSecure && r.Count(dane.Usable) == 0
		if r.Count(dane.Failed) > 0 || r.Count(dane.Unresolved) > 0 {
			wait = min(wait, daneRetry)
		}
		switch {
		case undecided && r.Count(dane.Failed) > 0:
			// The one that failed may be one to be authenticated.
			s.conclusive, s.err = false, failure(&r)
		case undecided && r.Count(dane.Unresolved) > 0:
			wait = min(wait, unresolvedTTL)
		default:
			s.known = s.result
		}
	}
	switch {
	case s.conclusive:
	case s.known != nil:
		s.result, s.conclusive, wait = s.known, true, daneRetry
	case timedOut(s.err):
		// Not every message is to wait for a server that does not answer.
		wait = daneRetry
	default:
		return s // to be asked again at once
	}
	s.due, s.until = now.in(wait), now.in(wait+grace)
	return s
}

// usableHosts returns the hosts of r with usable TLSA records, and those of last
// that could not be looked up this time.
func usableHosts(r *dane.Result, last []string) (names []string) {
	for _, h := range r.Hosts {
		switch h.State {
		case dane.Usable:
			names = append(names, h.Name)
		case dane.Failed, dane.Unresolved:
			if slices.Contains(last, h.Name) {
				names = append(names, h.Name)
			}
		}
	}
	return names
}
