package policy

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	// claimFraction is for which part of the time for a fetch a claim on a domain
	// counts: a process that waits for one that has died still has time to fetch.
	claimFraction = 3
	// claimPoll is about how often a flight looks whether another process has
	// learned something.
	claimPoll = 200 * time.Millisecond
	// releasePatience is how long a flight waits for its claim to be given back:
	// it ends by itself soon.
	releasePatience = time.Second
)

// acquireClaim waits until fl may download the policy of a domain of which no
// policy is known, or another process did: then wanted says that to download is
// no longer right. A store that does not work keeps nothing from being
// downloaded.
//
// The place comes first: a claim that ends while its holder waits for one would
// have another process download the same. It is not kept while another process
// downloads.
func (e *Engine) acquireClaim(ctx context.Context, fl *flight, got outcome) error {
	for {
		ok, err := e.shared.Claim(ctx, fl.domain.name, fl.timeout/claimFraction)
		fl.claimed = ok && err == nil
		// Between the last read and the claim another process may have finished.
		_ = e.readStore(ctx, fl.domain)
		if err != nil || ok || !e.wanted(fl, got) {
			return ctx.Err()
		}
		fl.place.release()
		select {
		case <-time.After(claimPoll/2 + rand.N(claimPoll)):
		case <-ctx.Done():
			return errors.New("another host is fetching the policy, and is not done in time")
		}
		if err := e.takePlace(ctx, fl, false); err != nil {
			return err
		}
	}
}

// releaseClaim gives back the claim of fl, if it has one.
func (e *Engine) releaseClaim(fl *flight) {
	if !fl.claimed {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), releasePatience)
	defer cancel()
	_ = e.shared.Release(ctx, fl.domain.name) // or else it ends by itself
}
