package cache

// A Usage tells how full the memory of a [Memory] or [Front] is, and what was
// forgotten for want of room since it was made.
type Usage struct {
	// Entries is how many there are, Most how many there can be, where they
	// are not so long that it is fewer.
	Entries, Most int

	// Expired policies, and those Unused for the longest among what is cheap to
	// learn again, made room. So did Policies that still counted and that nobody
	// else has: each of these domains is met unprotected the next time (RFC
	// 8461, Section 10.2).
	Expired, Unused, Policies uint64
}

// usage returns that of t.
func (t *table) usage() Usage {
	return Usage{Entries: len(t.index), Most: t.max, Expired: t.gone.expired, Unused: t.gone.expendable, Policies: t.gone.kept}
}

// Usage returns how full m is.
func (m *Memory) Usage() Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.table.usage()
}

// Usage returns how full the memory before the back is.
func (f *Front) Usage() Usage {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.table.usage()
}
