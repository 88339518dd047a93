package policy

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"stsmap/cache"
	"stsmap/dane"
)

// save stores entry, which f was made of, and publishes f: as soon as it is
// stored, or when the store has had its time. downloaded says that its policy is
// new. The error says why the store has neither it nor a later one.
func (e *Engine) save(fl *flight, entry cache.Entry, f *facts, downloaded bool) error {
	if e.store == nil {
		fl.publish(f, Missed)
		return nil
	}
	patience := time.AfterFunc(storePatience, func() { fl.publish(f, Missed) })
	defer patience.Stop()
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
	return err
}

// saved notes that the store has f, unless something else is known by now.
func (e *Engine) saved(d *domain, f *facts) {
	m := e.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := d.facts.Load(); known != nil && known.entry() == f.entry() {
		m.setUnsaved(d, false)
		if d.verified.Load() != hinted {
			d.verified.Store(e.now().nonZero())
		}
	}
}

// reconcile is for a store that refused entry because it has a policy that was
// downloaded later. It returns what then counts.
func (e *Engine) reconcile(ctx context.Context, fl *flight, entry cache.Entry, f *facts, downloaded bool) (*facts, error) {
	stored, err := e.storedEntry(ctx, entry.Domain)
	if errors.Is(err, cache.ErrNotFound) {
		return f, e.store.Put(ctx, entry) // it was deleted since
	}
	if err != nil {
		return f, err
	}
	now := e.now()
	if !downloaded || stored.Fetched.Sub(now.wall) <= clockStep {
		// Another host with the same store learned more, meanwhile. Its clock
		// may be a little ahead of ours. That a later download failed stays known.
		newer := e.newFacts(withFailure(stored, entry), now, nil)
		e.setFacts(fl, newer, false, true)
		return newer, nil
	}
	// Downloaded in the future: the clock was set back since, and the store,
	// which has none, would defend that policy until time catches up. If it
	// cannot be replaced now, it does not count here either.
	e.memory.mu.Lock()
	fl.domain.refuted = nanos(stored.Fetched)
	e.memory.mu.Unlock()
	return f, e.store.Replace(ctx, entry, stored.Fetched)
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
	name := fl.domain.name
	if err := e.removeExpired(ctx, name, last); err != nil {
		e.observe(Event{Kind: StoreFailed, Domain: name, Err: err, Op: OpDelete})
		return
	}
	var left *facts
	if f.policy == nil && f.inForce(now) {
		absence := *f
		absence.expired = nil
		left = &absence
	}
	if e.setFacts(fl, left, false, true) && f.policy != nil {
		before := f.decoded(name)
		e.observe(Event{Kind: PolicyGone, Domain: name, Before: &before, After: &cache.Entry{Domain: name}})
	}
}

// removeExpired removes the policy of a domain that expired long ago from the
// store. A shared one does that by itself once the entry is not due any more. To
// delete it would tell the others that an administrator did, and could delete
// what one of them has just stored.
func (e *Engine) removeExpired(ctx context.Context, name string, last *facts) error {
	switch {
	case e.store == nil:
		return nil
	case e.shared == nil:
		return e.store.Delete(ctx, name)
	case last == nil:
		return nil
	}
	entry := last.decoded(name)
	entry.Refresh = time.Time{}
	if err := e.shared.Put(ctx, entry); !errors.Is(err, cache.ErrOutdated) {
		return err
	}
	return nil
}

// saveUnsaved has the store take what it did not take before, until it is
// unreachable again. What it refuses keeps nothing else from being saved.
func (e *Engine) saveUnsaved(ctx context.Context) {
	if e.store == nil {
		return
	}
	m := e.memory
	m.mu.RLock()
	names := make([]string, 0, len(m.unsaved))
	for d := range m.unsaved {
		names = append(names, d.name)
	}
	m.mu.RUnlock()
	for _, name := range names {
		if err := e.saveAgain(ctx, name); ctx.Err() != nil || errors.Is(err, cache.ErrUnreachable) {
			return
		}
	}
}

// saveAgain has the store take the policy of one domain, as its flight. What is
// under way for it saves it by itself.
func (e *Engine) saveAgain(ctx context.Context, name string) error {
	m := e.memory
	m.mu.Lock()
	h := m.hops[name]
	if h == nil || h.domain.flight != nil || h.domain.leaving != nil {
		m.mu.Unlock()
		return nil
	}
	d := h.domain
	f := d.facts.Load()
	if _, unsaved := m.unsaved[d]; !unsaved || f == nil || f.policy == nil {
		m.setUnsaved(d, false)
		m.mu.Unlock()
		return nil
	}
	fl := e.newFlight(d, onCommand)
	fl.saves = true
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

// Entry returns the entry of a domain, or cache.ErrNotFound. Another error
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

// Entries iterates over all that is known, each domain once: what is in memory,
// by name, and then what only the store has, in the store's order. An error, with
// which it ends, means that the store could not be read.
func (e *Engine) Entries(ctx context.Context) iter.Seq2[cache.Entry, error] {
	return func(yield func(cache.Entry, error) bool) {
		inMemory := e.memory.domains()
		slices.SortFunc(inMemory, func(a, b *domain) int { return strings.Compare(a.name, b.name) })
		seen := make(map[string]bool)
		for _, d := range inMemory {
			f := d.facts.Load()
			if f == nil || f.unknown {
				continue
			}
			seen[d.name] = true
			if !yield(d.withUse(f.decoded(d.name)), nil) {
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
		if name == h.domain.name {
			all = append(all, h.domain)
		}
	}
	return all
}

// Retrieve is for people and for warming the cache: it finds out what there is to
// know about a domain, as a lookup would but without giving an answer, and
// returns it. If force is set it fetches whatever is known, even if the record
// has not changed or a download has just failed; otherwise it returns what
// is cached and in force, after what is under way for the domain. That the domain has no policy, or that it could
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
		return cache.Entry{Domain: domain, Error: fl.facts.reason}, nil
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
		e.setFacts(fl, nil, false, err == nil)
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
	d.changes++ // what is being read is void
	fl := e.newFlight(d, onCommand)
	var ending []*flight // a fetch, and what it has been waiting for itself
	for before := fl.before; before != nil; before = before.before {
		ending = append(ending, before)
	}
	d.flight = fl
	m.mu.Unlock()
	defer e.land(fl)
	for _, before := range ending {
		select {
		case <-before.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return work(fl)
}
