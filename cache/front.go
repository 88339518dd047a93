package cache

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"
)

// A Front is a [Store] that keeps the entries in use in memory, before another
// one that is durable or shared: its back. Create it with [NewFront]; closing
// it closes the back.
//
// What is where: a policy is in the back, and a copy of it in memory. An
// absence with a zero Refresh is in memory alone, since losing one costs a DNS
// question and writing one a disk's attention; only if the back holds something
// for the domain is the absence put there too, in one step with the comparison
// that Put promises. (Deleting there instead would take two steps, and the
// policy that another process stores in between with it.)
//
// Guarantee: a Get that begins after another operation of this Front on the
// same domain has returned does not see anything older than what that operation
// left in the back, but for a touch. No lock is held while the back works; an
// operation that was overlapped by a writing one on the same domain leaves no
// copy behind, and the next Get asks the back. What other processes write to a
// shared back is seen when the copy is ttl old, or, while Run runs and it is a
// [Shared], as soon as its Watch tells.
//
// When the back fails, the Front goes on from memory. Get answers with the copy
// it has, whatever its age. A policy that could not be put is kept in memory,
// is dirty, and wins over what the back has until a Put of that domain succeeds
// or it is forgotten for want of room. Run puts it when the back takes it
// again, after as long as it was away at most, and no more than a minute; if the
// back has a later one by then, that counts. An absence that could not be
// compared with the back is used only as long as the back cannot be read, for it
// might hide a policy.
//
// Memory is bounded like that of [Memory], with dirty policies in the place of
// unexpired ones: everything else is somewhere else too, or cheap. No copy is
// made of what would take all of it.
//
// Trust: that of the back. Loss: absences, dirty policies, and what the back
// loses.
type Front struct {
	// OnError, if not nil, is told of each failure of the back that no method
	// returns: op is "get" or "touch". It may be called concurrently, without
	// any lock held, and must be set before the Front is used.
	OnError func(op string, err error)
	// OnChange, if not nil, is told with each domain that Watch tells of, after
	// the copy was dropped; "" means all domains. It is called without any lock
	// held, and must be set before Run is called.
	OnChange func(domain string)

	back   Store
	shared Shared // back, if it is one
	ttl    int64  // milliseconds; 0: copies are good for ever

	mu      sync.Mutex
	table   *table
	flights flights
	doubts  int64 // how often all copies came into doubt: older ones are not used without asking the back
	owing   bool  // there may be dirty policies
	closed  bool

	settling string        // the domain whose dirty policy is on its way to the back
	arrived  chan struct{} // closed when it is there, or was refused; nil: none is

	stuck string // the domain at which the back went away; Run alone uses it
}

// A copyState says how a copy in memory relates to the back.
type copyState int64

const (
	inBack    copyState = iota // the back held the same
	alone                      // an absence, and the back held nothing
	dirty                      // a policy that the back did not take: wins
	doubtful                   // an absence, and the back could not be read: loses
	stateBits = 2
)

// NewFront returns a Front before back, with at most n entries in memory (n
// below 1 counts as 1). A copy that is older than ttl is compared with the back
// before it is used; with ttl 0, which is right for a back that no other
// process writes to, never.
func NewFront(back Store, n int, ttl time.Duration) *Front {
	shared, _ := back.(Shared)
	return &Front{
		back:    back,
		shared:  shared,
		ttl:     max(ttl, 0).Milliseconds(),
		table:   newTable(n),
		flights: flights{domains: make(map[string]*flight)},
	}
}

// Get implements [Store]. Where the back fails and there is a copy, it returns
// the copy and no error, and tells OnError.
func (f *Front) Get(ctx context.Context, domain string) (Entry, error) {
	at := stamp(time.Now())
	f.mu.Lock()
	if err := f.usable(ctx); err != nil {
		f.mu.Unlock()
		return Entry{}, err
	}
	now := f.moment(at)
	if i, n := f.table.find(domain); n != nil {
		f.table.use(i)
		if f.fresh(n, now) {
			enc := n.enc
			f.mu.Unlock()
			return decode(enc)
		}
	}
	v := f.flights.begin(domain, false)
	f.mu.Unlock()

	e, err := f.back.Get(ctx, domain)

	f.mu.Lock()
	overlap := f.flights.end(domain, v)
	e, hidden, err := f.got(domain, e, err, overlap, now)
	f.mu.Unlock()
	if hidden != nil && ctx.Err() == nil {
		f.report("get", hidden)
	}
	return e, err
}

