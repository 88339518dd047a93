package policy

import (
	"context"
	"errors"
	"iter"
	"math"
	"sync"
	"time"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/sts"
)

// copyAge is how old what is known may be before a shared store is read again:
// RFC 8461, Section 5.1 wants a changed record noticed, and five minutes are what
// Config.Recheck allows for that. Hints shorten it, and may be lost.
const copyAge = time.Minute

// mustVerify reports whether what is known of d has to be compared with the
// store before it is used. What the store has yet to take is newer.
func (e *Engine) mustVerify(d *domain, now instant) bool {
	if e.shared == nil {
		return false
	}
	verified := d.verified.Load()
	if now.mono-verified < int64(copyAge) && verified >= e.verifyAfter.Load() {
		return false
	}
	m := e.memory
	m.mu.RLock()
	_, unsaved := m.unsaved[d]
	m.mu.RUnlock()
	if unsaved {
		d.verified.Store(now.mono)
	}
	return !unsaved
}

// hint is called when another process has changed a domain, or any domain if it
// is "": the next lookup reads the store. It does not wait for anything.
func (e *Engine) hint(name string, deleted bool) {
	if name == "" {
		e.verifyAfter.Store(e.now().mono + 1)
		e.change(func(*conditions) {}) // so that no decision is current
		return
	}
	m := e.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.hops[name]
	if h == nil {
		return
	}
	d := h.domain
	if d.flight != nil && !d.flight.saving {
		d.detach() // what it knows of the domain is out of date
	}
	if f := d.facts.Load(); f != nil {
		again := *f // another pointer, so that no decision is current
		d.facts.Store(&again)
	}
	d.verified.Store(math.MinInt64 / 2)
	d.deleted = deleted
}

// load returns what is known of the domain of fl, as the store has it, if memory
// knows nothing or its copy is too old; nil if nothing is known. An error means
// that the store could not be read: then what memory knows stays.
func (e *Engine) load(ctx context.Context, fl *flight) (*facts, error) {
	d := fl.domain
	have := e.restored(fl)
	unread := have == nil || have.unread && !have.inForce(e.now())
	if e.store == nil || !unread && !e.mustVerify(d, e.now()) && (fl.trigger != onRefresh || e.isUnsaved(d)) {
		return have, nil
	}
	stored, err := e.read(ctx, d.Domain)
	switch {
	case err == nil:
		return e.adopt(fl, have, stored), nil
	case errors.Is(err, cache.ErrNotFound):
		return e.missing(fl, have), nil
	case unread:
		fl.unreadable = true
	default:
		d.verified.Store(e.now().mono)
	}
	return have, err
}

// restored returns what memory knows of the domain of fl, where a policy that
// had seemed to be expired counts again if it has not.
func (e *Engine) restored(fl *flight) *facts {
	f := fl.domain.facts.Load()
	r := f.restored(e.now())
	if r != f && e.setFacts(fl, r, e.store == nil || e.isUnsaved(fl.domain)) {
		return r
	}
	return f
}

func (e *Engine) isUnsaved(d *domain) bool {
	m := e.memory
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, unsaved := m.unsaved[d]
	return unsaved
}

// read reads the entry of a domain. One whose policy does not parse is a failure
// of the store.
func (e *Engine) read(ctx context.Context, name string) (cache.Entry, error) {
	stored, err := e.store.Get(ctx, name)
	if err == nil && stored.Policy != "" {
		_, err = sts.ParsePolicy([]byte(stored.Policy))
	}
	return stored, err
}

// adopt makes what the store has known, in the place of have, which can be nil,
// and returns what counts. A policy that is in force gives way only to one that
// was downloaded, or to a deletion: the store may have lost its last second, and
// is told again.
func (e *Engine) adopt(fl *flight, have *facts, stored cache.Entry) *facts {
	now := e.now()
	f := e.newFacts(stored, now, have)
	if last := fl.domain.asked.Load(); last > 0 {
		f.recheck = max(f.recheck, last+int64(minTTL)) // the other host's clock may be another
	}
	switch {
	case have.hasPolicy(now) && !fl.deletedElsewhere(e) && !f.replaces(have, stored):
		e.setFacts(fl, have, true)
		return have
	case have != nil && have.entry == f.entry:
		f = have
	case have != nil && have.policy == nil && have.inForce(now) && !f.inForce(now):
		f = have.withPolicyKept(f, e.conditions.Load(), now) // an absence that is younger
	case f.policy == nil:
		f = f.withPolicyKept(have, e.conditions.Load(), now)
	}
	e.setFacts(fl, f, false)
	return f
}

// missing makes known that the store has nothing about a domain, and returns what
// counts. A policy that memory has stays in force, is fetched again now, and is
// put back: only a deletion by another process takes it away.
func (e *Engine) missing(fl *flight, have *facts) *facts {
	now := e.now()
	switch {
	case have == nil:
	case have.hasPolicy(now) && !fl.deletedElsewhere(e):
		fl.lost = true
		e.setFacts(fl, have, true)
	case have.policy != nil && fl.deletedElsewhere(e):
		e.setFacts(fl, nil, false)
		return nil
	default:
		e.setFacts(fl, have, false)
	}
	return have
}

