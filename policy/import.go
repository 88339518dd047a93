package policy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"stsmap/cache"
	"stsmap/sts"
)

// errExpired is the error of a policy that has expired.
var errExpired = errors.New("the policy has expired")

// Import caches a policy that was downloaded elsewhere, or before: by the daemon
// whose export it is. It is kept for as long as RFC 8461, Section 3.2 allows,
// counted from Fetched, and the record is looked up when the domain is used.
// A user able to import can switch protection off, or on with servers of his
// choice.
//
// An entry without a policy, with one that does not parse or has expired, or
// downloaded in the future, is refused. The error is cache.ErrOutdated if a
// policy is cached that was downloaded later.
func (e *Engine) Import(ctx context.Context, entry cache.Entry) error {
	now := e.now()
	entry, err := e.conditions.Load().rules.imported(entry, now.wall, rand.Float64())
	if err != nil {
		return err
	}
	return e.command(ctx, entry.Domain, func(fl *flight) error {
		if have := fl.domain.facts.Load(); have.hasPolicy(now) && have.decoded(entry.Domain).Outdates(entry) {
			return cache.ErrOutdated
		}
		if e.store != nil {
			if err := e.store.Put(ctx, entry); err != nil {
				return err
			}
		}
		e.setFacts(fl, e.newFacts(entry, now, nil), e.store == nil, true)
		return nil
	})
}

// imported returns what is cached of e at the time now. jitter,
// between 0 and 1, spreads the first downloads.
func (r rules) imported(e cache.Entry, now time.Time, jitter float64) (cache.Entry, error) {
	if e.Policy == "" {
		return cache.Entry{}, errors.New("there is no policy")
	}
	p, err := sts.ParsePolicy([]byte(e.Policy))
	if err != nil {
		return cache.Entry{}, fmt.Errorf("policy: %w", err)
	}
	if e.Fetched.IsZero() || e.Fetched.After(now) {
		return cache.Entry{}, errors.New("it was not downloaded in the past")
	}
	kept := cache.Entry{
		Domain:  e.Domain,
		ID:      e.ID,
		Policy:  e.Policy,
		Fetched: e.Fetched,
		Expires: e.Fetched.Add(p.MaxAge),
		Checked: now,
		Recheck: now,
	}
	if !e.Expires.IsZero() && e.Expires.Before(kept.Expires) {
		kept.Expires = e.Expires
	}
	if !holds(kept, now) {
		return cache.Entry{}, errExpired
	}
	if !e.Used.After(now) {
		kept.Used = e.Used
	}
	kept.Refresh = now.Add(time.Duration(float64(min(r.refresh, kept.Expires.Sub(now)/2)) * jitter))
	if now.Sub(kept.Used) > r.forget {
		kept.Refresh = kept.Expires.Add(time.Second) // as when it was downloaded
	}
	return kept, nil
}
