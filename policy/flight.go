package policy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/stsfetch"
)

// storePatience is how long an answer waits for the store to take what was just
// learned. A healthy disk takes milliseconds; a sick one must not hold up mail:
// the policy is in force, it just may not survive a crash.
const storePatience = 2 * time.Second

// lostAge is how long ago a policy that the store has lost must have been
// downloaded to be downloaded again, and not only put back: a store that evicts
// can lose it each minute.
const lostAge = time.Hour

// A trigger is why a flight was started.
type trigger uint8

const (
	onUse     trigger = iota // Postfix looks the domain up
	onLook                   // a person asks what Postfix would be answered
	onRefresh                // a refresh is due: download whatever the record says
	onOverdue                // likewise, as far as memory knows: the store may know better
	onRequest                // a person wants it downloaded now, if there is a policy
	onCommand                // nothing is fetched: a deletion, an import or a save
)

// isLookup reports whether a flight is for an answer, which does not download a
// policy again that is known and has not changed.
func (t trigger) isLookup() bool { return t == onUse || t == onLook }

// errDetached is the cause of a flight's context that ends because something
// else has changed the domain.
var errDetached = errors.New("the domain was changed meanwhile")

// A flight is all that is done for one domain at one time, beside reading the
// store for a lookup: fetching, storing. There is at most one, so that a lookup, a recheck and a
// refresh cannot double each other, and it outlives the lookups that wait for
// it. Those see nothing but what it publishes.
type flight struct {
	*conditions
	domain  *domain
	trigger trigger
	began   instant
	before  *flight // was detached, and must end before this one fetches or stores
	ctx     context.Context
	cancel  context.CancelCauseFunc

	changes  uint16 // of domain as this flight knows them; memory.mu guards it
	claimed  bool   // from the others that share the store
	saves    bool   // it only stores the cached facts
	place    *place
	answered atomic.Bool // DNS said something about the record

	foundOnce   sync.Once
	recordFound chan struct{} // closed when what DANE says may matter
	publishOnce sync.Once
	facts       *facts        // set before published is closed; nil: join again
	source      Source        // likewise
	published   chan struct{} // closed when facts can be read
	done        chan struct{} // closed when the flight is over
}

// publish gives f to all that wait. The first one counts: a flight that finds a
// valid policy in the store publishes it before it looks anything up.
func (fl *flight) publish(f *facts, source Source) {
	fl.publishOnce.Do(func() {
		fl.facts, fl.source = f, source
		close(fl.published)
	})
}

// learnedNothing reports whether fl has published that nothing is known: the next
// lookup asks again, also while fl has yet to end.
func (fl *flight) learnedNothing() bool {
	select {
	case <-fl.published:
		return fl.facts == nil || fl.facts.unknown
	default:
		return false
	}
}

// setRecordFound tells those that wait that there may be a policy for DANE to go
// before.
func (fl *flight) setRecordFound() { fl.foundOnce.Do(func() { close(fl.recordFound) }) }

// join returns the flight of a next-hop's domain, and starts one if there is
// none, and the next-hop.
func (e *Engine) join(nextHop dane.NextHop, why trigger) (*hop, *flight) {
	m := e.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.add(nextHop, e.now())
	d := h.domain
	switch {
	case d.flight == nil:
	case d.flight.saves, d.flight.learnedNothing() && d.leaving == nil:
		d.leaving = d.flight // a fetch need not wait for another time, only for its end
	default:
		return h, d.flight
	}
	fl := e.newFlight(d, why)
	if fl.daneConfig.All {
		fl.setRecordFound()
	}
	if !e.begin(func() { e.run(fl) }) {
		fl.publish(unknownFacts(errClosing), Missed)
		close(fl.done)
		return h, fl
	}
	d.flight = fl
	return h, fl
}

// newFlight returns a flight for d. The lock of memory must be held.
func (e *Engine) newFlight(d *domain, why trigger) *flight {
	fl := &flight{
		conditions:  e.conditions.Load(),
		domain:      d,
		trigger:     why,
		changes:     d.changes,
		began:       e.now(),
		before:      d.leaving,
		recordFound: make(chan struct{}),
		published:   make(chan struct{}),
		done:        make(chan struct{}),
	}
	fl.ctx, fl.cancel = context.WithCancelCause(e.ctx)
	return fl
}

