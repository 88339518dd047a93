package policy

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"stsmap/cache"
	"stsmap/sts"
)

// copyAge is how old facts may be before a shared store is read again:
// RFC 8461, Section 5.1 wants a changed record noticed, and five minutes are what
// Config.Recheck allows for that. Hints shorten it, and may be lost.
const copyAge = time.Minute

// What domain.verified is if it is no time.
const (
	neverRead = 0  // the store was never read for the domain
	hinted    = -1 // another process has changed it since
)

// A storeRead is the one read of the store that may be under way for a domain. It
// is no flight: a lookup that has to read the store first does not wait for a
// fetch.
type storeRead struct {
	done chan struct{} // closed when err is set
	err  error
}

// mustRead reports whether the store has to be read before the facts of d are
// used.
func (e *Engine) mustRead(d *domain, now instant) bool {
	verified := d.verified.Load()
	switch {
	case e.store == nil:
		return false
	case verified <= neverRead:
		return true
	case e.shared == nil:
		return false
	}
	return now.mono-verified >= int64(copyAge) || verified < e.verifyAfter.Load()
}

// mustReadAgain is mustRead for what follows upon a lookup that may just have
// tried.
func (e *Engine) mustReadAgain(d *domain, now instant) bool {
	last := d.unread.Load()
	return e.mustRead(d, now) && (last == 0 || now.mono-last >= int64(time.Second))
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
	d.changes++
	d.deleted = d.deleted || deleted // until the store is read, whatever came after it
	d.lastDeleted = deleted
	d.verified.Store(hinted)
	if f := d.facts.Load(); f != nil {
		again := *f // another pointer, so that no decision is current
		d.facts.Store(&again)
	}
}

