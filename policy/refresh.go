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
// none in force any more: the next lookup begins anew.
func (e *Engine) refresh(ctx context.Context, entry cache.Entry) {
	f := e.join(entry.Domain, daily)
	select {
	case <-f.done:
	case <-ctx.Done():
	}
}

// sweep drops entry, which the flight f has just read. Who waits for f asks
// again: it has found out nothing.
func (e *Engine) sweep(ctx context.Context, f *flight, entry cache.Entry) {
	defer f.publish(nil)
	if e.drift(time.Now()) > clockJump {
		// The clock was set forward since the daemon began, perhaps by
		// mistake. What seems to have expired may not have.
		return
	}
	if err := e.store.Delete(ctx, f.domain); err != nil {
		e.observe(Event{Kind: StoreFailed, Domain: f.domain, Err: err})
		return
	}
	e.ready.drop(f.domain)
	if entry.Policy != "" {
		e.observe(Event{Kind: PolicyGone, Domain: f.domain, Before: &entry, After: &cache.Entry{Domain: f.domain}})
	}
}
