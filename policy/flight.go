package policy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"stsmap/cache"
	"stsmap/sts"
)

// storePatience is how long an answer waits for the store to keep what was
// just learned. A healthy disk takes milliseconds; a sick one must not hold up
// mail (the policy is in force all the same, it just may not survive a crash).
const storePatience = 2 * time.Second

// A trigger is why a flight was started.
type trigger uint8

const (
	onUse     trigger = iota // Postfix asks for the domain
	onLook                   // a person asks what Postfix would be told
	daily                    // a refresh is due: download whatever the record says
	onRequest                // somebody wants it downloaded now, if there is a policy at all
)

// asks reports whether a flight is for an answer, which does not download a
// policy again that is known and has not changed.
func (t trigger) asks() bool { return t == onUse || t == onLook }

// A flight is everything that is done for one domain at one time: reading the
// store, asking the domain, remembering. There is at most one a domain, so
// that a lookup, a re-check and a refresh cannot double each other, and it
// outlives those who wait for it.
type flight struct {
	*settings
	domain string
	why    trigger
	began  time.Time

	source    Source // of decision; set before published is closed
	blind     bool   // the store could not be read
	claimed   bool   // from those who share the store
	slotted   bool   // it has one of slots
	version   uint64 // of the domain, when the store was read last; for the flight itself only
	staking   sync.Once
	atStake   chan struct{} // closed when what DANE says may matter
	once      sync.Once
	decision  *Decision     // set before published is closed; nil says to join again
	published chan struct{} // closed when decision can be read
	done      chan struct{} // closed when the flight is over
}

// publish gives d to all who wait. The first decision counts: a flight that
// finds a valid policy in the store publishes it before it asks the domain.
func (f *flight) publish(d *Decision) {
	f.once.Do(func() {
		f.decision = d
		close(f.published)
	})
}

// stake tells those who wait that there may be a policy for DANE to go before.
func (f *flight) stake() { f.staking.Do(func() { close(f.atStake) }) }

// undecided is the decision for a domain about which nothing is known because
// finding out failed with err. It holds for one answer only.
func (f *flight) undecided(err error) *Decision {
	d := &Decision{NextHop: f.domain, Domain: f.domain}
	d.lacks(err.Error())
	if f.deferred {
		d.standing, d.Kind = Failed, Failed
	}
	return d
}

// join returns the flight for domain, and starts one if there is none.
func (e *Engine) join(domain string, why trigger) *flight {
	e.mu.Lock()
	defer e.mu.Unlock()
	if f := e.flights[domain]; f != nil {
		return f
	}
	f := &flight{
		settings:  e.settings.Load(),
		domain:    domain,
		why:       why,
		began:     time.Now(),
		source:    Missed,
		atStake:   make(chan struct{}),
		published: make(chan struct{}),
		done:      make(chan struct{}),
	}
	if f.dane.All {
		f.stake()
	}
	if e.closed {
		f.publish(f.undecided(errors.New("shutting down")))
		close(f.done)
		return f
	}
	e.flights[domain] = f
	e.running.Go(func() { e.fly(f) })
	return f
}

// fly runs f, and whatever happens leaves nobody waiting.
func (e *Engine) fly(f *flight) {
	defer close(f.done)
	defer func() {
		e.mu.Lock()
		delete(e.flights, f.domain)
		e.mu.Unlock()
	}()
	defer func() {
		if p := recover(); p != nil {
			e.observe(Event{Kind: Panicked, Domain: f.domain, Err: fmt.Errorf("%v", p), Stack: debug.Stack()})
			d := f.undecided(errors.New("internal error"))
			d.standing, d.Kind = Failed, Failed
			f.publish(d)
		}
	}()
	defer e.release(f)
	ctx, cancel := context.WithTimeout(e.ctx, f.timeout)
	defer cancel()

	entry, found, err := e.recall(ctx, f)
	now := time.Now()
	if err != nil {
		e.observe(Event{Kind: StoreFailed, Domain: f.domain, Err: err, Op: OpGet})
		if d := e.ready.get([]byte(f.domain)); d != nil && d.STS != nil && now.UnixNano() <= d.expires {
			// What is at hand must not be replaced by not knowing.
			f.source = Stale
			f.publish(d)
			return
		}
		f.blind = true
	}
	if f.why == daily && found && !holds(entry, now) {
		e.sweep(ctx, f, entry)
		return
	}
	if found && (holds(entry, now) || now.Before(entry.Expires)) {
		d := e.decide(f, entry, now)
		e.keep(d)
		fresh := f.why.asks() && now.Before(entry.Recheck)
		if f.source = Stale; fresh {
			f.source = Fresh
		}
		f.publish(d)
		if fresh {
			return
		}
	}
	if ctx.Err() != nil {
		// The store took all the time there was. Asking now would fail for
		// that reason, and blame the domain.
		f.publish(f.undecided(errors.New("the store did not answer in time")))
		return
	}
	e.retrieve(ctx, f, entry)
}

// recall reads what is known about the domain of f. An entry whose policy does
// not parse any more is a failure of the store.
func (e *Engine) recall(ctx context.Context, f *flight) (entry cache.Entry, found bool, err error) {
	empty := cache.Entry{Domain: f.domain}
	f.version = e.versions.of(f.domain).Load()
	entry, err = e.store.Get(ctx, f.domain)
	if errors.Is(err, cache.ErrNotFound) {
		return empty, false, nil
	}
	if err == nil && entry.Policy != "" {
		_, err = sts.ParsePolicy([]byte(entry.Policy))
	}
	if err != nil {
		return empty, false, err
	}
	return f.rules.sane(entry, time.Now()), true, nil
}

