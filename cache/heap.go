package cache

// A timeHeap holds nodes of a table ordered by a time, the earliest on top. It
// is container/heap with the positions kept in the nodes and without a value
// boxed for each push.
type timeHeap struct {
	which int         // the element of node.pos that is ours
	nodes *slab[node] // of the table
	items slab[timed]
}

type timed struct {
	at   int64 // stamp
	node int32
}

// set puts node i at the time at, or takes it out if at is 0.
func (h *timeHeap) set(i int32, at int64) {
	pos := h.nodes.at(i).pos[h.which] - 1 // -1: not in the heap
	switch {
	case at == 0 && pos >= 0:
		h.remove(pos)
	case at == 0:
	case pos < 0:
		pos = h.items.add(timed{})
		h.place(pos, timed{at, i})
		h.up(pos)
	default:
		h.items.at(pos).at = at
		h.fix(pos)
	}
}

// min returns the earliest item; ok is false if there is none.
func (h *timeHeap) min() (t timed, ok bool) {
	if h.items.n == 0 {
		return timed{}, false
	}
	return *h.items.at(0), true
}

// has reports whether node i is in the heap.
func (h *timeHeap) has(i int32) bool { return h.nodes.at(i).pos[h.which] != 0 }

func (h *timeHeap) remove(pos int32) {
	h.nodes.at(h.items.at(pos).node).pos[h.which] = 0
	last := h.items.n - 1
	moved := *h.items.at(last)
	h.items.pop()
	if pos != last {
		h.place(pos, moved)
		h.fix(pos)
	}
}

func (h *timeHeap) place(pos int32, t timed) {
	*h.items.at(pos) = t
	h.nodes.at(t.node).pos[h.which] = pos + 1
}

func (h *timeHeap) fix(pos int32) {
	if !h.up(pos) {
		h.down(pos)
	}
}

func (h *timeHeap) up(pos int32) (moved bool) {
	t := *h.items.at(pos)
	for pos > 0 {
		parent := (pos - 1) / 2
		p := *h.items.at(parent)
		if p.at <= t.at {
			break
		}
		h.place(pos, p)
		pos, moved = parent, true
	}
	h.place(pos, t)
	return moved
}

func (h *timeHeap) down(pos int32) {
	t := *h.items.at(pos)
	for {
		child := 2*pos + 1
		if child >= h.items.n {
			break
		}
		if child+1 < h.items.n && h.items.at(child+1).at < h.items.at(child).at {
			child++
		}
		c := *h.items.at(child)
		if t.at <= c.at {
			break
		}
		h.place(pos, c)
		pos = child
	}
	h.place(pos, t)
}
