package cache

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// errExited is the failure of an operation that ended its goroutine.
	errExited = errors.New("the store called runtime.Goexit")
	// errLate is returned by an operation that had to wait for the store to be
	// opened for longer than it may take.
	errLate = errors.New("the store was opened too late")
)

// ErrUnreachable is found by errors.Is in what a [Breaker] returns while its
// store does not work. OnState has reported that; the caller goes on without the
// store.
var ErrUnreachable = errors.New("cache: store unreachable")

const (
	// maxClose bounds Close.
	maxClose = 5 * time.Second
	// probeEvery is how often Run looks for a failed circuit to probe.
	probeEvery = time.Second
	// probeDomain is the domain that probes read and write. It is never a mail
	// domain (RFC 2606, Section 2).
	probeDomain = "probe.stsmap.invalid"
)

// A PanicError is the failure of a store that panicked. The store may be
// damaged; the caller logs Stack and goes on without the store.
type PanicError struct {
	Value any    // Value is what the store panicked with.
	Stack []byte // Stack is that of the goroutine that panicked, as text.
}

// Error implements error. It leaves out the stack.
func (p *PanicError) Error() string { return fmt.Sprintf("panic: %v", p.Value) }

// A Breaker is a [Shared] with one store as its backend: a circuit breaker for a
// store that can be slow, fail, hang, panic, or not be opened at all. Create it
// with [NewBreaker].
//
// Opening: the first operation, or Run, opens the store. If that fails, it is
// tried again like any other operation.
//
// Patience: no method but All and Watch waits longer than the patience of the
// Breaker, even if the store ignores contexts, as a file on a disk that hangs
// does. Each operation therefore runs on a goroutine of its own.
//
// Failure: after a failure all operations fail at once with ErrUnreachable, for
// a pause of 500 ms that doubles up to 5 s; then one caller tries again. While an
// operation that outlived the patience still runs, nothing is tried, which bounds
// the number of such operations and keeps them from taking effect after a later
// one; when it returns an answer, the store works again. Reading and writing
// fail separately, since a server that is full can still be read. ErrNotFound,
// ErrOutdated, ErrClosed, an entry that cannot be encoded and the end of the
// caller's context are not failures. A panic of the store is one, a
// [PanicError].
//
// It keeps nothing in memory. Trust and loss: those of the backend.
type Breaker struct {
	// OnState, if not nil, is called with an error when reading ("read") or
	// writing ("write") begins to fail, and with nil when it works again: once
	// for each change, and never for a failure after the success that followed
	// it. It may be called concurrently for reading and for writing, without any
	// lock held, and must not be changed once the Breaker is used. After ("write",
	// nil) the caller can store what it could not store before.
	OnState func(what string, err error)

	// Shared says that other processes use the store too. It must be set before
	// the Breaker is used if open returns a Shared; it makes Claim fail, and not
	// succeed, as long as that is not open. It is known to callers before the
	// store could be opened.
	Shared bool

	open     func(ctx context.Context) (Store, error)
	patience time.Duration
	reads    circuit
	writes   circuit

	life    context.Context // until Close
	end     context.CancelFunc
	running sync.WaitGroup // the operations under way

	mu      sync.Mutex
	backend Store    // nil until it is opened
	opening *attempt // nil: the store is not being opened
	closed  bool
}

// An attempt to open the store is shared by the operations that need it.
type attempt struct {
	done chan struct{} // closed when err is set
	err  error
}

var _ Shared = (*Breaker)(nil)

// NewBreaker returns a Breaker whose backend is the store that open returns, and
// whose operations take no longer than patience. open is called until it
// succeeds, by one goroutine at a time; its context ends with Close, and not
// with the patience of the operation that needs the store.
func NewBreaker(open func(ctx context.Context) (Store, error), patience time.Duration) *Breaker {
	b := &Breaker{
		open: open, patience: patience, reads: circuit{what: "read"}, writes: circuit{what: "write"},
	}
	b.life, b.end = context.WithCancel(context.Background())
	return b
}