// deletedElsewhere reports whether a hint said that another process deleted the
// domain.
func (fl *flight) deletedElsewhere(e *Engine) bool {
	m := e.memory
	m.mu.RLock()
	defer m.mu.RUnlock()
	return fl.domain.deleted
}

// save stores entry, which f was made of, and publishes f: as soon as it is
// stored, or when the store has had its time. downloaded says that its policy is
// new. It reports whether the store took it, or has a later one.
func (e *Engine) save(fl *flight, entry cache.Entry, f *facts, downloaded bool) bool {
	if e.store == nil {
		fl.publish(f, Missed)
		return true
	}
	patience := time.AfterFunc(storePatience, func() { fl.publish(f, Missed) })
	defer patience.Stop()
	e.memory.mu.Lock()
	fl.saving = true
	e.memory.mu.Unlock()
	// Not the flight's context: time spent on looking up must not be the reason
	// that the answer is lost.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), fl.timeout)
	defer cancel()
	err := e.store.Put(ctx, entry)
	if errors.Is(err, cache.ErrOutdated) {
		f, err = e.reconcile(ctx, fl, entry, f, downloaded)
	}
	if err != nil {
		e.observe(Event{Kind: StoreFailed, Domain: entry.Domain, Err: err, Op: OpPut})
	} else {
		e.saved(fl.domain, f)
	}
	fl.publish(f, Missed)
	return err == nil
}

// saved notes that the store has f, unless something else is known by now.
func (e *Engine) saved(d *domain, f *facts) {
	m := e.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := d.facts.Load(); now != nil && now.entry == f.entry {
		m.setUnsaved(d, false)
	}
}

// reconcile is for a store that refused entry because it has a policy that was
// downloaded later. It returns what then counts.
func (e *Engine) reconcile(ctx context.Context, fl *flight, entry cache.Entry, f *facts, downloaded bool) (*facts, error) {
	stored, err := e.read(ctx, entry.Domain)
	if errors.Is(err, cache.ErrNotFound) {
		return f, e.store.Put(ctx, entry) // it was deleted since
	}
	if err != nil {
		return f, err
	}
	now := e.now()
	if !downloaded || stored.Fetched.Sub(now.wall) <= clockStep {
		// Another host with the same store learned more, meanwhile. Its clock
		// may be a little ahead of ours.
		newer := e.newFacts(stored, now, nil)
		e.setFacts(fl, newer, false)
		return newer, nil
	}
	// Downloaded in the future: the clock was set back since, and the store,
	// which has none, would defend that policy until time catches up.
	if err := e.store.Delete(ctx, entry.Domain); err != nil {
		return f, err
	}
	return f, e.store.Put(ctx, entry)
}

// sweep removes the last policy of the domain of fl, which expired long ago, or
// what the store has in its place. Lookups that wait join another flight: this
// one found out nothing.
func (e *Engine) sweep(ctx context.Context, fl *flight, f *facts) {
	now := e.now()
	last := f.lastPolicy()
	if last == nil && f.inForce(now) || last != nil && !e.current(now).expiredForLong(time.Unix(0, last.expires), now) {
		return // an absence that counts, or the clock may be wrong
	}
	name := fl.domain.Domain
	if e.store != nil {
		if err := e.store.Delete(ctx, name); err != nil {
			e.observe(Event{Kind: StoreFailed, Domain: name, Err: err, Op: OpDelete})
			return
		}
	}
	var left *facts
	if f.policy == nil && f.inForce(now) {
		absence := *f
		absence.expired = nil
		left = &absence
	}
	if e.setFacts(fl, left, false) && f.policy != nil {
		before := f.decoded(name)
		e.observe(Event{Kind: PolicyGone, Domain: name, Before: &before, After: &cache.Entry{Domain: name}})
	}
}

// saveUnsaved has the store take what it did not take before, until it fails
// again.
func (e *Engine) saveUnsaved(ctx context.Context) {
	if e.store == nil {
		return
	}
	m := e.memory
	m.mu.RLock()
	names := make([]string, 0, len(m.unsaved))
	for d := range m.unsaved {
		names = append(names, d.Domain)
	}
	m.mu.RUnlock()
	for _, name := range names {
		if ctx.Err() != nil || !e.saveAgain(ctx, name) {
			return
		}
	}
}

// saveAgain has the store take the policy of one domain, as its flight, and
// reports whether the store works. What is under way for it saves it by itself.
func (e *Engine) saveAgain(ctx context.Context, name string) bool {
	m := e.memory
	m.mu.Lock()
	h := m.hops[name]
	if h == nil || h.domain.flight != nil || h.domain.leaving != nil {
		m.mu.Unlock()
		return true
	}
	d := h.domain
	f := d.facts.Load()
	if _, unsaved := m.unsaved[d]; !unsaved || f == nil || f.policy == nil {
		m.setUnsaved(d, false)
		m.mu.Unlock()
		return true
	}
	fl := e.newFlight(d, onCommand)
	d.flight = fl
	m.mu.Unlock()
	defer e.land(fl)
	return e.save(fl, f.decoded(name), f, false)
}