// got makes the answer of a Get, and brings memory up to date, from what the
// back said. hidden is the failure that a copy made up for. The lock is held.
func (f *Front) got(domain string, e Entry, err error, over overlap, now int64) (_ Entry, hidden, _ error) {
	i, n := f.table.find(domain)
	var have Entry
	var state copyState
	if n != nil {
		state = stateOf(n)
		// A copy that does not decode cannot be, as it was made here.
		have, _ = decode(n.enc)
	}
	switch {
	case n != nil && state == dirty:
		return have, nil, nil
	case err == nil:
		if over == overlapNone {
			f.store(e, inBack, now)
		}
		return e, nil, nil
	case errors.Is(err, ErrNotFound):
		switch {
		case n == nil:
		case state == alone || state == doubtful:
			if over != overlapSame {
				f.store(have, alone, now)
			}
			return have, nil, nil
		case over == overlapNone:
			f.table.remove(i)
		}
		return Entry{}, nil, ErrNotFound
	case n != nil:
		return have, err, nil
	}
	return Entry{}, nil, err
}

// Put implements [Store]. With an error other than ErrOutdated, ErrClosed and
// that of an entry that cannot be encoded, the back failed, and e is in memory:
// it will be what Get returns (an absence: for as long as the back fails).
func (f *Front) Put(ctx context.Context, e Entry) error {
	if _, err := pack(e); err != nil {
		return err
	}
	err := f.enter(ctx, e.Domain)
	if err == nil && f.outdated(e, dirty) {
		err = ErrOutdated
	}
	if err != nil {
		f.mu.Unlock()
		return err
	}
	v := f.flights.begin(e.Domain, true)
	f.mu.Unlock()

	state, err := f.write(ctx, e)

	f.mu.Lock()
	defer f.mu.Unlock()
	return f.put(e, state, err, f.flights.end(e.Domain, v))
}

// write puts e where it belongs, and returns the state of a copy of it.
//
// That a policy could not be downloaded is for others to know, who would try the
// same otherwise.
func (f *Front) write(ctx context.Context, e Entry) (copyState, error) {
	if e.Policy != "" || !e.Refresh.IsZero() || f.shared != nil && e.FailedID != "" {
		return inBack, f.back.Put(ctx, e)
	}
	_, err := f.back.Get(ctx, e.Domain)
	if errors.Is(err, ErrNotFound) {
		return alone, nil
	}
	if err != nil {
		return inBack, err
	}
	return inBack, f.back.Put(ctx, e)
}

// put brings memory up to date after e was written, or not. The lock is held.
func (f *Front) put(e Entry, state copyState, err error, over overlap) error {
	now := f.moment(stamp(time.Now()))
	switch {
	case errors.Is(err, ErrOutdated):
		f.drop(e.Domain, false)
		return err
	case errors.Is(err, ErrClosed):
		return err
	case err != nil && (f.outdated(e, dirty) || f.outdated(e, inBack)):
		// What memory knows is enough to say what the back would have said.
		return ErrOutdated
	case err != nil && e.Policy == "":
		f.store(e, doubtful, now)
		return err
	case err != nil:
		f.store(e, dirty, now)
		return err
	case f.outdated(e, dirty):
		// Another Put failed meanwhile with a later policy, which stays.
		return nil
	case state == alone && over == overlapSame:
		// Whatever came between may have put a policy in the back.
		f.store(e, doubtful, now)
	case state == alone || over == overlapNone:
		f.store(e, state, now)
	default:
		f.drop(e.Domain, true)
	}
	return nil
}

// Touch implements [Store]. A failure of the back is told to OnError, and not
// returned.
func (f *Front) Touch(ctx context.Context, uses map[string]time.Time) error {
	f.mu.Lock()
	if err := f.usable(ctx); err != nil {
		f.mu.Unlock()
		return err
	}
	tell := make(map[string]time.Time, len(uses))
	for domain, used := range uses {
		if !f.touch(domain, used) {
			tell[domain] = used
		}
	}
	f.mu.Unlock()
	if len(tell) == 0 {
		return nil
	}
	if err := f.back.Touch(ctx, tell); err != nil && ctx.Err() == nil {
		f.report("touch", err)
	}
	return nil
}

// touch brings the copy of a domain up to date, and reports whether nothing but
// memory has it. The lock is held.
func (f *Front) touch(domain string, used time.Time) (onlyHere bool) {
	i, n := f.table.find(domain)
	if n == nil {
		return false
	}
	if e, err := decode(n.enc); err == nil && stamp(used) > stamp(e.Used) {
		e.Used = used
		if it, err := f.item(e, stateOf(n), copiedAt(n)); err == nil {
			f.table.update(i, it)
		}
	}
	return stateOf(n) == alone
}

// Delete implements [Store]. What is in memory is forgotten even if the back
// fails, and the error returned.
func (f *Front) Delete(ctx context.Context, domain string) error {
	if err := f.enter(ctx, domain); err != nil {
		f.mu.Unlock()
		return err
	}
	v := f.flights.begin(domain, true)
	f.mu.Unlock()

	err := f.back.Delete(ctx, domain)

	f.mu.Lock()
	defer f.mu.Unlock()
	f.flights.end(domain, v)
	f.drop(domain, true)
	return err
}

