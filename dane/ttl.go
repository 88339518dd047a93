package dane

import "time"

// A minTTL is the least TTL of the answers added to it. The zero value has none,
// which differs from a TTL of zero.
type minTTL struct {
	ttl   time.Duration
	added bool
}

// add takes the TTL of one more answer into account.
func (m *minTTL) add(ttl time.Duration) {
	if !m.added || ttl < m.ttl {
		m.ttl, m.added = ttl, true
	}
}

// merge adds what was added to other.
func (m *minTTL) merge(other minTTL) {
	if other.added {
		m.add(other.ttl)
	}
}
