package policy

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"stsmap/cache"
)

// A simStoreState is how the shared store behaves.
type simStoreState uint8

// The states of the store.
const (
	simStoreWell simStoreState = iota
	simStoreRefusing
	simStoreFull    // refuses writes
	simStoreHanging // until the context ends or the state changes, and does nothing
	simStoreTardy   // writes, and then hangs likewise
)

// A simStore is the store that the hosts share. The lock of the world guards it.
type simStore struct {
	entries map[string]cache.Entry
	claims  map[string]simClaim
	state   simStoreState
	woken   chan struct{} // closed when the state changes
	due     time.Time     // no entry is due before
	recent  []simUndo     // what was written in the last second

	readable time.Time // since when it can be read
	writable time.Time // since when it can be written
	changes  int       // of state, and losses
	noHints  bool
	hints    time.Time // when a hint was lost last
}

type simClaim struct {
	owner *simHandle
	until time.Time
}

// A simUndo is what a write replaced.
type simUndo struct {
	at     time.Time
	domain string
	entry  cache.Entry
	was    bool
}

var (
	errSimStore = errors.New("store: input/output error")
	errSimCut   = errors.New("store: the process is dead")
)

// A simHandle is the store as one life of a host has it. It implements
// cache.Shared.
type simHandle struct {
	world *simWorld
	host  *simHost

	telling sync.Mutex // held while changed runs
	changed func(domain string, deleted bool)
	cut     bool // the host was killed
}

// enter waits while the store hangs, and returns the error of an operation that
// the store refuses. Without an error the lock of the world is held. late
// reports that the store carries the operation out and then hangs.
func (s *simHandle) enter(ctx context.Context, write bool) (late bool, err error) {
	w := s.world
	w.mu.Lock()
	state := w.store.state
	switch {
	case s.cut:
		err = errSimCut
	case ctx.Err() != nil:
		err = ctx.Err()
	case state == simStoreRefusing || state == simStoreFull && write:
		err = errSimStore
	case state == simStoreHanging || state == simStoreTardy && !write:
		woken := w.store.woken
		w.mu.Unlock()
		return false, simHang(ctx, woken)
	default:
		return state == simStoreTardy, nil
	}
	w.mu.Unlock()
	return false, err
}

// leave gives the lock back, and hangs where the store does.
func (s *simHandle) leave(ctx context.Context, late bool) error {
	woken := s.world.store.woken
	s.world.mu.Unlock()
	if !late {
		return nil
	}
	return simHang(ctx, woken)
}