// Conditions returns the state of the backend as far as operations have found it
// out. It may be called concurrently.
func (b *Breaker) Conditions() (reading, writing Condition) {
	return b.reads.condition(), b.writes.condition()
}

func unreachable(err error) error { return fmt.Errorf("%w: %w", ErrUnreachable, err) }

// isAnswer reports whether err is an answer of a store that works.
func isAnswer(err error) bool {
	return err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrOutdated) || errors.Is(err, ErrClosed)
}

// begin counts an operation, for Close to wait for; running.Done must be called
// when it ends. It returns why the backend is not to be used, by circuit c if
// that is not nil.
func (b *Breaker) begin(ctx context.Context, c *circuit) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return ErrClosed
	}
	if c != nil {
		if err := c.enter(time.Now()); err != nil {
			return err
		}
	}
	b.running.Add(1)
	return nil
}

// report calls OnState if it has not been called with the state of c. If another
// goroutine is calling it, that one goes on with this state: callers must not see
// a failure after the success that followed it.
func (b *Breaker) report(c *circuit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.reporting && (c.reported == nil) != (c.err == nil) {
		err := c.err
		c.reporting, c.reported = true, err
		c.mu.Unlock()
		if b.OnState != nil {
			b.OnState(c.what, err)
		}
		c.mu.Lock()
		c.reporting = false
	}
}

// record notes the error of an operation and returns the one for the caller,
// whose context is ctx.
func (b *Breaker) record(ctx context.Context, c *circuit, err error) error {
	if isAnswer(err) {
		c.record(nil, time.Now())
		b.report(c)
		return err
	}
	if ctx.Err() != nil { // the caller was less patient
		c.abandon()
		return err
	}
	c.record(err, time.Now())
	b.report(c)
	return unreachable(err)
}

// A result is what an operation returns.
type result[T any] struct {
	value T
	err   error
}

// do runs op on a goroutine of its own, and waits for it until ctx ends or the
// patience is over.
func do[T any](ctx context.Context, b *Breaker, c *circuit, op func(context.Context, Store) (T, error)) (value T, err error) {
	if err := b.begin(ctx, c); err != nil {
		return value, err
	}
	noAnswer := fmt.Errorf("no answer in %s", b.patience)
	limited, cancel := context.WithTimeoutCause(ctx, b.patience, noAnswer)
	done := make(chan result[T], 1)
	// The end of the operation and that of the patience are both recorded by the
	// one that comes first, even if the caller has returned by then.
	var ended atomic.Bool
	patience := time.AfterFunc(b.patience, func() {
		if ended.CompareAndSwap(false, true) {
			c.expire(noAnswer, time.Now())
			b.report(c)
			done <- result[T]{err: unreachable(noAnswer)}
		}
	})
	go func() {
		defer b.running.Done()
		defer cancel()
		r := result[T]{err: errExited}
		// Deferred, for an operation that calls runtime.Goexit must not remain the
		// trial for ever.
		defer func() {
			patience.Stop()
			if !ended.CompareAndSwap(false, true) {
				c.returned(isAnswer(r.err) || errors.Is(r.err, errLate), time.Now())
				b.report(c)
				return
			}
			if !isAnswer(r.err) && limited.Err() != nil && ctx.Err() == nil {
				r.err = noAnswer
			}
			r.err = b.record(ctx, c, r.err)
			done <- r
		}()
		r = protect(func() (T, error) {
			store, err := b.store()
			if err == nil && limited.Err() != nil {
				err = errLate
			}
			if err != nil {
				var none T
				return none, err
			}
			return op(limited, store)
		})
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return value, ctx.Err()
	}
}

