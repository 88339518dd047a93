package cache

import (
	"context"
	"iter"
	"sync"
	"time"
)

// walkStep is how many entries are looked at while a lock is held to walk over
// a table: few enough for others not to notice.
const walkStep = 256

// A Memory is a [Store] in memory, bounded to a number of entries, and to the
// bytes they take. Create it with [NewMemory]. It implements everything that
// Store promises except that nothing survives the process.
//
// When it is full, expired policies are forgotten first, then the least
// recently used absences, and an unexpired policy, the least recently used one,
// only if there is nothing else (RFC 8461, Section 10.2, has a lost policy cost
// the protection of the next message). An absence that finds it full of
// unexpired policies is not kept: Put returns nil, and Get ErrNotFound.
//
// Trust: nobody but the process itself can change it. Loss: a restart loses
// everything, and with it the protection of the first message to each domain.
type Memory struct {
	mu     sync.Mutex
	table  *table
	closed bool
}

// NewMemory returns an empty Memory for at most n entries; n below 1 counts as
// 1. An absence takes about 150 bytes, a policy about 200 and its text; nothing
// is allocated for entries that are not there. Where texts are long there are
// fewer: what is kept of entries takes at most 1 kilobyte each on average, but
// one unexpired policy is kept in any case.
func NewMemory(n int) *Memory {
	return &Memory{table: newTable(n)}
}

// Get implements [Store]. The entry becomes the most recently used one.
func (m *Memory) Get(ctx context.Context, domain string) (Entry, error) {
	enc, err := m.lookup(ctx, domain)
	if err != nil {
		return Entry{}, err
	}
	// Decoded after the lock was given back: an encoding never changes.
	return decode(enc)
}

func (m *Memory) lookup(ctx context.Context, domain string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return "", err
	}
	i, n := m.table.find(domain)
	if n == nil {
		return "", ErrNotFound
	}
	m.table.use(i)
	return n.enc, nil
}

// Put implements [Store]. It is not durable.
func (m *Memory) Put(ctx context.Context, e Entry) error {
	it, err := memoryItem(e)
	if err != nil {
		return err
	}
	now := stamp(time.Now())
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return err
	}
	if _, n := m.table.find(e.Domain); n != nil {
		stored, err := decode(n.enc)
		if err == nil && stored.Outdates(e) {
			return ErrOutdated
		}
	}
	m.table.put(it, now)
	return nil
}

// Touch implements [Store]. It does not count as a use in the order of
// forgetting: the Get that went before it did.
func (m *Memory) Touch(ctx context.Context, uses map[string]time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return err
	}
	for domain, used := range uses {
		if err := m.touch(domain, used); err != nil {
			return err
		}
	}
	return nil
}

// touch moves Used of one entry. The lock is held.
func (m *Memory) touch(domain string, used time.Time) error {
	i, n := m.table.find(domain)
	if n == nil {
		return nil
	}
	e, err := decode(n.enc)
	if err != nil || stamp(used) <= stamp(e.Used) {
		return err
	}
	e.Used = used
	it, err := memoryItem(e)
	if err != nil {
		return err
	}
	m.table.update(i, it)
	return nil
}

// Delete implements [Store].
func (m *Memory) Delete(ctx context.Context, domain string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return err
	}
	if i, n := m.table.find(domain); n != nil {
		m.table.remove(i)
	}
	return nil
}

// Due implements [Store].
func (m *Memory) Due(ctx context.Context, now time.Time, lease time.Duration, n int) ([]Entry, error) {
	until := now.Add(max(lease, time.Millisecond))
	var taken []Entry
	for len(taken) < n {
		// The lock is taken anew for each entry, for a thousand leases in one
		// go would be felt by a lookup. What another taker gets in between is
		// missing here, but the order holds.
		e, ok, err := m.take(ctx, now, until)
		if err != nil && len(taken) == 0 {
			return nil, err
		}
		if err != nil || !ok {
			break
		}
		taken = append(taken, e)
	}
	return taken, nil
}

// take leases the one entry that is due for longest.
func (m *Memory) take(ctx context.Context, now, until time.Time) (e Entry, ok bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return Entry{}, false, err
	}
	first, ok := m.table.due.min()
	if !ok || first.at > stamp(now) {
		return Entry{}, false, nil
	}
	e, err = decode(m.table.nodes.at(first.node).enc)
	if err != nil {
		return Entry{}, false, err
	}
	leased := e
	leased.Refresh = until
	it, err := memoryItem(leased)
	if err != nil {
		return Entry{}, false, err
	}
	m.table.update(first.node, it)
	return e, true, nil
}

// All implements [Store].
func (m *Memory) All(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		var limit uint64
		encs := make([]string, 0, walkStep)
		for at, more := int32(0), true; more; more = at != 0 {
			encs = encs[:0]
			m.mu.Lock()
			err := m.usable(ctx)
			if err == nil {
				if at == 0 {
					limit = m.table.born
				}
				at = m.table.scan(at, walkStep, limit, func(n *node) { encs = append(encs, n.enc) })
			}
			m.mu.Unlock()
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if !yieldAll(ctx, encs, yield) {
				return
			}
		}
	}
}

// yieldAll decodes and yields each of encs, and reports whether to go on.
func yieldAll(ctx context.Context, encs []string, yield func(Entry, error) bool) bool {
	for _, enc := range encs {
		if err := ctx.Err(); err != nil {
			yield(Entry{}, err)
			return false
		}
		e, err := decode(enc)
		if err == nil && !yield(e, nil) {
			return false
		}
	}
	return true
}

// Close implements [Store]. It forgets everything.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.table = newTable(1)
	return nil
}

// usable returns why nothing can be done. The lock is held.
func (m *Memory) usable(ctx context.Context) error {
	if m.closed {
		return ErrClosed
	}
	return ctx.Err()
}

// memoryItem packs e the way a Memory keeps it: policies are protected for as
// long as they count.
func memoryItem(e Entry) (item, error) {
	enc, err := pack(e)
	if err != nil {
		return item{}, err
	}
	it := item{enc: enc, refresh: stamp(e.Refresh)}
	if e.Policy != "" {
		it.keep = stamp(e.Expires)
	}
	return it, nil
}
