package cache

// flights knows which domains a Front is asking its back about, so that of
// operations that overlap none takes what it was told for the latest. The
// alternative, a lock for each domain, would be held across I/O.
type flights struct {
	domains map[string]*flight
	dues    int    // Due now under way, which may write to any domain
	dueGen  uint64 // counts the beginnings of Due
}

type flight struct {
	users   int    // operations under way
	writers int    // of which may write
	gen     uint64 // counts the beginnings of writers
}

// A visit is what an operation has to remember from begin to end.
type visit struct {
	write       bool
	solo, noDue bool // when it began, nothing else was writing
	gen, dueGen uint64
}

// An overlap says whether something was written during an operation.
type overlap uint8

const (
	overlapNone overlap = iota
	overlapDue          // no more than the Refresh, by a Due
	overlapSame         // by an operation on the same domain
)

func (f *flights) begin(domain string, write bool) visit {
	fl := f.domains[domain]
	if fl == nil {
		fl = new(flight)
		f.domains[domain] = fl
	}
	v := visit{write: write, solo: fl.writers == 0, noDue: f.dues == 0, dueGen: f.dueGen}
	fl.users++
	if write {
		fl.writers++
		fl.gen++
	}
	v.gen = fl.gen
	return v
}

func (f *flights) end(domain string, v visit) overlap {
	fl := f.domains[domain]
	fl.users--
	if v.write {
		fl.writers--
	}
	if fl.users == 0 {
		delete(f.domains, domain)
	}
	switch {
	case !v.solo || v.gen != fl.gen:
		return overlapSame
	case !v.noDue || v.dueGen != f.dueGen:
		return overlapDue
	}
	return overlapNone
}

// writing reports whether somebody may write to the domain now, but for a Due.
func (f *flights) writing(domain string) bool {
	fl := f.domains[domain]
	return fl != nil && fl.writers > 0
}

func (f *flights) beginDue() {
	f.dues++
	f.dueGen++
}

func (f *flights) endDue() { f.dues-- }