// readStore reads the store for d and makes what it has known, or waits for the
// goroutine that does. An error means that the store could not be read: then what
// memory knows stays.
func (e *Engine) readStore(ctx context.Context, d *domain) error {
	m := e.memory
	m.mu.Lock()
	r := d.read
	if r == nil {
		r = &storeRead{done: make(chan struct{})}
		if !e.begin(func() { e.runRead(d, r) }) {
			m.mu.Unlock()
			return errClosing
		}
		d.read = r
	}
	m.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// maxReads bounds how often the store is read again because something has changed
// meanwhile.
const maxReads = 4

// runRead runs r, and whatever happens leaves nothing waiting for it.
func (e *Engine) runRead(d *domain, r *storeRead) {
	m := e.memory
	defer close(r.done)
	defer func() {
		if p := recover(); p != nil {
			r.err = fmt.Errorf("panic: %v", p)
			e.observe(Event{Kind: Panicked, Domain: d.name, Err: r.err, Stack: debug.Stack()})
		}
		m.mu.Lock()
		d.read = nil
		m.evict(nil, e.now()) // what was under way could not go before
		m.mu.Unlock()
	}()
	ctx, cancel := context.WithTimeout(e.ctx, e.conditions.Load().timeout)
	defer cancel()
	for range maxReads {
		m.mu.RLock()
		changes := d.changes
		m.mu.RUnlock()
		stored, err := e.storedEntry(ctx, d.name)
		if e.adopt(d, changes, stored, err) {
			r.err = err
			break
		}
	}
	if errors.Is(r.err, cache.ErrNotFound) {
		r.err = nil
	}
	if r.err != nil {
		d.unread.Store(e.now().nonZero())
		e.observe(Event{Kind: StoreFailed, Domain: d.name, Err: r.err, Op: OpGet})
	}
}

// storedEntry returns the entry of a domain in the store. One whose policy does
// not parse is a failure of the store.
func (e *Engine) storedEntry(ctx context.Context, name string) (cache.Entry, error) {
	stored, err := e.store.Get(ctx, name)
	if err == nil && stored.Policy != "" {
		_, err = sts.ParsePolicy([]byte(stored.Policy))
	}
	return stored, err
}

// adopt makes known what the store said about d: stored, or err. It does nothing
// and returns false if something else has changed d since changes was read.
func (e *Engine) adopt(d *domain, changes uint16, stored cache.Entry, err error) bool {
	now := e.now()
	have := e.restoredFacts(d)
	var f *facts
	if err == nil {
		f = e.newFacts(withFailure(stored, have.decoded(d.name)), now, have)
		if last := d.asked.Load(); last > 0 {
			f.recheck = max(f.recheck, last+int64(minTTL)) // the other host's clock may be another
		}
	}
	m := e.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if d.changes != changes || d.facts.Load() != have {
		return false
	}
	_, unsaved := m.unsaved[d]
	switch {
	case err == nil:
		f, unsaved = e.merge(d, have, f, stored, unsaved, now)
	case errors.Is(err, cache.ErrNotFound):
		f, unsaved = d.missing(have, unsaved, now)
	default:
		if d.verified.Load() != neverRead {
			d.verified.Store(now.nonZero())
		}
		// Another process's word, which the store need not confirm. If something
		// was put after it, that takes the place of what is known here.
		if d.deleted && d.lastDeleted {
			d.deleted = false
			m.setUnsaved(d, false)
			m.setFacts(d, nil, now)
		}
		return true
	}
	d.verified.Store(now.nonZero())
	d.deleted = false
	m.setUnsaved(d, unsaved)
	if f != have {
		m.setFacts(d, f, now)
	}
	return true
}

// withFailure returns stored with the failure of known, if that is younger than
// its download and its own: the store may not know of it.
func withFailure(stored, known cache.Entry) cache.Entry {
	failed := known.Retry.Add(-backOff(max(known.Failures, 1)))
	if known.FailedID != "" && known.Retry.After(stored.Retry) && stored.Fetched.Before(failed) {
		stored.Failures, stored.FailedID, stored.Retry = known.Failures, known.FailedID, known.Retry
		stored.Error, stored.Result = known.Error, known.Result
	}
	return stored
}

// nonZero is t by the monotonic clock, where 0 means never.
func (t instant) nonZero() int64 { return max(t.mono, neverRead+1) }

// merge returns what counts of have, which memory knows, and f, made of what is
// stored; and whether the store has yet to take it. A policy that is in force
// gives way only to one that was downloaded, or to a deletion: the store may have
// lost its last second. The lock of memory must be held.
func (e *Engine) merge(d *domain, have, f *facts, stored cache.Entry, unsaved bool, now instant) (*facts, bool) {
	c := e.current(now)
	switch {
	case have.hasPolicy(now) && !d.deleted && (f.fetched == d.refuted || !f.replaces(have, stored)):
		return have, true
	case f.isReplacedBy(have.lastPolicy()) && !d.deleted:
		return have, unsaved // it has expired, and what it replaced does not come back
	case have != nil && have.entry() == f.entry():
		return have, false
	case have != nil && have.policy == nil && have.inForce(now) && !f.inForce(now):
		return have.withPolicyKept(f, c, now), false // an absence that is younger
	case f.policy == nil && !d.deleted:
		return f.withPolicyKept(have, c, now), false
	}
	return f, false
}

// missing returns what counts of have, which memory knows, if the store has
// nothing; and whether the store has yet to take it. A policy that was there and
// is in force stays so, is fetched again now, and is put back: only a deletion by
// another process takes it away. The lock of memory must be held.
func (d *domain) missing(have *facts, unsaved bool, now instant) (*facts, bool) {
	switch {
	case have == nil || have.policy == nil:
		return have, false
	case d.deleted:
		return nil, false
	case unsaved || !have.hasPolicy(now):
		return have, unsaved
	}
	lost := *have
	lost.lost, lost.recheck = true, now.mono
	return &lost, true
}

// restoredFacts returns what memory knows of d, where a policy that had seemed to
// be expired counts again if it has not: the clock, by which it had, was wrong.
func (e *Engine) restoredFacts(d *domain) *facts {
	now := e.now()
	f := d.facts.Load()
	if f.restored(now) == f {
		return f
	}
	m := e.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if d.facts.Load() == f {
		_, unsaved := m.unsaved[d]
		m.setUnsaved(d, unsaved || e.store == nil)
		m.setFacts(d, f.restored(now), now)
	}
	return d.facts.Load()
}

// swapFacts makes f the facts of the domain of fl in place of have. It does
// nothing if fl was detached, or if something else is known by now. unsaved says
// that the store has yet to take f.
func (e *Engine) swapFacts(fl *flight, have, f *facts, unsaved bool) (attached, swapped bool) {
	m, d := e.memory, fl.domain
	m.mu.Lock()
	defer m.mu.Unlock()
	if d.flight != fl {
		return false, false
	}
	if d.facts.Load() != have {
		return true, false
	}
	m.setUnsaved(d, unsaved)
	m.setFacts(d, f, e.now())
	return true, true
}

// setFacts makes f the facts of the domain of fl, unless fl was detached, and
// reports whether it did. unsaved says that the store has yet to take it, verified
// that it is what the store has.
func (e *Engine) setFacts(fl *flight, f *facts, unsaved, verified bool) bool {
	m, d := e.memory, fl.domain
	m.mu.Lock()
	defer m.mu.Unlock()
	if d.flight != fl {
		return false
	}
	now := e.now()
	switch {
	case verified && d.changes == fl.changes:
		d.verified.Store(now.nonZero())
		d.deleted = false
	case d.verified.Load() != hinted:
		d.verified.Store(neverRead)
	}
	// What is being read is from before.
	d.changes++
	fl.changes++
	m.setUnsaved(d, unsaved)
	m.setFacts(d, f, now)
	return true
}