// detach ends the flight of d: it publishes nothing more, and is not joined. The
// lock of memory must be held.
func (d *domain) detach() {
	if fl := d.flight; fl != nil {
		fl.cancel(errDetached)
		d.flight, d.leaving = nil, fl
	}
}

// land ends fl, and lets those that still wait join another one.
func (e *Engine) land(fl *flight) {
	m := e.memory
	m.mu.Lock()
	if fl.domain.flight == fl {
		fl.domain.flight = nil
	}
	if fl.domain.leaving == fl {
		fl.domain.leaving = nil
	}
	fl.before = nil
	m.evict(nil, e.now()) // what was under way could not go before
	m.mu.Unlock()
	fl.cancel(nil)
	fl.publish(nil, Missed)
	close(fl.done)
}

// run runs fl, and whatever happens leaves nothing waiting for it.
func (e *Engine) run(fl *flight) {
	defer e.land(fl)
	defer func() {
		if p := recover(); p != nil {
			e.observe(Event{Kind: Panicked, Domain: fl.domain.name, Err: fmt.Errorf("%v", p), Stack: debug.Stack()})
			fl.publish(&facts{reason: "internal error", bug: true}, Missed)
		}
	}()
	defer e.release(fl)
	ctx, cancel := context.WithTimeout(fl.ctx, fl.timeout)
	defer cancel()

	d := fl.domain
	var readErr error
	if fl.trigger == onRefresh || fl.trigger == onOverdue || e.mustReadAgain(d, e.now()) {
		readErr = e.readStore(ctx, d)
	}
	if ctx.Err() != nil && fl.ctx.Err() == nil {
		// The store took all the time there was. Looking up anything now would
		// fail for that reason, and blame the domain.
		fl.publish(unknownFacts(errors.New("the store did not answer in time")), Missed)
		return
	}
	f, now := e.restoredFacts(d), e.now()
	if fl.trigger == onOverdue && readErr == nil && f.hasPolicy(now) && f.refresh > now.wall.UnixNano() {
		return // another process refreshes it
	}
	if (fl.trigger == onRefresh || fl.trigger == onOverdue) && !f.hasPolicy(now) {
		if f != nil && readErr == nil {
			e.sweep(ctx, fl, f)
		}
		return
	}
	if f != nil && f.inForce(now) {
		if fl.trigger.isLookup() && now.mono < d.recheckAt(f) {
			fl.publish(f, Fresh)
			return
		}
		fl.publish(f, Stale)
	}
	if err := e.takePlace(ctx, fl, f.hasPolicy(now)); err != nil {
		e.giveUp(fl, err)
		return
	}
	e.fetch(ctx, fl)
}

