package policy

import (
	"context"
	"errors"
	"time"

	"stsmap/dane"
	"stsmap/override"
)

// errTimeout is the reason of a lookup that could not be answered otherwise.
var errTimeout = errors.New("nothing could be found out in time")

// cached returns the decision about h if it is current: made under c from what is
// still known, and not expired. Otherwise it returns nil.
func (h *hop) cached(c *conditions, now instant) *Decision {
	d := h.decision.Load()
	if d == nil || d.under != c || now.mono > d.until {
		return nil
	}
	// Only what an override alone says does not depend on facts.
	if !d.overridden && d.from != h.domain.facts.Load() || d.dane != nil && d.dane != h.daneState.Load() {
		return nil
	}
	return d
}

// Cached returns the decision about a next-hop if it is cached, without I/O and
// without allocation, and otherwise nil: then Lookup makes it. What is due for
// the domain is started behind the answer. nextHop is in the form of
// dane.NextHop, with a domain as for Lookup, and is not kept. strict asks for
// Decision.Strict where there is one.
func (e *Engine) Cached(nextHop []byte, strict bool) *Decision {
	h := e.memory.find(nextHop)
	if h == nil {
		return nil
	}
	now := e.now()
	d := h.cached(e.current(now), now)
	if d == nil {
		return nil
	}
	source := Fresh
	if now.mono >= d.recheck {
		source = Stale
		e.revalidate(h, d.from, d.under, now)
	}
	d = d.choose(strict)
	e.answered(h, d, source, now)
	return d
}

// choose returns d, or Strict if that is wanted and there.
func (d *Decision) choose(strict bool) *Decision {
	if strict && d.Strict != nil {
		return d.Strict
	}
	return d
}

// revalidate starts what is due for h, which is answered without waiting for it
// (RFC 8461, Section 5.1).
func (e *Engine) revalidate(h *hop, f *facts, c *conditions, now instant) {
	d := h.domain
	last := d.rechecked.Load()
	if now.mono >= d.recheckAt(f) && (last == 0 || now.mono-last >= int64(minTTL)) && d.rechecked.CompareAndSwap(last, now.nonZero()) {
		e.join(h.nextHop(), onUse)
	}
	due := func(s *daneState) bool { return s != nil && now.mono >= s.due }
	if kind, _ := c.kindOf(h, f, now); due(h.daneState.Load()) && c.daneMatters(kind) && !c.dane.off() {
		e.joinCheck(h, func(s *daneState) bool { return !due(s) })
	}
}

// Lookup returns the decision about a next-hop, whose domain is a lower-case
// A-label name without a trailing dot. It takes no longer than Config.Timeout,
// whatever networks and stores do, and never returns nil. If ctx ends first, the
// answer is the one for a domain of which nothing is known; what was begun for
// it goes on and serves the next lookup. strict asks for Decision.Strict where
// there is one.
func (e *Engine) Lookup(ctx context.Context, nextHop dane.NextHop, strict bool) *Decision {
	h, d, source := e.find(ctx, nextHop, onUse)
	d = d.choose(strict)
	e.answered(h, d, source, e.now())
	return d
}

// Decide returns what Cached or else Lookup would, for a person instead of for
// mail: it is neither counted nor a use of the domain, and starts nothing behind
// the answer. What is not known is found out, as for a lookup.
func (e *Engine) Decide(ctx context.Context, nextHop dane.NextHop, strict bool) *Decision {
	_, d, _ := e.find(ctx, nextHop, onLook)
	return d.choose(strict)
}

// find makes the decision about a next-hop, and says what had to be done for it.
func (e *Engine) find(ctx context.Context, nextHop dane.NextHop, why trigger) (*hop, *Decision, Source) {
	now := e.now()
	c := e.current(now)
	h := e.hop(nextHop, now)
	if d := h.cached(c, now); d != nil && why == onLook {
		return h, d, Fresh
	}
	// An override goes before whatever is known, DANE included, and nothing is
	// looked up for it: it is there because something about the domain is wrong,
	// and mail must not wait for that to time out first.
	if o := c.override(h.domain.name, now.wall); o != nil && o.Action != override.Enforce {
		return h, e.decide(h, nil, nil), Fresh
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, errTimeout)
	defer cancel()
	for reads := 0; ; {
		if now := e.now(); reads < maxReads && e.mustRead(h.domain, now) {
			reads++
			switch err := e.readStore(ctx, h.domain); {
			case ctx.Err() != nil:
				return h, e.decide(h, unknownFacts(context.Cause(ctx)), nil), Missed
			case err != nil:
				reads = maxReads // go on without the store
			}
			continue
		}
		if f := e.restoredFacts(h.domain); f != nil && f.inForce(e.now()) {
			source := Fresh
			if now := e.now(); why == onUse && now.mono >= h.domain.recheckAt(f) {
				source = Stale
				e.revalidate(h, f, c, now)
			}
			return h, e.await(ctx, h, f, daneLookup{}), source
		}
		var fl *flight
		h, fl = e.join(nextHop, why)
		if d, source := e.awaitFlight(ctx, h, fl); d != nil {
			return h, d, source
		}
	}
}