// protect calls f, and makes a panic of f its error.
func protect[T any](f func() (T, error)) (r result[T]) {
	defer func() {
		if p := recover(); p != nil {
			r.err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	r.value, r.err = f()
	return r
}

// current returns the backend, or nil.
func (b *Breaker) current() Store {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.backend
}

// store returns the backend, and opens it if it is not open.
func (b *Breaker) store() (Store, error) {
	b.mu.Lock()
	s, a := b.backend, b.opening
	first := s == nil && a == nil
	if first {
		a = &attempt{done: make(chan struct{})}
		b.opening = a
	}
	b.mu.Unlock()
	if s != nil {
		return s, nil
	}
	if first {
		b.attempt(a)
	}
	<-a.done
	return b.current(), a.err
}

// attempt opens the store, for all that wait for a.
func (b *Breaker) attempt(a *attempt) {
	r := result[Store]{err: errExited}
	defer func() {
		b.mu.Lock()
		b.opening = nil
		late := b.closed && r.err == nil
		if !late && r.err == nil {
			b.backend = r.value
		}
		b.mu.Unlock()
		if a.err = r.err; late {
			a.err = errors.Join(ErrClosed, r.value.Close())
		}
		close(a.done)
	}()
	r = protect(func() (Store, error) { return b.open(b.life) })
}

// Get implements [Store].
func (b *Breaker) Get(ctx context.Context, domain string) (Entry, error) {
	return do(ctx, b, &b.reads, func(ctx context.Context, s Store) (Entry, error) { return s.Get(ctx, domain) })
}

// write is do for an operation that returns nothing.
func (b *Breaker) write(ctx context.Context, op func(context.Context, Store) error) error {
	_, err := do(ctx, b, &b.writes, func(ctx context.Context, s Store) (struct{}, error) { return struct{}{}, op(ctx, s) })
	return err
}

// Put implements [Store].
func (b *Breaker) Put(ctx context.Context, e Entry) error {
	if _, err := Encode(e); err != nil {
		return err // no failure of the backend
	}
	return b.write(ctx, func(ctx context.Context, s Store) error { return s.Put(ctx, e) })
}

// Replace implements [Store].
func (b *Breaker) Replace(ctx context.Context, e Entry, wrong time.Time) error {
	if _, err := Encode(e); err != nil {
		return err // no failure of the backend
	}
	return b.write(ctx, func(ctx context.Context, s Store) error { return s.Replace(ctx, e, wrong) })
}

// Touch implements [Store].
func (b *Breaker) Touch(ctx context.Context, uses map[string]time.Time) error {
	// The operation may still run when the caller changes its map.
	uses = maps.Clone(uses)
	return b.write(ctx, func(ctx context.Context, s Store) error { return s.Touch(ctx, uses) })
}

// Delete implements [Store].
func (b *Breaker) Delete(ctx context.Context, domain string) error {
	return b.write(ctx, func(ctx context.Context, s Store) error { return s.Delete(ctx, domain) })
}

// Due implements [Store].
func (b *Breaker) Due(ctx context.Context, now time.Time, lease time.Duration, n int) ([]Entry, error) {
	return do(ctx, b, &b.writes, func(ctx context.Context, s Store) ([]Entry, error) { return s.Due(ctx, now, lease, n) })
}

// All implements [Store]. It takes as long as the backend does, and runs on the
// caller's goroutine.
func (b *Breaker) All(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		// A walk is never the trial of a failed circuit: it has no bound in time,
		// and its end would be what all others wait for.
		_, err := b.Get(ctx, probeDomain)
		if err == nil || errors.Is(err, ErrNotFound) {
			err = b.begin(ctx, nil)
		}
		if err != nil {
			yield(Entry{}, err)
			return
		}
		defer b.running.Done()
		b.all(ctx, yield)
	}
}

// all iterates for All.
func (b *Breaker) all(ctx context.Context, yield func(Entry, error) bool) {
	inBody, more := false, true
	var failure error
	defer func() {
		if !inBody { // a panic of the loop's body is the caller's
			if p := recover(); p != nil {
				failure = &PanicError{Value: p, Stack: debug.Stack()}
			}
		}
		if failure == nil {
			return
		}
		if err := b.record(ctx, &b.reads, failure); err != nil && more && !inBody {
			yield(Entry{}, err)
		}
	}()
	for e, err := range b.current().All(ctx) {
		if err != nil {
			failure = err
			return
		}
		if e.Domain == probeDomain {
			continue
		}
		inBody = true
		more = yield(e, nil)
		inBody = false
		if !more {
			return
		}
	}
}

// Claim implements [Claims]. If no other process uses the store, every claim is
// granted.
func (b *Breaker) Claim(ctx context.Context, domain string, lease time.Duration) (bool, error) {
	if !b.shares() {
		return true, nil
	}
	return do(ctx, b, &b.writes, func(ctx context.Context, s Store) (bool, error) {
		if c, ok := s.(Claims); ok {
			return c.Claim(ctx, domain, lease)
		}
		return true, nil
	})
}

// Release implements [Claims].
func (b *Breaker) Release(ctx context.Context, domain string) error {
	if !b.shares() {
		return nil
	}
	return b.write(ctx, func(ctx context.Context, s Store) error {
		if c, ok := s.(Claims); ok {
			return c.Release(ctx, domain)
		}
		return nil
	})
}

// shares reports whether other processes may use the store.
func (b *Breaker) shares() bool {
	_, ok := b.current().(Shared)
	return ok || b.Shared
}

// Watch implements [Shared]. It opens the store first; if no other process uses
// the store, it then waits for the end of ctx or of the Breaker.
func (b *Breaker) Watch(ctx context.Context, changed func(domain string, deleted bool)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.life, cancel)()
	for b.openOnly(ctx) != nil && ctx.Err() == nil {
		sleep(ctx, probeEvery)
	}
	shared, ok := b.current().(Shared)
	for ok && ctx.Err() == nil {
		r := protect(func() (struct{}, error) {
			shared.Watch(ctx, changed)
			return struct{}{}, nil
		})
		if r.err == nil {
			break
		}
		b.reads.record(r.err, time.Now())
		b.report(&b.reads)
		sleep(ctx, maxPause)
	}
	<-ctx.Done()
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// Run opens the store, and probes it while it fails, so that its return is
// reported even if no caller uses it, until ctx ends.
func (b *Breaker) Run(ctx context.Context) {
	_ = b.openOnly(ctx)
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// OnState reports what the probes find out.
		reading, writing := b.Conditions()
		if reading.Err != nil {
			_, _ = b.Get(ctx, probeDomain)
		}
		if writing.Err != nil {
			_ = b.probeWriting(ctx)
		}
	}
}

