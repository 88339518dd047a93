package policy

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"stsmap/dane"
)

const (
	// leastTTL and longestTTL bound how long the result of a check counts. No
	// zone is asked more often than every few seconds, here or for its record,
	// and none is believed for a week: it should be noticed soon when a domain
	// begins or ends with DANE.
	leastTTL   = 5 * time.Second
	longestTTL = time.Hour
	// grace is how long a result may still be used after its time while it is
	// renewed behind the answer, so that answers about a busy domain do not
	// wait for DNS.
	grace = 30 * time.Second
	// daneRetry is how long after a check that failed the next one follows,
	// and how long a partial result counts.
	daneRetry = time.Minute
	// mostDANE is how many checks run at once. Each takes some sockets.
	mostDANE = 128
)

// A finding is what is known about DANE for one next-hop. It is shared and not
// changed.
type finding struct {
	result  *dane.Result // nil if nothing is known
	settled bool         // result says all that a decision can depend on
	err     error        // why the last check did not find out more; nil if it did
	due     int64        // when to check again behind the answer, in Unix nanoseconds
	until   int64        // when it stops to count, likewise; zero if only those who wait may use it
}

// A check is the one check that may run for a next-hop.
type check struct {
	hop    dane.NextHop
	permit *permit
	found  *finding      // set before done is closed; nil if DANE may not be used
	done   chan struct{} // closed when found can be read
}

// findings remembers what was found out, in memory only: it lives minutes.
type findings struct {
	most int // how many are kept

	mu     sync.Mutex
	known  map[string]*finding // by next-hop
	checks map[string]*check   // likewise
}

func newFindings(most int) *findings {
	return &findings{most: most, known: make(map[string]*finding), checks: make(map[string]*check)}
}

func (s *findings) get(hop string) *finding {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[hop]
}

// put remembers f, in the place of any other if there are too many.
func (s *findings) put(hop string, f *finding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known[hop] == nil && len(s.known) >= s.most {
		for other := range s.known {
			delete(s.known, other)
			break
		}
	}
	s.known[hop] = f
}

// clear forgets everything. Checks under way are not remembered either.
func (s *findings) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.known)
	clear(s.checks)
}

// expire has everything checked again before it counts, as after the clock was
// set.
func (s *findings) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for hop, f := range s.known {
		s.known[hop] = &finding{result: f.result, settled: f.settled, err: f.err}
	}
}

// examine returns what is known about DANE for hop, if that still counts, or
// the check that finds it out; neither if DANE may not be used.
func (e *Engine) examine(hop dane.NextHop) (*finding, *check) {
	if e.denied() {
		return nil, nil
	}
	f := e.findings.get(hop.String())
	if f == nil || time.Now().UnixNano() > f.until {
		return nil, e.joinCheck(hop)
	}
	return f, nil
}

// joinCheck returns the check that runs for hop, and starts one if there is
// none.
func (e *Engine) joinCheck(hop dane.NextHop) *check {
	name := hop.String()
	s := e.findings
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.checks[name]; c != nil {
		return c
	}
	c := &check{hop: hop, done: make(chan struct{})}
	s.checks[name] = c
	settings := e.settings.Load()
	if !e.begin(func() { e.runCheck(c, settings) }) {
		c.found = &finding{err: errors.New("shutting down")}
		close(c.done)
	}
	return c
}

// checking reports whether a check for hop is under way, or there are so many
// that one more must not be started behind an answer.
func (s *findings) checking(hop string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checks[hop] != nil || len(s.checks) >= mostDANE
}

// runCheck runs c, and whatever happens leaves nobody waiting.
func (e *Engine) runCheck(c *check, s *settings) {
	name := c.hop.String()
	defer func() {
		if p := recover(); p != nil {
			e.observe(Event{Kind: Panicked, Domain: c.hop.Domain, Err: fmt.Errorf("%v", p), Stack: debug.Stack()})
			c.found = &finding{err: errors.New("internal error")}
		}
		e.findings.mu.Lock()
		if e.findings.checks[name] == c {
			delete(e.findings.checks, name)
		}
		e.findings.mu.Unlock()
		close(c.done)
	}()
	ctx, cancel := context.WithTimeout(e.ctx, s.timeout)
	defer cancel()
	select {
	case <-e.permitted:
	case <-ctx.Done():
		// Nobody knows whether DANE can be used at all.
		c.found = &finding{err: errors.New("it is not known yet whether DANE can be used")}
		return
	}
	if c.permit = e.permit.Load(); c.permit.why != nil || s.dane.Check == nil {
		return
	}
	select {
	case e.checks <- struct{}{}:
		defer func() { <-e.checks }()
	case <-ctx.Done():
		c.found = &finding{err: errors.New("too many checks at once")}
		return
	}
	last := e.findings.get(name)
	result, err := s.dane.Check(ctx, c.hop)
	c.found = conclude(last, result, err, time.Now())
	e.learned(c, last)
}

// learned remembers and tells what c found out, and has what is at hand say it.
func (e *Engine) learned(c *check, last *finding) {
	f := c.found
	if e.ctx.Err() != nil {
		return // cut short: nothing was learned
	}
	if !e.refine(c) {
		// Found out under conditions that are no longer true: those who wait
		// may use it, as they began under them.
		c.found = &finding{result: f.result, settled: f.settled, err: f.err}
		return
	}
	ev := Event{Kind: DANEChecked, Domain: c.hop.Domain, Err: f.err}
	if f.settled {
		ev.DANE = f.result
	}
	if last != nil && last.settled {
		ev.DANEBefore = last.result
	}
	if f.err != nil {
		ev.Kind = DANEFailed
	}
	e.observe(ev)
}

// refine remembers what c found out, and has what is at hand say it. It does
// nothing and returns false if the conditions are no longer those that c began
// under.
func (e *Engine) refine(c *check) bool {
	name := c.hop.String()
	e.settling.Lock()
	defer e.settling.Unlock()
	if e.permit.Load() != c.permit {
		return false
	}
	if c.found.until > 0 {
		e.findings.put(name, c.found)
	}
	if d := e.ready.get([]byte(name)); d != nil && d.found != nil {
		e.put(d.with(c.hop, c.found, e.settings.Load(), time.Now()))
	}
	return true
}

// conclude makes a finding of what a check learned at the time now, where last,
// which can be nil, was known before. A result that settles nothing leaves the
// last one that did in force: DNS that fails is no reason to drop what is
// known, whatever it was.
func conclude(last *finding, r dane.Result, err error, now time.Time) *finding {
	f := &finding{err: err, settled: err == nil}
	wait := min(max(r.TTL, leastTTL), longestTTL)
	if err == nil {
		f.result = &r
		if r.Count(dane.Failed) > 0 {
			wait = min(wait, daneRetry)
			if r.MXSecure && r.Count(dane.Usable) == 0 {
				// The one that failed may be one to be authenticated.
				f.settled, f.err = false, failure(&r)
			}
		}
	}
	switch {
	case f.settled:
	case last != nil && last.settled:
		f.result, f.settled, wait = last.result, true, daneRetry
	case timedOut(f.err):
		// Not every message is to wait for a server that does not answer.
		wait = daneRetry
	default:
		return f // to be asked again at once
	}
	f.due = now.Add(wait).UnixNano()
	f.until = now.Add(wait + grace).UnixNano()
	return f
}
