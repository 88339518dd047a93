package policy

import (
	"context"
	"sync"
	"time"

	"stsmap/cache"
	"stsmap/dane"
)

const (
	// refreshEvery is how often Run looks for what is due.
	refreshEvery = 10 * time.Second
	// lease is how long what Run took from the store is left alone by others
	// that use the same store.
	lease = 10 * time.Minute
	// overdue is how long a refresh in memory waits for one that the store knows of:
	// for the lease of another host, and for its refresh.
	overdue = 2 * lease
	// maxDue is how many entries Run takes from the store at once.
	maxDue = 64
)

// Run refreshes policies before they expire (RFC 8461, Sections 3.3 and 10.2),
// saves what the store did not take, and follows what other processes change,
// until ctx is done; then it waits for the refreshes under way.
func (e *Engine) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	if e.shared != nil {
		running.Go(func() { e.shared.Watch(ctx, e.hint) })
	}
	running.Go(func() {
		for each := newTicker(ctx); each.next(); {
			e.saveUnsaved(ctx)
			e.writeUses(ctx)
		}
	})
	// Twice as many as have places: those that wait are the next ones.
	slots := make(chan struct{}, 2*e.refreshes.size())
	for each := newTicker(ctx); each.next(); {
		if now := e.now(); e.current(now).settled(now) && e.setBack.Swap(false) {
			running.Go(func() { e.reviewRefreshes(ctx) })
		}
		for e.refreshDue(ctx, slots, &running) {
		}
	}
}

// A ticker ticks every refreshEvery until its context is done; first at once.
type ticker struct {
	ctx   context.Context
	timer *time.Timer
}

func newTicker(ctx context.Context) *ticker { return &ticker{ctx: ctx} }

// next waits for the next tick, and reports whether there is one.
func (t *ticker) next() bool {
	if t.timer == nil {
		t.timer = time.NewTimer(refreshEvery)
		return t.ctx.Err() == nil
	}
	select {
	case <-t.timer.C:
		t.timer.Reset(refreshEvery)
		return true
	case <-t.ctx.Done():
		t.timer.Stop()
		return false
	}
}

// refreshDue starts refreshes of what is due, each as soon as there is a slot,
// and reports whether there may be more.
func (e *Engine) refreshDue(ctx context.Context, slots chan struct{}, running *sync.WaitGroup) (more bool) {
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	n := min(cap(slots)-len(slots)+1, maxDue)
	due, why, more := e.due(ctx, n)
	for i, name := range due {
		if i > 0 {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return false // their leases end by themselves
			}
		}
		running.Go(func() {
			defer func() { <-slots }()
			e.refresh(ctx, name, why)
		})
	}
	if len(due) == 0 {
		<-slots
	}
	return more && ctx.Err() == nil
}

// due takes the domains that are due for a refresh, at most n, and reports
// whether there may be more; why is the trigger for their flights. A store that does
// not work can lease none; what memory holds is refreshed then, too, since a lease
// is for sharing the work and no condition of it. So is what is overdue although
// the store works: it may have lost it.
func (e *Engine) due(ctx context.Context, n int) (names []string, why trigger, more bool) {
	if e.store != nil {
		due, err := e.store.Due(ctx, e.now().wall, lease, n)
		for _, entry := range due {
			names = append(names, entry.Domain)
		}
		if err == nil && len(due) == 0 {
			names = e.dueInMemory(n, overdue)
			return names, onOverdue, len(names) == n
		}
		if err == nil {
			return names, onRefresh, len(due) == n
		}
		if ctx.Err() != nil {
			return nil, onRefresh, false
		}
		e.observe(Event{Kind: StoreFailed, Err: err, Op: OpDue})
	}
	names = e.dueInMemory(n, 0)
	return names, onRefresh, len(names) == n
}

// dueInMemory returns which domains in memory have been due for a refresh for that
// long, at most n. Each is returned once within a lease.
func (e *Engine) dueInMemory(n int, since time.Duration) (names []string) {
	now := e.now()
	latest := now.wall.Add(-since).UnixNano()
	for _, d := range e.memory.domains() {
		f := d.facts.Load()
		if f == nil || f.policy == nil || f.refresh == 0 || f.refresh > latest || d.leased.Load() > now.mono {
			continue
		}
		d.leased.Store(now.in(lease))
		if names = append(names, d.name); len(names) == n {
			break
		}
	}
	return names
}

// refresh downloads the policy of a domain again, or removes it if it has been
// expired for long.
func (e *Engine) refresh(ctx context.Context, name string, why trigger) {
	_, fl := e.join(dane.NextHop{Domain: name}, why)
	select {
	case <-fl.done:
	case <-ctx.Done():
	}
}

// reviewRefreshes has policies refreshed now whose time for that was noted by a
// clock that was ahead. Run waits for an hour after the clock was set back: a
// policy that is downloaded while the clock is behind expires when it is right.
func (e *Engine) reviewRefreshes(ctx context.Context) {
	now := e.now().wall
	latest := now.Add(e.conditions.Load().rules.refresh)
	for entry, err := range e.Entries(ctx) {
		if err != nil {
			e.setBack.Store(true) // again, when the store works
			return
		}
		if holds(entry, now) && entry.Refresh.After(latest) && !leftToExpire(entry) {
			e.refresh(ctx, entry.Domain, onRefresh)
		}
	}
}

// leftToExpire reports whether e is not to be refreshed any more.
func leftToExpire(e cache.Entry) bool { return e.Refresh.After(e.Expires) }
