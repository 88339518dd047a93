package policy

import (
	"context"
	"sync"
	"time"

	"stsmap/cache"
)

const (
	// refreshEvery is how often Run looks for what is due.
	refreshEvery = 10 * time.Second
	// lease is how long what Run took from the store is left alone by others
	// that use the same store.
	lease = 10 * time.Minute
)

// Run refreshes policies before they expire (RFC 8461, Sections 3.3 and 10.2)
// until ctx is done, and then waits for the refreshes under way.
func (e *Engine) Run(ctx context.Context) {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		for e.refreshDue(ctx) {
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// refreshDue refreshes one batch, and reports whether there may be more.
//
// A batch is a quarter of the downloads that may run at once: refreshes can
// wait, mail cannot.
func (e *Engine) refreshDue(ctx context.Context) (more bool) {
	n := max(cap(e.settings.Load().slots)/4, 1)
	due, err := e.store.Due(ctx, time.Now(), lease, n)
	if err != nil {
		if ctx.Err() == nil {
			e.observe(Event{Kind: StoreFailed, Err: err})
		}
		return false
	}
	var batch sync.WaitGroup
	for _, entry := range due {
		batch.Go(func() { e.refresh(ctx, entry) })
	}
	batch.Wait()
	return len(due) == n && ctx.Err() == nil
}

// refresh downloads the policy of entry again, or drops the entry if there is
// none any more, or one that expired without having been used for long.
func (e *Engine) refresh(ctx context.Context, entry cache.Entry) {
	now := time.Now()
	if entry.Policy == "" || !holds(entry, now) && now.Sub(entry.Used) > e.settings.Load().rules.forget {
		if err := e.store.Delete(ctx, entry.Domain); err != nil {
			e.observe(Event{Kind: StoreFailed, Domain: entry.Domain, Err: err})
			return
		}
		e.ready.drop(entry.Domain)
		if entry.Policy != "" {
			e.observe(Event{Kind: PolicyGone, Domain: entry.Domain, Before: &entry, After: &cache.Entry{Domain: entry.Domain}})
		}
		return
	}
	f := e.join(entry.Domain, daily)
	select {
	case <-f.done:
	case <-ctx.Done():
	}
}
