package cache

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
)

// repayEvery is how often a Front tries to put what its back did not take, and
// repayLatest how often at least where it is refused each time.
const (
	repayEvery  = time.Second
	repayLatest = time.Minute
)

// Run keeps a Front and its back together until ctx ends: it puts the dirty
// policies when the back takes them again, and, if the back is a [Shared],
// drops copies of what others change.
func (f *Front) Run(ctx context.Context) {
	var watching sync.WaitGroup
	defer watching.Wait()
	if f.shared != nil {
		watching.Go(func() { f.shared.Watch(ctx, f.changed) })
	}
	pause := repayEvery
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		// What is refused for good is tried less and less often: it would be a
		// line in the log each time. After an outage that makes a delay of at
		// most as long as the outage was.
		if f.repay(ctx) {
			pause = min(2*pause, repayLatest)
		} else {
			pause = repayEvery
		}
	}
}

// Claim implements [Claims]. Without others, every claim is granted. Where it is
// refused, somebody else is about to put something, and no copy of what was
// before is left.
func (f *Front) Claim(ctx context.Context, domain string, lease time.Duration) (bool, error) {
	if f.shared == nil {
		return true, nil
	}
	ok, err := f.shared.Claim(ctx, domain, lease)
	if err == nil && !ok {
		f.outOfDate(domain)
	}
	return ok, err
}

// Release implements [Claims].
func (f *Front) Release(ctx context.Context, domain string) error {
	if f.shared == nil {
		return nil
	}
	return f.shared.Release(ctx, domain)
}

// changed drops the copy of a domain that another process changed or deleted.
func (f *Front) changed(domain string, _ bool) {
	f.outOfDate(domain)
	if f.OnChange != nil {
		f.OnChange(domain)
	}
}

// outOfDate has the next Get of the domain, or of any if it is "", ask the
// back. A Get under way may have been told what was before.
func (f *Front) outOfDate(domain string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if domain == "" {
		// Gets under way copy with the moment of their beginning.
		f.doubts++
		return
	}
	f.flights.end(domain, f.flights.begin(domain, true))
	f.drop(domain, false)
}

// repay puts the dirty policies. One that the back does not take stays owed, and
// keeps no other from being put; only a back that takes none ends the round, and
// then the next begins with others, for behind a [Breaker] every refusal looks like
// that. It reports whether all that it tried was refused.
func (f *Front) repay(ctx context.Context) (refused bool) {
	domains := f.debts()
	if i := slices.Index(domains, f.stuck); i >= 0 {
		domains = slices.Concat(domains[i+1:], domains[:i+1])
	}
	f.stuck = ""
	taken := false
	for _, domain := range domains {
		err := f.settle(ctx, domain)
		if errors.Is(err, ErrUnreachable) || errors.Is(err, ErrClosed) || ctx.Err() != nil {
			f.mu.Lock()
			f.owing = true
			f.mu.Unlock()
			f.stuck = domain
			break
		}
		taken = taken || err == nil
	}
	return len(domains) > 0 && !taken
}

// settle puts the policy of a domain, as it is by now, if it is dirty still.
// What is put or deleted counts more: a policy that somebody writes at this
// moment is left for the next time, and who comes while it is on its way waits
// (see enter).
func (f *Front) settle(ctx context.Context, domain string) error {
	f.mu.Lock()
	e, enc := f.debt(domain)
	if enc == "" {
		f.mu.Unlock()
		return nil
	}
	if f.flights.writing(domain) {
		f.owing = true
		f.mu.Unlock()
		return nil
	}
	if err := f.usable(ctx); err != nil {
		f.mu.Unlock()
		return err
	}
	v := f.flights.begin(domain, true)
	arrived := make(chan struct{})
	f.settling, f.arrived = domain, arrived
	f.mu.Unlock()

	err := f.back.Put(ctx, e)

	f.mu.Lock()
	defer f.mu.Unlock()
	f.arrived = nil
	close(arrived)
	return f.settled(e, enc, err, f.flights.end(domain, v))
}

// settled brings memory up to date after the dirty policy e, which enc encodes,
// was put, or not. What is dirty and not enc came meanwhile, and is owed as
// before. The lock is held.
func (f *Front) settled(e Entry, enc string, err error, over overlap) error {
	_, now := f.debt(e.Domain)
	switch {
	case now != enc && errors.Is(err, ErrOutdated):
		f.owing = true // and may be later
	case now != enc:
		f.owing = true
		return err
	case errors.Is(err, ErrOutdated):
		f.drop(e.Domain, true) // the back has a later policy
	case err != nil:
		f.owing = true
		return err
	case over == overlapNone:
		f.store(e, inBack, f.moment(stamp(time.Now())))
	default:
		f.drop(e.Domain, true)
	}
	return nil
}

// debt returns the dirty policy of a domain and its encoding, which is empty if
// there is none. The lock is held.
func (f *Front) debt(domain string) (e Entry, enc string) {
	_, n := f.table.find(domain)
	if n == nil || stateOf(n) != dirty {
		return Entry{}, ""
	}
	e, err := decode(n.enc)
	if err != nil {
		return Entry{}, "" // cannot be, as it was made here
	}
	return e, n.enc
}

// enter takes the lock for who is about to write what was asked for, and returns
// why nothing can be done. While a dirty policy of the domain is on its way to
// the back it waits, for that would arrive after what is newer, or bring back
// what is deleted. Where ctx ends meanwhile, the back will say so.
func (f *Front) enter(ctx context.Context, domain string) error {
	f.mu.Lock()
	err := f.usable(ctx)
	for err == nil && f.arrived != nil && f.settling == domain && ctx.Err() == nil {
		arrived := f.arrived
		f.mu.Unlock()
		select {
		case <-arrived:
		case <-ctx.Done():
		}
		f.mu.Lock()
	}
	return err
}

// Waiting returns how many policies are in memory that the back did not take
// yet. It looks at all copies, a few at a time.
func (f *Front) Waiting() (n int) {
	f.eachDirty(func(*node) { n++ })
	return n
}

// debts returns the domains of the dirty policies.
func (f *Front) debts() (domains []string) {
	f.mu.Lock()
	owing := f.owing
	f.owing = false
	f.mu.Unlock()
	if !owing {
		return nil
	}
	// Cloned: a part of the encoding would keep all of that in memory.
	f.eachDirty(func(n *node) { domains = append(domains, strings.Clone(domainOf(n.enc))) })
	return domains
}

// eachDirty calls do for the copy of each dirty policy, with the lock held. It
// leaves others time between.
func (f *Front) eachDirty(do func(n *node)) {
	var limit uint64
	for at, more := int32(0), true; more; more = at != 0 {
		f.mu.Lock()
		if at == 0 {
			limit = f.table.born
		}
		at = f.table.scan(at, walkStep, limit, func(n *node) {
			if stateOf(n) == dirty {
				do(n)
			}
		})
		f.mu.Unlock()
	}
}