// takePlace waits until fl may fetch: until there is a place for it, and what was
// detached from its domain has ended. A policy that is in force is refreshed in
// the background, for which first contacts need not wait.
func (e *Engine) takePlace(ctx context.Context, fl *flight, background bool) (err error) {
	if fl.before != nil {
		select {
		case <-fl.before.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	share := e.fetches
	if background {
		share = e.refreshes
	}
	fl.place, err = share.acquire(ctx, registrable(fl.domain.name), fl.cancel)
	return err
}

// release gives back the place of fl, and its claim. What fl put into the store
// has ended the claim already; this is for fetches that were cut short.
func (e *Engine) release(fl *flight) {
	if fl.place != nil {
		fl.place.release()
		fl.place = nil
	}
	e.releaseClaim(fl)
}

// giveUp ends fl with nothing learned about the domain, for which err is the
// reason.
func (e *Engine) giveUp(fl *flight, err error) {
	switch cause := context.Cause(fl.ctx); {
	case errors.Is(cause, errDetached):
		return // those that wait join another flight
	case errors.Is(cause, errEnded):
		err = errEnded
	case e.ctx.Err() != nil:
		err = errClosing
	}
	f := unknownFacts(err)
	// RFC 8461, Section 3.3: with a record and no policy mail is delivered.
	f.unknown = !fl.answered.Load()
	fl.publish(f, Missed)
	if !errors.Is(err, errClosing) {
		e.observe(Event{Kind: FetchEnded, Domain: fl.domain.name, Err: err})
	}
}

// fetch looks up the domain, keeps and publishes what that means, and reports
// what happened.
func (e *Engine) fetch(ctx context.Context, fl *flight) {
	got, err := e.ask(ctx, fl)
	now := e.now() // what was learned counts from here
	if fl.ctx.Err() != nil && got.policy == nil {
		err = context.Cause(fl.ctx)
	}
	if err != nil {
		e.giveUp(fl, err)
		return
	}
	if err := got.shortage(); err != nil {
		e.short(fl, err)
		return
	}
	if e.mustReadAgain(fl.domain, e.now()) && fl.domain.facts.Load() != nil {
		// Another process changed the domain meanwhile. What was found out is
		// about the facts of now.
		_ = e.readStore(ctx, fl.domain)
		if !got.downloaded() && e.wanted(fl, got) {
			if err := e.download(ctx, fl, &got); err != nil {
				e.giveUp(fl, err)
				return
			}
			now = e.now()
		}
	}
	for {
		f := e.restoredFacts(fl.domain)
		old := e.oldEntry(fl, f)
		before := old
		if f != nil && f.policy != nil {
			before = f.decoded(fl.domain.name) // also if it has expired
		}
		entry := fl.rules.next(old, got, now.wall, rand.Float64())
		c := e.current(now)
		if got.policy == nil && got.policyErr == nil && !c.settled(now) && old.Refresh.After(now.wall.Add(fl.rules.refresh)) {
			entry.Refresh = old.Refresh // it may be this clock that is behind
		}
		after := e.newFacts(entry, now, f).withPolicyKept(f, c, now)
		attached, kept := true, true
		saved := false
		switch {
		case got.recordErr != nil && entry.Policy == "":
			attached, kept = e.recordFailed(ctx, fl, f, after, got.recordErr)
		case entry.Policy == "":
			attached, kept = e.noPolicy(fl, f, after, entry)
		default:
			if attached, kept = e.swapFacts(fl, f, after, true); kept {
				saved = e.save(fl, entry, after, got.policy != nil) == nil
			}
		}
		if !attached {
			return // those that wait join another flight
		}
		if kept {
			e.report(fl, before, entry, got, saved)
			return
		}
	}
}

// oldEntry returns the entry of the domain of fl as next wants it: without a
// policy that is not in force.
func (e *Engine) oldEntry(fl *flight, f *facts) cache.Entry {
	old := f.decoded(fl.domain.name)
	now := e.now()
	if old.Retry.After(now.wall.Add(maxRetry)) {
		old.Retry = now.wall // it was noted by a clock that has been set back
	}
	if !f.hasPolicy(now) {
		old.ID, old.Policy, old.Fetched, old.Refresh = "", "", time.Time{}, time.Time{}
	}
	old = fl.domain.withUse(old)
	if hour := fl.began.wall.Truncate(time.Hour); fl.trigger == onUse && hour.After(old.Used) {
		old.Used = hour
	}
	return old
}

// recordFailed ends fl after DNS said nothing about a domain of which nothing is
// known. That is not kept: the next lookup asks again, as the resolver keeps
// failures for a while. A name server that does not answer would hold up every
// message, though.
func (e *Engine) recordFailed(ctx context.Context, fl *flight, have, f *facts, err error) (attached, kept bool) {
	f.unknown, f.reason = true, "record: "+err.Error()
	attached, kept = true, true
	if timedOut(err) && ctx.Err() == nil {
		f.expireIn(recordRetry, e.now())
		attached, kept = e.swapFacts(fl, have, f, false)
	}
	if kept {
		fl.publish(f, Missed)
	}
	return attached, kept
}

// noPolicy ends fl for a domain that has no policy. Losing that costs one
// question, so that it is not stored, but for a failed download, which others
// that share the store need not try again.
func (e *Engine) noPolicy(fl *flight, have, f *facts, entry cache.Entry) (attached, kept bool) {
	if e.store != nil && fl.domain.verified.Load() == neverRead {
		f.expireIn(recordRetry, e.now()) // there may be a policy that could not be read
	}
	if attached, kept = e.swapFacts(fl, have, f, false); !kept {
		return attached, kept
	}
	fl.publish(f, Missed)
	if e.shared == nil || entry.FailedID == "" || f.expired != nil {
		return true, true
	}
	entry.Refresh = time.Time{} // the store removes it by itself
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), fl.timeout)
	defer cancel()
	if err := e.shared.Put(ctx, entry); err != nil && !errors.Is(err, cache.ErrOutdated) {
		e.observe(Event{Kind: StoreFailed, Domain: entry.Domain, Err: err, Op: OpPut})
	}
	return true, true
}