// uses are uses of domains that the store is yet to be told of.
type uses struct {
	mu      sync.Mutex
	waiting map[string]time.Time // domain to the hour of its use
}

// maxUses bounds how many uses wait. Beyond it they are dropped; the next hour
// has another one.
const maxUses = 8192

func (u *uses) add(domain string, hour time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.waiting) < maxUses {
		u.waiting[domain] = hour
	}
}

// take returns the uses that wait, which do not wait any more.
func (u *uses) take() map[string]time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	taken := u.waiting
	u.waiting = make(map[string]time.Time)
	return taken
}

// writeUses tells the store which domains are in use.
func (e *Engine) writeUses(ctx context.Context) {
	all := e.uses.take()
	if len(all) == 0 || e.store == nil {
		return
	}
	if err := e.store.Touch(ctx, all); err != nil && ctx.Err() == nil {
		e.observe(Event{Kind: StoreFailed, Err: err, Op: OpTouch})
	}
}

// Entry returns what is known of a domain, or cache.ErrNotFound. Another error
// means that the store could not be read.
func (e *Engine) Entry(ctx context.Context, domain string) (cache.Entry, error) {
	if d := e.memory.domainOf(domain); d != nil {
		if f := d.facts.Load(); f != nil && !f.unknown {
			return d.withUse(f.decoded(domain)), nil
		}
	}
	if e.store == nil {
		return cache.Entry{}, cache.ErrNotFound
	}
	return e.store.Get(ctx, domain)
}

// withUse returns entry with the hour in which d was last used.
func (d *domain) withUse(entry cache.Entry) cache.Entry {
	if n := d.usedHour.Load(); n > 0 {
		if hour := time.Unix(n*3600, 0).UTC(); hour.After(entry.Used) {
			entry.Used = hour
		}
	}
	return entry
}

// Entries iterates over all that is known, in memory and in the store, each
// domain once, in no particular order. An error, with which it ends, means that
// the store could not be read.
func (e *Engine) Entries(ctx context.Context) iter.Seq2[cache.Entry, error] {
	return func(yield func(cache.Entry, error) bool) {
		seen := make(map[string]bool)
		for _, d := range e.memory.domains() {
			f := d.facts.Load()
			if f == nil || f.unknown {
				continue
			}
			seen[d.Domain] = true
			if !yield(d.withUse(f.decoded(d.Domain)), nil) {
				return
			}
		}
		if e.store == nil {
			return
		}
		for entry, err := range e.store.All(ctx) {
			if err == nil && seen[entry.Domain] {
				continue
			}
			if !yield(entry, err) {
				return
			}
		}
	}
}

// domains returns all domains in memory.
func (m *memory) domains() []*domain {
	m.mu.RLock()
	defer m.mu.RUnlock()
	all := make([]*domain, 0, len(m.hops))
	for name, h := range m.hops {
		if name == h.Domain {
			all = append(all, h.domain)
		}
	}
	return all
}

// Retrieve is for people and for warming the cache: it finds out what there is to
// know about a domain, as a lookup would but without giving an answer, and
// returns it. If force is set it fetches whatever is known, even if the record
// has not changed or a download has just failed; otherwise it returns at once
// what is known and in force. That the domain has no policy, or that it could
// not be downloaded, is in the entry and no error. The domain is one as for
// Lookup.
func (e *Engine) Retrieve(ctx context.Context, domain string, force bool) (cache.Entry, error) {
	why := onUse
	if force {
		why = onRequest
	}
	for {
		h, fl := e.join(dane.NextHop{Domain: domain}, why)
		select {
		case <-fl.done:
		case <-ctx.Done():
			return cache.Entry{}, context.Cause(ctx)
		}
		if fl.trigger != why && (force || fl.trigger == onCommand) {
			continue // it was under way, and for another reason
		}
		if f := h.domain.facts.Load(); f != nil && !f.unknown {
			return h.domain.withUse(f.decoded(domain)), nil
		}
		if fl.facts == nil {
			continue // it was detached
		}
		return cache.Entry{Domain: domain, Error: fl.facts.noPolicy}, nil
	}
}

// Delete removes all that is known about a domain: the next lookup is a first
// contact. After an error the store may still have it.
func (e *Engine) Delete(ctx context.Context, domain string) error {
	return e.command(ctx, domain, func(fl *flight) error {
		var err error
		if e.store != nil {
			err = e.store.Delete(ctx, domain)
		}
		e.setFacts(fl, nil, false)
		return err
	})
}

// command runs work as the one flight of a domain, after what was under way has
// ended without effect. So nothing brings back what a command removes.
func (e *Engine) command(ctx context.Context, name string, work func(fl *flight) error) error {
	m := e.memory
	m.mu.Lock()
	d := m.add(dane.NextHop{Domain: name}, e.now()).domain
	d.detach()
	fl := e.newFlight(d, onCommand)
	d.flight = fl
	m.mu.Unlock()
	defer e.land(fl)
	if fl.before != nil {
		select {
		case <-fl.before.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return work(fl)
}