// Due implements [Store]. It takes what is due in the back; an absence that is
// in memory alone has no Refresh, and a dirty policy is taken by what the back
// knows of the domain, but returned as it is in memory.
func (f *Front) Due(ctx context.Context, now time.Time, lease time.Duration, n int) ([]Entry, error) {
	f.mu.Lock()
	if err := f.usable(ctx); err != nil {
		f.mu.Unlock()
		return nil, err
	}
	f.flights.beginDue()
	f.mu.Unlock()

	taken, err := f.back.Due(ctx, now, lease, n)

	f.mu.Lock()
	defer f.mu.Unlock()
	f.flights.endDue()
	for k, e := range taken {
		i, n := f.table.find(e.Domain)
		if n == nil {
			continue
		}
		if stateOf(n) != dirty {
			f.table.remove(i) // its Refresh is the one before the lease
			continue
		}
		if have, err := decode(n.enc); err == nil {
			have.Refresh = e.Refresh
			taken[k] = have
		}
	}
	return taken, err
}

// All implements [Store]: first what is in memory alone, the absences and the
// dirty policies, then the rest from the back. It remembers the domains of the
// first part until it is done.
func (f *Front) All(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		seen := make(map[string]struct{})
		if !f.walk(ctx, seen, yield) {
			return
		}
		for e, err := range f.back.All(ctx) {
			if _, ok := seen[e.Domain]; ok && err == nil {
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// walk yields what is in memory alone, adds the domains to seen, and reports
// whether to go on.
func (f *Front) walk(ctx context.Context, seen map[string]struct{}, yield func(Entry, error) bool) bool {
	var limit uint64
	encs := make([]string, 0, walkStep)
	for at, more := int32(0), true; more; more = at != 0 {
		encs = encs[:0]
		f.mu.Lock()
		err := f.usable(ctx)
		if err == nil {
			if at == 0 {
				limit = f.table.born
			}
			at = f.table.scan(at, walkStep, limit, func(n *node) {
				if s := stateOf(n); s == alone || s == dirty {
					encs = append(encs, n.enc)
				}
			})
		}
		f.mu.Unlock()
		if err != nil {
			yield(Entry{}, err)
			return false
		}
		for _, enc := range encs {
			seen[domainOf(enc)] = struct{}{}
		}
		if !yieldAll(ctx, encs, yield) {
			return false
		}
	}
	return true
}

// Close implements [Store]: it closes the back, and returns its error.
func (f *Front) Close() error {
	f.mu.Lock()
	was := f.closed
	f.closed = true
	f.mu.Unlock()
	if was {
		return nil
	}
	return f.back.Close()
}

// usable returns why nothing can be done. The lock is held.
func (f *Front) usable(ctx context.Context) error {
	if f.closed {
		return ErrClosed
	}
	return ctx.Err()
}

// fresh reports whether the copy can be used without asking the back.
func (f *Front) fresh(n *node, now int64) bool {
	switch stateOf(n) {
	case dirty:
		return true
	case doubtful:
		return false
	}
	then := copiedAt(n)
	if (then^now)&(1<<doubtBits-1) != 0 {
		return false
	}
	// A copy from the future was made before the clock was set back, and has
	// no age that could be told.
	age := now>>doubtBits - then>>doubtBits
	return f.ttl == 0 || age >= 0 && age < f.ttl
}

// A moment is a stamp, and by how many doubts it was preceded. Those are counted,
// for by the clock a doubt would last until the clock comes to it again after it
// was set back. When a number comes again, no copy is left of the last time.
const doubtBits = 12

// moment is the moment at a stamp, if that is now. The lock is held.
func (f *Front) moment(at int64) int64 { return at<<doubtBits | f.doubts&(1<<doubtBits-1) }

// outdated reports whether a copy in the given state Outdates e.
func (f *Front) outdated(e Entry, state copyState) bool {
	_, n := f.table.find(e.Domain)
	if n == nil || stateOf(n) != state {
		return false
	}
	have, err := decode(n.enc)
	return err == nil && have.Outdates(e)
}

// store keeps a copy of e that was made at the moment copied.
func (f *Front) store(e Entry, state copyState, copied int64) {
	it, err := f.item(e, state, copied)
	if err != nil {
		f.drop(e.Domain, true) // the back returned what it cannot have been given
		return
	}
	f.table.put(it, stamp(time.Now()))
}

// drop forgets the copy; one that is dirty only if so told.
func (f *Front) drop(domain string, evenDirty bool) {
	if i, n := f.table.find(domain); n != nil && (evenDirty || stateOf(n) != dirty) {
		f.table.remove(i)
	}
}

func (f *Front) item(e Entry, state copyState, copied int64) (item, error) {
	enc, err := pack(e)
	if err != nil {
		return item{}, err
	}
	it := item{enc: enc, note: copied<<stateBits | int64(state)}
	if state == dirty {
		it.keep = stamp(e.Expires)
		f.owing = true
	}
	return it, nil
}

func (f *Front) report(op string, err error) {
	if f.OnError != nil {
		f.OnError(op, err)
	}
}

func stateOf(n *node) copyState { return copyState(n.note & (1<<stateBits - 1)) }

func copiedAt(n *node) int64 { return n.note >> stateBits }
