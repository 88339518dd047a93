package cache

import (
	"context"
	"errors"
	"sync"
	"time"
)

// repayEvery is how often a Front tries to put what its back did not take.
const repayEvery = time.Second

// Run keeps a Front and its back together until ctx ends: it puts the dirty
// policies when the back takes them again, and, if the back is a [Shared],
// drops copies of what others change.
func (f *Front) Run(ctx context.Context) {
	var watching sync.WaitGroup
	defer watching.Wait()
	if f.shared != nil {
		watching.Go(func() { f.shared.Watch(ctx, f.changed) })
	}
	tick := time.NewTicker(repayEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f.repay(ctx)
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

// changed takes in what Watch tells.
func (f *Front) changed(domain string) {
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
		// Gets under way copy with the time of their beginning.
		f.doubted = stamp(time.Now())
		return
	}
	f.flights.end(domain, f.flights.begin(domain, true))
	f.drop(domain, false)
}

// repay puts all dirty policies, unless the back still fails.
func (f *Front) repay(ctx context.Context) {
	for _, e := range f.debts() {
		err := f.Put(ctx, e)
		switch {
		case errors.Is(err, ErrOutdated):
			f.forgive(e)
		case err != nil:
			f.mu.Lock()
			f.owing = true
			f.mu.Unlock()
			return
		}
	}
}

// Waiting returns how many policies are in memory that the back did not take
// yet. It looks at all copies, a few at a time.
func (f *Front) Waiting() (n int) {
	f.eachDirty(func(*node) { n++ })
	return n
}

// debts returns the dirty policies.
func (f *Front) debts() (all []Entry) {
	f.mu.Lock()
	owing := f.owing
	f.owing = false
	f.mu.Unlock()
	if !owing {
		return nil
	}
	f.eachDirty(func(n *node) {
		if e, err := decode(n.enc); err == nil {
			all = append(all, e)
		}
	})
	return all
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

// forgive drops e, if it is still what is dirty: the back has a later policy.
func (f *Front) forgive(e Entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, n := f.table.find(e.Domain); n == nil || stateOf(n) != dirty {
		return
	} else if have, err := decode(n.enc); err == nil && have.Fetched.Equal(e.Fetched) {
		f.drop(e.Domain, true)
	}
}
