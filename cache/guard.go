package cache

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"
)

// ErrAway is found by errors.Is in what a [Guard] returns while its back does
// not work. OnState has told that it does not; the caller goes on without it.
var ErrAway = errors.New("cache: the store is away")

const (
	// firstPause and longestPause are how long a store that failed is left
	// alone; the pause doubles with every failure in a row.
	firstPause   = 500 * time.Millisecond
	longestPause = 5 * time.Second
)

// A Guard is a [Shared] before another one, its back, which may be slow or not
// there at all. Create it with [NewGuard].
//
// No method but All waits longer than the patience of the Guard. After a
// failure the back is left alone for a short while, in which everything fails
// at once with ErrAway; then one caller tries again. Reading and writing are
// apart in this, for a server that is full can still be read.
//
// It keeps nothing in memory: that is for a [Front] before it.
//
// Trust and loss: those of the back.
type Guard struct {
	// OnState, if not nil, is told with an error when reading ("read") or
	// writing ("write") begins to fail, and with nil when it works again: once
	// for each, however many callers notice. It may be called concurrently,
	// without any lock held, and must be set before the Guard is used.
	OnState func(what string, err error)

	back     Shared
	patience time.Duration
	reads    breaker
	writes   breaker
}

// NewGuard returns a Guard that waits for back no longer than patience.
func NewGuard(back Shared, patience time.Duration) *Guard {
	return &Guard{back: back, patience: patience, reads: breaker{what: "read"}, writes: breaker{what: "write"}}
}

// A Condition is whether the back of a [Guard] works for reading, or for
// writing. The zero value is that of one that always did.
type Condition struct {
	// Err is the latest failure; nil if the back works.
	Err error
	// Since is when it began to be so; zero if it was never otherwise.
	Since time.Time
}

// Conditions returns how the back is, as far as those who used it found out.
func (g *Guard) Conditions() (reading, writing Condition) {
	return g.reads.condition(), g.writes.condition()
}

// A breaker knows whether a back works.
type breaker struct {
	what string

	mu     sync.Mutex
	err    error         // why it does not work; nil if it does
	since  time.Time     // when that began
	retry  time.Time     // when to try again
	pause  time.Duration // how long after the next failure
	trying bool          // somebody does
}

// enter returns why the back is not to be asked now, or nil; then leave has to
// be called.
func (b *breaker) enter(now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		return nil
	}
	// A retry that is far away was planned before the clock was set back.
	if b.trying || now.Before(b.retry) && b.retry.Sub(now) <= longestPause {
		return away(b.err)
	}
	b.trying = true
	return nil
}

// leave notes how it went: err is nil if the back works. It returns whether
// that is another state than before.
func (b *breaker) leave(err error, now time.Time) (changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	changed = (b.err == nil) != (err == nil)
	b.err, b.trying = err, false
	if changed {
		b.since = now
	}
	if err == nil {
		b.pause = 0
		return changed
	}
	b.pause = min(max(2*b.pause, firstPause), longestPause)
	b.retry = now.Add(b.pause)
	return changed
}

// condition returns what is known of the back.
func (b *breaker) condition() Condition {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Condition{Err: b.err, Since: b.since}
}

// giveUp is leave for who has learned nothing.
func (b *breaker) giveUp() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trying = false
}

func away(err error) error { return fmt.Errorf("%w: %w", ErrAway, err) }

// answered reports whether err is an answer of a store that works.
func answered(err error) bool {
	return err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrOutdated) || errors.Is(err, ErrClosed)
}

// do has op ask the back.
func (g *Guard) do(ctx context.Context, b *breaker, op func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.enter(time.Now()); err != nil {
		return err
	}
	once, cancel := context.WithTimeoutCause(ctx, g.patience, fmt.Errorf("no answer in %s", g.patience))
	defer cancel()
	err := op(once)
	if !answered(err) && ctx.Err() != nil {
		b.giveUp() // the caller was less patient
		return err
	}
	if !answered(err) && once.Err() != nil {
		err = context.Cause(once)
	}
	return g.noted(b, err)
}

// noted takes over how it went, and returns what the caller is told.
func (g *Guard) noted(b *breaker, err error) error {
	failure := err
	if answered(err) {
		failure = nil
	}
	if b.leave(failure, time.Now()) && g.OnState != nil {
		g.OnState(b.what, failure)
	}
	if failure != nil {
		return away(failure)
	}
	return err
}

// Get implements [Store].
func (g *Guard) Get(ctx context.Context, domain string) (e Entry, err error) {
	err = g.do(ctx, &g.reads, func(ctx context.Context) (err error) {
		e, err = g.back.Get(ctx, domain)
		return err
	})
	return e, err
}

// Put implements [Store].
func (g *Guard) Put(ctx context.Context, e Entry) error {
	if _, err := pack(e); err != nil {
		return err // not the fault of the back
	}
	return g.do(ctx, &g.writes, func(ctx context.Context) error { return g.back.Put(ctx, e) })
}

// Touch implements [Store].
func (g *Guard) Touch(ctx context.Context, uses map[string]time.Time) error {
	return g.do(ctx, &g.writes, func(ctx context.Context) error { return g.back.Touch(ctx, uses) })
}

// Delete implements [Store].
func (g *Guard) Delete(ctx context.Context, domain string) error {
	return g.do(ctx, &g.writes, func(ctx context.Context) error { return g.back.Delete(ctx, domain) })
}

// Due implements [Store].
func (g *Guard) Due(ctx context.Context, now time.Time, lease time.Duration, n int) (taken []Entry, err error) {
	err = g.do(ctx, &g.writes, func(ctx context.Context) (err error) {
		taken, err = g.back.Due(ctx, now, lease, n)
		return err
	})
	return taken, err
}

// All implements [Store]. It takes as long as the back does.
func (g *Guard) All(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if err := g.reads.enter(time.Now()); err != nil {
			yield(Entry{}, err)
			return
		}
		var failure error
		defer func() {
			if failure != nil && ctx.Err() != nil {
				g.reads.giveUp()
				return
			}
			_ = g.noted(&g.reads, failure)
		}()
		for e, err := range g.back.All(ctx) {
			if failure = err; err != nil && !answered(err) && ctx.Err() == nil {
				err = away(err)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// Claim implements [Shared].
func (g *Guard) Claim(ctx context.Context, domain string, lease time.Duration) (ok bool, err error) {
	err = g.do(ctx, &g.writes, func(ctx context.Context) (err error) {
		ok, err = g.back.Claim(ctx, domain, lease)
		return err
	})
	return ok, err
}

// Release implements [Shared].
func (g *Guard) Release(ctx context.Context, domain string) error {
	return g.do(ctx, &g.writes, func(ctx context.Context) error { return g.back.Release(ctx, domain) })
}

// Watch implements [Shared].
func (g *Guard) Watch(ctx context.Context, changed func(domain string, deleted bool)) {
	g.back.Watch(ctx, changed)
}

// Run tries to read from a back that is away, so that its return is told even
// if nobody asks for anything, until ctx ends.
func (g *Guard) Run(ctx context.Context) {
	const nobody = "nobody.invalid" // RFC 2606, Section 2: never a domain
	tick := time.NewTicker(longestPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if g.reads.condition().Err != nil {
			_, _ = g.Get(ctx, nobody) // OnState is told how it went
		}
	}
}

// Close implements [Store].
func (g *Guard) Close() error { return g.back.Close() }
