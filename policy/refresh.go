package policy

import (
	"context"
	"errors"
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
			e.observe(Event{Kind: StoreFailed, Err: err, Op: OpDue})
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

// Retrieve finds out what there is to know about a domain, as a lookup would,
// without giving an answer, and returns what is remembered of it then. If
// evenKnown is set it asks the domain whatever is known, and downloads the
// policy even if the record has not changed or a download has just failed;
// otherwise it returns at once what is known and still counts. That the domain
// has no policy, or that it could not be downloaded, is in the entry and no
// error. The domain is one as for Lookup.
func (e *Engine) Retrieve(ctx context.Context, domain string, evenKnown bool) (cache.Entry, error) {
	for {
		why := onUse
		if evenKnown {
			why = onRequest
		}
		f := e.join(domain, why)
		select {
		case <-f.done:
		case <-ctx.Done():
			return cache.Entry{}, context.Cause(ctx)
		}
		if f.why != why && evenKnown {
			continue // it was under way, and for another reason
		}
		entry, err := e.store.Get(ctx, domain)
		if errors.Is(err, cache.ErrNotFound) && f.decision != nil {
			// Nothing was learned, or nothing worth remembering.
			return cache.Entry{Domain: domain, Error: f.decision.absence}, nil
		}
		return entry, err
	}
}

// Forget forgets all about a domain: the next lookup is a first contact.
func (e *Engine) Forget(ctx context.Context, domain string) error {
	err := e.store.Delete(ctx, domain)
	e.Changed(domain)
	return err
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
		e.observe(Event{Kind: StoreFailed, Domain: f.domain, Err: err, Op: OpDelete})
		return
	}
	e.ready.drop(f.domain)
	if entry.Policy != "" {
		e.observe(Event{Kind: PolicyGone, Domain: f.domain, Before: &entry, After: &cache.Entry{Domain: f.domain}})
	}
}