// hop returns a next-hop in memory.
func (e *Engine) hop(nextHop dane.NextHop, now instant) *hop {
	m := e.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.add(nextHop, now)
}

// awaitFlight waits for what fl publishes, and returns the decision about h and
// what had to be done for it; nil if fl found out nothing, and another one has to
// be joined. What DANE says is looked up beside the download that it may go
// before, and not after it.
func (e *Engine) awaitFlight(ctx context.Context, h *hop, fl *flight) (*Decision, Source) {
	var early daneLookup
	recordFound := fl.recordFound
	if fl.daneConfig.Check == nil {
		recordFound = nil
	}
	for waiting := true; waiting; {
		select {
		case <-fl.published:
			waiting = false
		case <-recordFound:
			early = e.daneFor(h, e.conditions.Load())
			recordFound = nil
		case <-ctx.Done():
			waiting = false
		}
	}
	select {
	case <-fl.published:
	default:
		f := unknownFacts(context.Cause(ctx))
		f.unknown = !fl.answered.Load()
		return e.decide(h, f, nil), Missed
	}
	if fl.facts == nil {
		return nil, Missed
	}
	return e.await(ctx, h, fl.facts, early), fl.source
}

// await returns the decision about h by facts f, after it has waited for what
// DANE says, if that matters and is not in early already.
func (e *Engine) await(ctx context.Context, h *hop, f *facts, early daneLookup) *Decision {
	c := e.conditions.Load()
	if kind, _ := c.kindOf(h, f, e.now()); !c.daneMatters(kind) {
		return e.decide(h, f, nil)
	}
	l := early
	if l == (daneLookup{}) {
		l = e.daneFor(h, c)
	}
	if l.check == nil {
		return e.decide(h, f, l.state)
	}
	select {
	case <-l.check.done:
		return e.decide(h, f, l.check.state)
	case <-ctx.Done():
	}
	// The policy must not be taken for absent now that it is known.
	last := h.daneState.Load()
	if last != nil && last.permission != c.dane {
		last = nil
	}
	return e.decide(h, f, conclude(last, dane.Result{}, context.Cause(ctx), e.now()))
}

// decide returns the decision about h by facts f and DANE state s, and caches it:
// as long as they are not replaced, it is current. All goroutines that decide
// the same at the same time return the same decision.
func (e *Engine) decide(h *hop, f *facts, s *daneState) *Decision {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := e.now()
	c := e.current(now)
	last := h.decision.Load()
	if d := h.cached(c, now); d != nil && (d.overridden || d.from == f && d.dane == s) {
		return d
	}
	d := newDecision(h, f, s, c, now)
	if e.shared != nil && !d.overridden {
		d.until = min(d.until, h.domain.verified.Load()+int64(copyAge))
	}
	if last != nil {
		d.inherit(last)
	}
	h.decision.Store(d)
	h.dropReplaced() // by what was replaced while it was made
	return d
}

// answered reports one answer, and notes that the domain is in use, for which its
// policy is kept fresh: behind an override, too, so that it is there when that
// ends.
func (e *Engine) answered(h *hop, d *Decision, source Source, now instant) {
	e.observe(Event{Kind: Lookup, Domain: d.Domain, Decision: d, Source: source, First: !d.answered.Load() && d.answered.CompareAndSwap(false, true)})
	if d.Override != nil && d.Override.Use(now.wall) {
		e.observe(Event{Kind: OverrideUsed, Domain: d.Domain, Decision: d})
	}
	if minute := now.minute(); h.used.Load() != minute {
		h.used.Store(minute)
	}
	hour := now.wall.Unix() / 3600
	used := &h.domain.usedHour
	if used.Load() == hour || d.STS == nil && d.Override == nil || used.Swap(hour) == hour {
		return
	}
	e.uses.add(h.domain.name, now.wall.Truncate(time.Hour))
}