// short ends fl because this host has too few descriptors or too little memory.
// That is not the domain's failure: its facts stay as they are, and of a first contact
// nothing is known.
func (e *Engine) short(fl *flight, err error) {
	fl.publish(unknownFacts(fmt.Errorf("this host is short of resources: %w", err)), Missed)
	e.observe(Event{Kind: ResourcesShort, Domain: fl.domain.name, Err: err})
}

// shortage returns the error of got if it is a shortage on this host.
func (got *outcome) shortage() error {
	for _, err := range []error{got.recordErr, got.policyErr} {
		for _, code := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL} {
			if errors.Is(err, code) {
				return err
			}
		}
	}
	return nil
}

func timedOut(err error) bool {
	timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && timeout.Timeout()
}

// ask looks up the record, and downloads the policy if there is reason to. The
// error means that the download could not begin in time.
func (e *Engine) ask(ctx context.Context, fl *flight) (got outcome, err error) {
	d := fl.domain
	d.asked.Store(e.now().nonZero())
	got.record, got.recordErr = fl.fetcher.Record(ctx, d.name)
	fl.answered.Store(got.recordErr == nil)
	if e.wanted(fl, got) {
		err = e.download(ctx, fl, &got)
	}
	return got, err
}

// download downloads the policy of the domain of fl, unless another process that
// shares the store does so. The error means that it could not begin in time.
func (e *Engine) download(ctx context.Context, fl *flight, got *outcome) error {
	d := fl.domain
	fl.setRecordFound()
	if f := d.facts.Load(); e.shared != nil && (!f.hasPolicy(e.now()) || f.lost) {
		if err := e.acquireClaim(ctx, fl, *got); err != nil || !e.wanted(fl, *got) {
			return err
		}
	}
	// The download has a time of its own: what was spent on waiting is not the
	// domain's fault.
	ctx, cancel := context.WithTimeout(fl.ctx, fl.timeout)
	defer cancel()
	ctx = stsfetch.WithDialed(ctx, func(a netip.Addr) { fl.place.at(a) })
	got.text, got.policy, got.policyErr = fl.fetcher.Policy(ctx, d.name)
	return nil
}

// downloaded reports whether a download was tried.
func (got *outcome) downloaded() bool { return got.policy != nil || got.policyErr != nil }

// wanted reports whether the record that was looked up calls for a download,
// given the cached facts.
func (e *Engine) wanted(fl *flight, got outcome) bool {
	f := fl.domain.facts.Load()
	old := e.oldEntry(fl, f)
	known, id := old.Policy != "", got.record.ID
	if fl.trigger == onRequest {
		return known || id != ""
	}
	if of := got.effectiveID(old); of != "" && of == old.FailedID && e.now().wall.Before(old.Retry) {
		return false
	}
	switch {
	case known && (fl.trigger == onRefresh || fl.trigger == onOverdue):
		return true // RFC 8461, Section 10.2: whatever the record says
	case known && f.lost && e.now().wall.Sub(old.Fetched) >= lostAge:
		return true
	}
	return id != "" && (!known || id != old.ID)
}
