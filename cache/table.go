package cache

import "math"

// A table keeps at most max encoded entries, which take at most room bytes. All
// its methods take a time that depends on the logarithm of their number at most,
// for each entry that one forgets; none is safe for concurrent use.
//
// A policy can have 64 kilobytes, and whoever has a wildcard of domains could
// fill the memory with them if entries were only counted.
//
// An entry is either kept or expendable. To make room, a kept one whose time is
// over goes first, then the least recently used of the expendable ones, and
// only if there is neither the least recently used of those to be kept. An
// expendable entry never displaces one to be kept: it is then not stored. Nor is
// an expendable one that takes more than all the room; one to be kept is, alone.
type table struct {
	max   int
	room  int64
	used  int64            // of room
	index map[string]int32 // domain → node; the keys are parts of node.enc
	nodes slab[node]       // 0 and 1 are the heads of the two rings
	free  int32            // first of the unused nodes, linked by next; 0: none
	born  uint64           // the last node.born
	due   timeHeap         // those with a refresh
	keep  timeHeap         // those to be kept, by the time until which
	gone  evictions
}

// evictions counts what was forgotten for want of room.
type evictions struct{ expired, expendable, kept uint64 }

// usual is room enough for an entry on average, in bytes: a few times what most
// policies take.
const usual = 1024

// The two rings, from the most recently used (next) to the least (prev).
const (
	ringExpendable = 0
	ringKept       = 1
	firstNode      = 2
)

// A node is 48 bytes, because there is one for every domain in the world that
// has no policy. What can be decoded from enc is not held again.
type node struct {
	enc        string // of an Entry; empty: the node is unused
	born       uint64 // counts insertions; what replaces an entry keeps it
	note       int64  // the table's user's own
	next, prev int32
	pos        [2]int32 // in due and keep, plus one; zero: not there
}

// An item is what a table is given to store.
type item struct {
	enc     string
	refresh int64 // stamp; 0: never due
	keep    int64 // stamp until which to keep it; 0: expendable
	note    int64
}

func newTable(limit int) *table {
	t := &table{
		max:   min(max(limit, 1), math.MaxInt32-firstNode),
		index: make(map[string]int32),
	}
	t.room = int64(t.max) * usual
	t.due = timeHeap{which: 0, nodes: &t.nodes}
	t.keep = timeHeap{which: 1, nodes: &t.nodes}
	for ring := range int32(firstNode) {
		t.nodes.add(node{next: ring, prev: ring})
	}
	return t
}

// find returns the domain's node, which is good until the next put or remove,
// or nil.
func (t *table) find(domain string) (int32, *node) {
	i, ok := t.index[domain]
	if !ok {
		return 0, nil
	}
	return i, t.nodes.at(i)
}

// use makes node i the most recently used one of its ring.
func (t *table) use(i int32) {
	t.unlink(i)
	t.link(i)
}

// put stores it for the domain, as the most recently used, and makes room for
// it where there is none.
func (t *table) put(it item, now int64) {
	domain := domainOf(it.enc)
	i, ok := t.index[domain]
	keep := it.keep > now
	if int64(len(it.enc)) > t.room && !keep {
		if ok {
			t.remove(i)
		}
		return
	}
	if ok {
		// Deleted, and not only assigned to: the old key is a part of the old
		// encoding, and would keep all of that in memory.
		delete(t.index, domain)
		t.unlink(i)
	} else {
		if len(t.index) >= t.max && !t.evict(keep, now) {
			return
		}
		i = t.alloc()
		t.born++
		t.nodes.at(i).born = t.born
	}
	t.index[domain] = i
	t.fill(i, it)
	t.link(i)
	// It is the one used last by now, and goes itself where it may displace none.
	for t.used > t.room && len(t.index) > 1 && t.evict(keep, now) {
	}
}

// update replaces what node i holds for its domain, and leaves its place in the
// order of use. If that takes more room, by the few bytes of a time, the next
// put makes it.
func (t *table) update(i int32, it item) {
	domain := domainOf(it.enc)
	delete(t.index, domain)
	t.index[domain] = i
	if t.keep.has(i) == (it.keep != 0) {
		t.fill(i, it)
		return
	}
	// Changes the ring.
	t.unlink(i)
	t.fill(i, it)
	t.link(i)
}

func (t *table) fill(i int32, it item) {
	n := t.nodes.at(i)
	t.used += int64(len(it.enc) - len(n.enc))
	n.enc, n.note = it.enc, it.note
	t.due.set(i, it.refresh)
	t.keep.set(i, it.keep)
}

// remove forgets node i.
func (t *table) remove(i int32) {
	n := t.nodes.at(i)
	t.used -= int64(len(n.enc))
	delete(t.index, domainOf(n.enc))
	t.unlink(i)
	t.due.set(i, 0)
	t.keep.set(i, 0)
	*n = node{next: t.free}
	t.free = i
}

// evict removes one entry for the sake of another, and reports whether there
// was one that may go for it.
func (t *table) evict(forKept bool, now int64) bool {
	if over, ok := t.keep.min(); ok && over.at <= now {
		t.remove(over.node)
		t.gone.expired++
		return true
	}
	if i := t.nodes.at(ringExpendable).prev; i != ringExpendable {
		t.remove(i)
		t.gone.expendable++
		return true
	}
	if i := t.nodes.at(ringKept).prev; i != ringKept && forKept {
		t.remove(i)
		t.gone.kept++
		return true
	}
	return false
}

func (t *table) alloc() int32 {
	if t.free == 0 {
		return t.nodes.add(node{})
	}
	i := t.free
	t.free = t.nodes.at(i).next
	return i
}

func (t *table) link(i int32) {
	head := int32(ringExpendable)
	if t.keep.has(i) {
		head = ringKept
	}
	n, h := t.nodes.at(i), t.nodes.at(head)
	n.prev, n.next = head, h.next
	t.nodes.at(h.next).prev = i
	h.next = i
}

func (t *table) unlink(i int32) {
	n := t.nodes.at(i)
	t.nodes.at(n.prev).next = n.next
	t.nodes.at(n.next).prev = n.prev
}

// scan calls f for at most n nodes from node i on, and returns the node to go
// on with, or 0 at the end. Nodes born after limit are passed over: with the
// limit taken when a walk begins, a domain that is removed and stored again in
// the middle of it is not met twice.
func (t *table) scan(i int32, n int, limit uint64, f func(*node)) int32 {
	i = max(i, firstNode)
	for ; n > 0 && i < t.nodes.n; n-- {
		if nd := t.nodes.at(i); nd.enc != "" && nd.born <= limit {
			f(nd)
		}
		i++
	}
	if i >= t.nodes.n {
		return 0
	}
	return i
}
