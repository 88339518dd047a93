package policy

import (
	"context"
	"errors"
	"hash/maphash"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"stsmap/cache"
)

const (
	// turnPart is which part of the time for a retrieval a claim on a domain
	// counts: whoever waits for one that has died still has time to retrieve.
	turnPart = 3
	// turnPoll is about how often those who wait for their turn look whether
	// something has been learned.
	turnPoll = 200 * time.Millisecond
	// releaseLimit is how long a retrieval waits for its claim to be given
	// back: it ends by itself soon.
	releaseLimit = time.Second
)

// Changed has the next lookup of a domain, or of every domain if it is "", look
// into the store: somebody who shares it has changed what is there. It does not
// wait for anything.
func (e *Engine) Changed(domain string) {
	e.settling.Lock()
	defer e.settling.Unlock()
	e.versions.bump(domain)
	if domain == "" {
		e.ready.clear()
		return
	}
	e.ready.drop(domain)
}

// versions count, for each of some groups of domains, how often the store was
// changed by somebody else than the flight that is about to say what is in it.
// A decision that was read before such a change, and made after it, must not be
// at hand: nobody would drop it.
type versions struct {
	seed   maphash.Seed
	groups [256]atomic.Uint64
}

func newVersions() *versions { return &versions{seed: maphash.MakeSeed()} }

// of is the count for a domain.
func (v *versions) of(domain string) *atomic.Uint64 {
	return &v.groups[maphash.String(v.seed, domain)%uint64(len(v.groups))]
}

// bump counts a change of a domain, or of every one if it is "".
func (v *versions) bump(domain string) {
	if domain != "" {
		v.of(domain).Add(1)
		return
	}
	for i := range v.groups {
		v.groups[i].Add(1)
	}
}

// outdated reports whether the store may have changed since what d was made of
// was read. The lock for settling must be held.
func (e *Engine) outdated(d *Decision) bool { return d.version != e.versions.of(d.Domain).Load() }

// takeTurn waits until f may download the policy of a domain of which no policy
// is known, or somebody else did. It returns what is known of the domain by
// then; got says whether to download is still wanted. A store that does not work
// restrains nobody.
//
// The slot comes first: a claim that ends while its holder waits for one would
// have another host download the same. It is not held while another host does.
func (e *Engine) takeTurn(ctx context.Context, f *flight, got outcome, old cache.Entry) (cache.Entry, error) {
	for {
		if err := f.takeSlot(ctx); err != nil {
			return old, err
		}
		ok, err := e.claims.Claim(ctx, f.domain, f.timeout/turnPart)
		f.claimed = ok && err == nil
		// Between the last look and the claim somebody may have been done.
		if known, found, recallErr := e.recall(ctx, f); recallErr == nil && found {
			old = known
		}
		if err != nil || ok || !wanted(old, got, f.why, time.Now()) {
			return old, ctx.Err()
		}
		f.freeSlot()
		select {
		case <-time.After(turnPoll/2 + rand.N(turnPoll)):
		case <-ctx.Done():
			return old, errors.New("another host is retrieving the policy, and is not done in time")
		}
	}
}

// release gives back the claim of f, if it has one. What f put into the store has
// ended it already; this is for retrievals that were cut short.
func (e *Engine) release(f *flight) {
	if !f.claimed {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), releaseLimit)
	defer cancel()
	_ = e.claims.Release(ctx, f.domain) // or else it ends by itself
}