// simHang waits as an operation on a store that hangs does.
func simHang(ctx context.Context, woken chan struct{}) error {
	select {
	case <-woken:
		return errSimStore
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Get implements cache.Store.
func (s *simHandle) Get(ctx context.Context, domain string) (cache.Entry, error) {
	if _, err := s.enter(ctx, false); err != nil {
		return cache.Entry{}, err
	}
	defer s.world.mu.Unlock()
	e, ok := s.world.store.entries[domain]
	if !ok || s.host.fault == faultReadsNothing {
		return cache.Entry{}, cache.ErrNotFound
	}
	return e, nil
}

// Put implements cache.Store.
func (s *simHandle) Put(ctx context.Context, e cache.Entry) error {
	return s.Replace(ctx, e, time.Time{})
}

// Replace implements cache.Store.
func (s *simHandle) Replace(ctx context.Context, e cache.Entry, wrong time.Time) (err error) {
	defer func() {
		if err != nil && !errors.Is(err, cache.ErrOutdated) {
			s.host.refused.Store(true)
		}
	}()
	if s.host.fault == faultExtends && e.Policy != "" {
		e.Expires = e.Expires.Add(24 * time.Hour)
	}
	late, err := s.enter(ctx, true)
	if err != nil {
		return err
	}
	w := s.world
	old, ok := w.store.entries[e.Domain]
	if ok && old.Outdates(e) {
		if !old.Fetched.Equal(wrong) {
			w.mu.Unlock()
			return cache.ErrOutdated
		}
		w.deleting(s.host, old)
		if d := w.byName[e.Domain]; d != nil {
			w.deletedAt[d.index] = time.Now()
		}
		w.hint(e.Domain, true)
		old = cache.Entry{}
	}
	w.putting(s.host, old, e)
	w.store.set(e.Domain, simTruncated(e), true)
	delete(w.store.claims, e.Domain)
	w.stored(e.Domain)
	w.hint(e.Domain, false)
	return s.leave(ctx, late)
}

// simTruncated is e as a store keeps it.
func simTruncated(e cache.Entry) cache.Entry {
	for _, t := range []*time.Time{&e.Fetched, &e.Expires, &e.Checked, &e.Recheck, &e.Retry, &e.Refresh, &e.Used} {
		if !t.IsZero() {
			*t = t.Truncate(time.Millisecond).UTC()
		}
	}
	return e
}

// Touch implements cache.Store.
func (s *simHandle) Touch(ctx context.Context, uses map[string]time.Time) error {
	late, err := s.enter(ctx, true)
	if err != nil {
		return err
	}
	for domain, used := range uses {
		if e, ok := s.world.store.entries[domain]; ok && used.After(e.Used) {
			e.Used = used.Truncate(time.Millisecond).UTC()
			s.world.store.set(domain, e, true)
		}
	}
	return s.leave(ctx, late)
}

// Delete implements cache.Store.
func (s *simHandle) Delete(ctx context.Context, domain string) error {
	late, err := s.enter(ctx, true)
	if err != nil {
		return err
	}
	w := s.world
	w.deleting(s.host, w.store.entries[domain])
	w.store.set(domain, cache.Entry{}, false)
	delete(w.store.claims, domain)
	w.stored(domain)
	if d := w.byName[domain]; d != nil {
		w.deletedAt[d.index] = time.Now()
	}
	w.hint(domain, true)
	return s.leave(ctx, late)
}

// Due implements cache.Store.
func (s *simHandle) Due(ctx context.Context, now time.Time, lease time.Duration, n int) ([]cache.Entry, error) {
	late, err := s.enter(ctx, true)
	if err != nil {
		return nil, err
	}
	store := s.world.store
	if !store.due.IsZero() && now.Before(store.due) {
		return nil, s.leave(ctx, late)
	}
	var due []cache.Entry
	store.due = now.Add(time.Hour)
	for _, e := range store.entries {
		switch {
		case e.Refresh.IsZero():
		case !e.Refresh.After(now):
			due = append(due, e)
		case e.Refresh.Before(store.due):
			store.due = e.Refresh
		}
	}
	slices.SortFunc(due, func(a, b cache.Entry) int {
		return cmp.Or(a.Refresh.Compare(b.Refresh), cmp.Compare(a.Domain, b.Domain))
	})
	if len(due) > n {
		due, store.due = due[:n], now
	}
	for _, e := range due {
		e.Refresh = now.Add(max(lease, time.Millisecond))
		store.set(e.Domain, e, true)
	}
	return due, s.leave(ctx, late)
}

// All implements cache.Store.
func (s *simHandle) All(ctx context.Context) iter.Seq2[cache.Entry, error] {
	return func(yield func(cache.Entry, error) bool) {
		if _, err := s.enter(ctx, false); err != nil {
			yield(cache.Entry{}, err)
			return
		}
		all := make([]cache.Entry, 0, len(s.world.store.entries))
		for _, e := range s.world.store.entries {
			all = append(all, e)
		}
		s.world.mu.Unlock()
		for _, e := range all {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Close implements cache.Store.
func (s *simHandle) Close() error { return nil }

// Claim implements cache.Claims.
func (s *simHandle) Claim(ctx context.Context, domain string, lease time.Duration) (bool, error) {
	late, err := s.enter(ctx, true)
	if err != nil {
		return false, err
	}
	now := time.Now()
	if c, ok := s.world.store.claims[domain]; ok && now.Before(c.until) {
		return false, s.leave(ctx, late)
	}
	s.world.store.claims[domain] = simClaim{s, now.Add(lease)}
	return true, s.leave(ctx, late)
}

// Release implements cache.Claims.
func (s *simHandle) Release(ctx context.Context, domain string) error {
	late, err := s.enter(ctx, true)
	if err != nil {
		return err
	}
	if s.world.store.claims[domain].owner == s {
		delete(s.world.store.claims, domain)
	}
	return s.leave(ctx, late)
}

// Watch implements cache.Shared.
func (s *simHandle) Watch(ctx context.Context, changed func(domain string, deleted bool)) {
	s.world.mu.Lock()
	s.changed = changed
	s.world.mu.Unlock()
	<-ctx.Done()
}

// set replaces an entry, or removes it if it is not there.
func (s *simStore) set(domain string, e cache.Entry, there bool) {
	now := time.Now()
	old, was := s.entries[domain]
	for len(s.recent) > 0 && now.Sub(s.recent[0].at) > time.Second {
		s.recent = s.recent[1:]
	}
	s.recent = append(s.recent, simUndo{now, domain, old, was})
	s.restore(domain, e, there)
}

func (s *simStore) restore(domain string, e cache.Entry, there bool) {
	if !there {
		delete(s.entries, domain)
		return
	}
	s.entries[domain] = e
	if !e.Refresh.IsZero() && e.Refresh.Before(s.due) {
		s.due = e.Refresh
	}
}

// simHintDelay is how long a hint takes to the other hosts.
const simHintDelay = 30 * time.Millisecond

// hint sends a hint of a change to all hosts. The lock must be held.
func (w *simWorld) hint(domain string, deleted bool) {
	if w.store.noHints || w.store.state == simStoreRefusing {
		w.store.hints = time.Now()
		return
	}
	for _, h := range w.hosts {
		handle := h.handle
		if handle == nil || handle.changed == nil || handle.cut {
			continue
		}
		changed := handle.changed
		time.AfterFunc(simHintDelay, func() {
			handle.telling.Lock()
			defer handle.telling.Unlock()
			changed(domain, deleted)
		})
	}
}

// disturb carries out an event about the store. The lock must be held.
func (w *simWorld) disturb(e simEvent) {
	s, now := w.store, time.Now()
	state := func(m simStoreState, readable, writable bool) {
		s.state = m
		s.changes++
		close(s.woken)
		s.woken = make(chan struct{})
		if !readable {
			s.readable = time.Time{}
		}
		if !writable {
			s.writable = time.Time{}
		}
	}
	switch e.kind {
	case simStoreRefuses:
		state(simStoreRefusing, false, false)
	case simStoreReadOnly:
		state(simStoreFull, true, false)
		if s.readable.IsZero() {
			s.readable = now
		}
	case simStoreHangs:
		state(simStoreHanging, false, false)
	case simStoreLate:
		state(simStoreTardy, false, false)
	case simStoreReturns:
		state(simStoreWell, true, true)
		if s.readable.IsZero() {
			s.readable = now
		}
		if s.writable.IsZero() {
			s.writable = now
		}
	case simStoreLosesSecond:
		for i := len(s.recent) - 1; i >= 0; i-- {
			if u := s.recent[i]; now.Sub(u.at) <= time.Second {
				s.restore(u.domain, u.entry, u.was)
			}
		}
		s.recent = nil
		w.lost()
	case simStoreFlushed:
		clear(s.entries)
		clear(s.claims)
		s.recent = nil
		w.lost()
	case simStoreWritten:
		w.writeAsAnother(w.domains[e.domain])
	case simHintsLost:
		s.noHints = true
	case simHintsReturn:
		s.noHints = false
		w.hint("", false) // hosts may have missed some
	}
}

// writeAsAnother has a host that is not simulated write a policy that it has
// just downloaded. The lock must be held.
func (w *simWorld) writeAsAnother(d *simDomain) {
	if d.host != simWell || d.why != nil || w.store.state != simStoreWell {
		return
	}
	now := time.Now()
	v := d.policy
	e := cache.Entry{
		Domain: d.name, ID: d.id, Policy: v.text, Fetched: now, Expires: now.Add(v.maxAge),
		Checked: now, Recheck: now.Add(time.Minute), Refresh: now.Add(v.maxAge / 2), Used: now,
	}
	if v.maxAge > 48*time.Hour {
		e.Refresh = now.Add(23 * time.Hour)
	}
	if w.store.entries[d.name].Outdates(e) {
		return
	}
	v.began, v.done, d.attempted = now, now, now
	d.downloaded = v
	w.store.set(d.name, simTruncated(e), true)
	delete(w.store.claims, d.name)
	w.stored(d.name)
	w.hint(d.name, false)
}
