package cache

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"
)

// A Memory is a [Store] in memory, bounded to a number of entries. Create it with
// [NewMemory]. It implements everything that Store promises except that nothing
// survives the process, in the plainest way: it is for tests, and the reference
// for other stores. A daemon needs none, since package policy has a memory of its
// own.
//
// When it is full, expired policies are evicted first, then the least recently
// used absences, and an unexpired policy, the least recently used one, only if
// there is nothing else (RFC 8461, Section 10.2: a lost policy costs the
// protection of the next message). An absence, or an expired policy, that finds
// it full of unexpired policies is not kept: Put returns nil, and Get
// ErrNotFound.
//
// Trust: only the process itself can change it. Loss: a restart loses everything,
// and with it the protection of the first message to each domain.
type Memory struct {
	max int

	mu      sync.Mutex
	entries map[string]*memoryEntry // by domain
	uses    uint64                  // counts Gets and Puts
	closed  bool
}

// A memoryEntry is an entry, and when it was last used.
type memoryEntry struct {
	Entry
	use uint64
}

// NewMemory returns an empty Memory for at most n entries; n below 1 counts as 1.
func NewMemory(n int) *Memory {
	return &Memory{max: max(n, 1), entries: make(map[string]*memoryEntry)}
}

// Get implements [Store]. The entry becomes the most recently used one.
func (m *Memory) Get(ctx context.Context, domain string) (Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return Entry{}, err
	}
	e := m.entries[domain]
	if e == nil {
		return Entry{}, ErrNotFound
	}
	m.uses++
	e.use = m.uses
	return e.Entry, nil
}

// Put implements [Store]. It is not durable.
func (m *Memory) Put(ctx context.Context, e Entry) error { return m.Replace(ctx, e, time.Time{}) }

// Replace implements [Store]. It is not durable.
func (m *Memory) Replace(ctx context.Context, e Entry, wrong time.Time) error {
	// As it would come back from any other store.
	enc, err := Encode(e)
	if err != nil {
		return err
	}
	if e, err = Decode(e.Domain, enc); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return err
	}
	stored := m.entries[e.Domain]
	if stored != nil && stored.Outdates(e) && stamp(stored.Fetched) != stamp(wrong) {
		return ErrOutdated
	}
	if stored == nil && len(m.entries) >= m.max && !m.evict(inForce(e, time.Now())) {
		return nil
	}
	m.uses++
	m.entries[e.Domain] = &memoryEntry{e, m.uses}
	return nil
}

// inForce reports whether e is a policy that has not expired.
func inForce(e Entry, now time.Time) bool { return e.Policy != "" && now.Before(e.Expires) }

// evict makes room for one entry, and reports whether there is any: an unexpired
// policy goes for another one only. The lock must be held.
func (m *Memory) evict(forPolicy bool) bool {
	now := time.Now()
	rank := func(e *memoryEntry) int {
		switch {
		case inForce(e.Entry, now):
			return 2
		case e.Policy == "":
			return 1
		}
		return 0
	}
	victim := slices.MinFunc(slices.Collect(maps.Values(m.entries)), func(a, b *memoryEntry) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.use, b.use))
	})
	if rank(victim) == 2 && !forPolicy {
		return false
	}
	delete(m.entries, victim.Domain)
	return true
}

// Touch implements [Store]. It does not count as a use in the order of eviction:
// the Get before it did.
func (m *Memory) Touch(ctx context.Context, uses map[string]time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return err
	}
	for domain, used := range uses {
		if e := m.entries[domain]; e != nil && stamp(used) > stamp(e.Used) {
			e.Used = unstamp(stamp(used))
		}
	}
	return nil
}

// Delete implements [Store].
func (m *Memory) Delete(ctx context.Context, domain string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return err
	}
	delete(m.entries, domain)
	return nil
}

// Due implements [Store].
func (m *Memory) Due(ctx context.Context, now time.Time, lease time.Duration, n int) ([]Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return nil, err
	}
	var due []*memoryEntry
	for _, e := range m.entries {
		if !e.Refresh.IsZero() && stamp(e.Refresh) <= stamp(now) {
			due = append(due, e)
		}
	}
	slices.SortFunc(due, func(a, b *memoryEntry) int { return a.Refresh.Compare(b.Refresh) })
	var taken []Entry
	for _, e := range due[:max(min(n, len(due)), 0)] {
		taken = append(taken, e.Entry)
		e.Refresh = unstamp(stamp(now.Add(max(lease, time.Millisecond))))
	}
	return taken, nil
}

// All implements [Store].
func (m *Memory) All(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		m.mu.Lock()
		domains := slices.Collect(maps.Keys(m.entries))
		m.mu.Unlock()
		for _, domain := range domains {
			e, there, err := m.look(ctx, domain)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if there && !yield(e, nil) {
				return
			}
		}
		if _, _, err := m.look(ctx, ""); err != nil {
			yield(Entry{}, err)
		}
	}
}

// look returns an entry without using it.
func (m *Memory) look(ctx context.Context, domain string) (e Entry, there bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return Entry{}, false, err
	}
	stored := m.entries[domain]
	if stored == nil {
		return Entry{}, false, nil
	}
	return stored.Entry, true, nil
}

// Close implements [Store]. It drops everything.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	clear(m.entries)
	return nil
}

// usable returns why nothing can be done. The lock must be held.
func (m *Memory) usable(ctx context.Context) error {
	if m.closed {
		return ErrClosed
	}
	return ctx.Err()
}
