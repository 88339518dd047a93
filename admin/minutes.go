package admin

import (
	"context"
	"sync"
	"time"
)

// keptMinutes is how far back answers are counted by the minute: a day.
const keptMinutes = 24 * 60

// A tally is how many answers there were since the start, by result.
type tally [results]uint64

// minus is what was added since earlier.
func (t tally) minus(earlier tally) tally {
	for i := range t {
		t[i] -= earlier[i]
	}
	return t
}

// sum is that of the results that are about domains: keys that have no policy
// domain say nothing of mail.
func (t tally) sum() (n uint64) {
	for r, v := range t {
		if result(r) != invalid {
			n += v
		}
	}
	return n
}

// Minutes counts the answers in each minute of the last day, in a constant
// amount of memory. The minutes are those of the monotonic clock: setting the
// clock moves none of them.
type Minutes struct {
	total func() tally

	mu    sync.Mutex
	marks [keptMinutes + 1]tally // totals at the end of each minute; a ring
	n     int                    // marks that were ever made
}

// NewMinutes returns the Minutes of what x counts. It has to Run.
func NewMinutes(x *Metrics) *Minutes {
	m := &Minutes{total: x.total}
	m.mark()
	return m
}

// Run marks the minutes until ctx ends.
func (m *Minutes) Run(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.mark()
		}
	}
}

// mark ends a minute.
func (m *Minutes) mark() {
	t := m.total()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.marks[m.n%len(m.marks)] = t
	m.n++
}

// last returns the answers of the last n parts of the day, each of so many
// minutes, the latest last; the latest part is under way, and shorter. Parts from
// before the daemon began are empty.
func (m *Minutes) last(n, minutes int) []tally {
	now := m.total()
	m.mu.Lock()
	defer m.mu.Unlock()
	parts := make([]tally, n)
	for i := range n {
		end := now
		if back := i * minutes; i > 0 {
			end = m.at(back - 1)
		}
		parts[n-1-i] = end.minus(m.at((i+1)*minutes - 1))
	}
	return parts
}

// at returns the total as many whole minutes ago as there have been marks since;
// the first one there is if that is too long ago. The lock must be held.
func (m *Minutes) at(back int) tally {
	i := max(m.n-1-back, 0, m.n-len(m.marks))
	return m.marks[i%len(m.marks)]
}

// total is how many answers there were, of all zones.
func (x *Metrics) total() (t tally) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, z := range x.zones {
		for r := range t {
			t[r] += z.answers[r].Load()
		}
	}
	return t
}
