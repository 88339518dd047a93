package policy

import (
	"context"
	"errors"
	"time"

	"stsmap/dane"
)

// Known returns the decision about a next-hop if it is at hand, without I/O and
// without allocation, and otherwise nil: then Lookup has to be asked. Whatever
// has to happen behind the answer, such as another look at the record, is
// started. nextHop is in the form of dane.NextHop, with a domain as for Lookup,
// and is not kept. strict asks for Decision.Strict where there is one.
func (e *Engine) Known(nextHop []byte, strict bool) *Decision {
	d := e.ready.get(nextHop)
	if d == nil {
		return nil
	}
	now := time.Now()
	ns := now.UnixNano()
	if ns > d.until || e.clockWasSet(now) {
		return nil
	}
	from := Fresh
	if ns >= d.recheck {
		from = Stale
		e.behind(d, ns)
	}
	if strict && d.Strict != nil {
		d = d.Strict
	}
	e.answered(d, from, now)
	return d
}

// mostChecks is with how many flights under way no record is looked at behind
// an answer any more. The decision holds meanwhile, and the next use tries
// again; the descriptors of the process are for those who wait.
const mostChecks = 512

// behind starts what d has due. RFC 8461, Section 5.1: behind the answer, so
// as not to hold up mail.
func (e *Engine) behind(d *Decision, now int64) {
	if now >= d.record {
		e.mu.Lock()
		busy := e.flights[d.Domain] != nil || len(e.flights) >= mostChecks
		e.mu.Unlock()
		if !busy {
			e.join(d.Domain, onUse)
		}
	}
	if d.found != nil && now >= d.found.due && !e.findings.checking(d.NextHop) {
		e.joinCheck(d.hop())
	}
}

// Lookup returns the decision about hop, whose domain is a lower-case A-label
// name without a trailing dot. It takes no longer than Config.Timeout, whatever
// networks and stores do, and never returns nil. When ctx ends first, the
// answer is the one for a domain about which nothing is known; what was begun
// for it goes on and serves the next lookup. strict asks for Decision.Strict
// where there is one.
func (e *Engine) Lookup(ctx context.Context, hop dane.NextHop, strict bool) *Decision {
	d, from := e.find(ctx, hop, onUse)
	if strict && d.Strict != nil {
		d = d.Strict
	}
	e.answered(d, from, time.Now())
	return d
}

// Decide returns what Known or else Lookup would, for a person instead of for
// mail: it is neither counted nor taken for use of the domain. What is not known
// is found out, as for a lookup.
func (e *Engine) Decide(ctx context.Context, hop dane.NextHop, strict bool) *Decision {
	now := time.Now()
	d := e.ready.get([]byte(hop.String()))
	if d == nil || now.UnixNano() > d.until || e.clockWasSet(now) {
		d, _ = e.find(ctx, hop, onLook)
	}
	if strict && d.Strict != nil {
		d = d.Strict
	}
	return d
}

// find makes a decision that is not at hand, and tells what had to be done.
func (e *Engine) find(ctx context.Context, hop dane.NextHop, why trigger) (*Decision, Source) {
	if d := e.overridden(hop); d != nil {
		return d, Fresh
	}
	s := e.settings.Load()
	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout, errors.New("nothing could be found out in time"))
	defer cancel()
	for {
		f := e.join(hop.Domain, why)
		d := e.await(ctx, s, f, hop)
		if d == nil {
			continue // that one was about something else
		}
		select {
		case <-f.published:
			return d, f.source
		default:
			return d, Missed
		}
	}
}

// await waits for what f publishes and, if it matters, for what DANE says of
// hop. That is looked up beside the download that it may go before, and not
// after it.
func (e *Engine) await(ctx context.Context, s *settings, f *flight, hop dane.NextHop) *Decision {
	var (
		found  *finding
		c      *check
		stake  = f.atStake
		looked bool
	)
	if s.dane.Check == nil {
		stake = nil
	}
	for waiting := true; waiting; {
		select {
		case <-f.published:
			waiting = false
		case <-stake:
			found, c = e.examine(hop)
			stake, looked = nil, true
		case <-ctx.Done():
			return f.undecided(context.Cause(ctx)).with(hop, nil, s, time.Now())
		}
	}
	d := f.decision
	if d == nil || !s.matters(d.standing) {
		return e.settle(d, hop, nil)
	}
	if !looked {
		found, c = e.examine(hop)
	}
	if c != nil {
		select {
		case <-c.done:
			found = c.found
		case <-ctx.Done():
			// The policy must not be taken for absent now that it is known.
			found = conclude(e.findings.get(hop.String()), dane.Result{}, context.Cause(ctx), time.Now())
			return d.with(hop, found, s, time.Now())
		}
	}
	return e.settle(d, hop, found)
}

// settle makes the decision about hop of d, about its domain, and of what was
// found out about DANE, which is nil if that may not be used, and has it at
// hand. d may be nil, and so is then the decision.
func (e *Engine) settle(d *Decision, hop dane.NextHop, found *finding) *Decision {
	if d == nil {
		return nil
	}
	now := time.Now()
	e.settling.Lock()
	defer e.settling.Unlock()
	s := e.settings.Load()
	late := s.matters(d.standing) && e.denied() != (found == nil) // it was switched on or off since
	late = late || e.overruled(d) || e.outdated(d)
	if e.denied() {
		found = nil
	}
	last := e.ready.get([]byte(hop.String()))
	if last != nil && last.Override == d.Override && last.found == found && last.standing == d.standing && last.record >= d.record && now.UnixNano() <= last.until {
		return last // made by another who waited, or of what was learned since
	}
	n := d.with(hop, found, s, now)
	if !late && (n.until > 0 || n.STS != nil) {
		e.put(n) // one that holds for no other answer has at least the policy
	}
	return n
}

// keep has d, which is about a domain as far as MTA-STS goes, at hand for the
// next lookups, with what is known about DANE.
func (e *Engine) keep(d *Decision) {
	e.settling.Lock()
	defer e.settling.Unlock()
	if e.overruled(d) || e.outdated(d) {
		return // what the administrator said is at hand, or will be; or what somebody else stored
	}
	s := e.settings.Load()
	var found *finding
	if s.matters(d.standing) && !e.denied() {
		if found = e.findings.get(d.NextHop); found == nil {
			found = &finding{err: errors.New("not looked up yet")}
		}
	}
	e.put(d.with(d.hop(), found, s, time.Now()))
}

// put has d at hand. If it says what the last decision said, it was told when
// that one was. The lock for settling must be held.
func (e *Engine) put(d *Decision) {
	if d.Answer != "" {
		d.attach()
	}
	if last := e.ready.get([]byte(d.NextHop)); last != nil {
		d.inherit(last)
	}
	e.ready.put(d)
}