// openOnly opens the store if it is not open.
func (b *Breaker) openOnly(ctx context.Context) error {
	if b.current() != nil {
		return nil // and this says nothing about reading
	}
	_, err := do(ctx, b, &b.reads, func(context.Context, Store) (struct{}, error) { return struct{}{}, nil })
	return err
}

// probeWriting writes an entry and deletes it again. A Delete alone would say
// nothing, since a store that is full takes it.
func (b *Breaker) probeWriting(ctx context.Context) error {
	now := time.Now()
	return b.write(ctx, func(ctx context.Context, s Store) error {
		err := s.Put(ctx, Entry{Domain: probeDomain, Checked: now, Expires: now})
		if err != nil && !errors.Is(err, ErrOutdated) {
			return err
		}
		return s.Delete(ctx, probeDomain)
	})
}

// Close implements [Store]. It waits for operations under way and closes the
// store, for 5 s at most; then it returns an error, and the store is closed when
// the operation that hangs returns.
func (b *Breaker) Close() error {
	b.mu.Lock()
	was, store := b.closed, b.backend
	b.closed = true
	b.mu.Unlock()
	if was {
		return nil
	}
	b.end()
	done := make(chan error, 1)
	go func() {
		var r result[struct{}]
		if store != nil {
			r = protect(func() (struct{}, error) { return struct{}{}, store.Close() })
		}
		b.running.Wait()
		done <- r.err
	}()
	limit := time.NewTimer(maxClose)
	defer limit.Stop()
	select {
	case err := <-done:
		return err
	case <-limit.C:
		return fmt.Errorf("cache: store not closed: an operation hangs for %s", maxClose)
	}
}