// retrieve asks the domain, remembers what it said, publishes what that means
// and tells what happened.
func (e *Engine) retrieve(ctx context.Context, f *flight, old cache.Entry) {
	if f.why == onUse {
		old.Used = f.began.Truncate(time.Hour)
	}
	got, old, err := e.ask(ctx, f, old)
	now := time.Now()
	if e.ctx.Err() != nil && got.policy == nil {
		err = errors.New("shutting down")
	}
	if err != nil {
		// Nothing was learned about the domain.
		f.publish(f.undecided(err))
		return
	}
	entry := f.rules.next(old, got, now, rand.Float64())
	d := e.decide(f, entry, now)
	if got.recordErr != nil && entry.Policy == "" {
		// DNS said nothing about a domain of which nothing is known. That is
		// not remembered: the next lookup asks again. A name server that does
		// not answer would make every message wait, though.
		d = f.undecided(fmt.Errorf("record: %w", got.recordErr))
		if timedOut(got.recordErr) && ctx.Err() == nil {
			d.lasts(now.Add(recordRetry).UnixNano(), now.Add(recordRetry).UnixNano())
			d.version = f.version
			e.keep(d)
		}
		f.publish(d)
		e.report(f, old, entry, got, false)
		return
	}
	if f.blind && entry.Policy == "" {
		// There may be a policy that could not be read.
		d.lasts(now.Add(recordRetry).UnixNano(), now.Add(recordRetry).UnixNano())
	}
	e.keep(d)
	if entry.Policy == "" {
		// Losing an absence costs one question; no answer waits for that.
		f.publish(d)
	}
	kept := e.remember(f, entry, d)
	e.report(f, old, entry, got, kept)
}

func timedOut(err error) bool {
	timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && timeout.Timeout()
}

// ask looks up the record, and downloads the policy if there is reason to. It
// returns what is known of the domain by then, which is old unless somebody who
// shares the store learned something meanwhile. The error means that the
// download could not begin in time.
func (e *Engine) ask(ctx context.Context, f *flight, old cache.Entry) (got outcome, known cache.Entry, err error) {
	got.record, got.recordErr = f.fetch.Record(ctx, f.domain)
	if !wanted(old, got, f.why, time.Now()) {
		return got, old, nil
	}
	// Only downloads take turns. A lookup of a record is one datagram, and
	// most domains have none: they must not queue behind policy hosts that
	// do not answer.
	f.stake()
	defer f.freeSlot()
	if e.claims != nil && !holds(old, time.Now()) {
		old, err = e.takeTurn(ctx, f, got, old)
	} else {
		err = f.takeSlot(ctx)
	}
	if err == nil && wanted(old, got, f.why, time.Now()) {
		e.download(f, &got)
	}
	return got, old, err
}

// takeSlot waits until f may download.
func (f *flight) takeSlot(ctx context.Context) error {
	select {
	case f.slots <- struct{}{}:
		f.slotted = true
		return nil
	case <-ctx.Done():
		return errors.New("too many downloads at once (fetch.workers)")
	}
}

// freeSlot lets others download, if f has a slot.
func (f *flight) freeSlot() {
	if f.slotted {
		<-f.slots
		f.slotted = false
	}
}

// download downloads the policy of f.
//
// It has a time of its own: what was spent on waiting for a slot is not the
// domain's fault.
func (e *Engine) download(f *flight, got *outcome) {
	ctx, cancel := context.WithTimeout(e.ctx, f.timeout)
	defer cancel()
	got.text, got.policy, got.policyErr = f.fetch.Policy(ctx, f.domain)
}

// wanted reports whether what the record said is reason to download.
func wanted(old cache.Entry, got outcome, why trigger, now time.Time) bool {
	if !why.asks() && holds(old, now) {
		// RFC 8461, Section 10.2: whatever the record says.
		return true
	}
	id := got.record.ID
	if why == onRequest {
		return id != ""
	}
	if id == "" || id == old.FailedID && now.Before(old.Retry) {
		return false
	}
	return !holds(old, now) || id != old.ID
}

// remember stores entry and publishes d: as soon as it is stored, or when the
// store has had its time. It reports whether the store took it, or has better.
func (e *Engine) remember(f *flight, entry cache.Entry, d *Decision) bool {
	learned := d
	patience := time.AfterFunc(storePatience, func() { f.publish(learned) })
	defer patience.Stop()
	// Not the flight's context: time spent on asking must not be the reason
	// that the answer is lost.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), f.timeout)
	defer cancel()
	err := e.store.Put(ctx, entry)
	if errors.Is(err, cache.ErrOutdated) {
		d, err = e.reconcile(ctx, f, entry, d)
	}
	if err != nil {
		e.observe(Event{Kind: StoreFailed, Domain: f.domain, Err: err, Op: OpPut})
	}
	f.publish(d)
	return err == nil
}

// reconcile is for a store that has a policy downloaded later than entry. It
// returns what then is to be decided.
func (e *Engine) reconcile(ctx context.Context, f *flight, entry cache.Entry, d *Decision) (*Decision, error) {
	f.version = e.versions.of(f.domain).Load()
	stored, err := e.store.Get(ctx, f.domain)
	if errors.Is(err, cache.ErrNotFound) {
		return d, nil // it has been forgotten since
	}
	if err != nil {
		return d, err
	}
	now := time.Now()
	if stored.Fetched.Sub(now) <= clockJump {
		// Another host with the same store learned more, meanwhile. Its clock
		// may be a little ahead of ours.
		newer := e.decide(f, f.rules.sane(stored, now), now)
		e.keep(newer)
		return newer, nil
	}
	// Downloaded in the future: the clock was set back since, and the store,
	// which has none, would defend that policy until time catches up.
	if err := e.store.Delete(ctx, entry.Domain); err != nil {
		return d, err
	}
	return d, e.store.Put(ctx, entry)
}
