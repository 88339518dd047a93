package dane

import "time"

// A lifetime is the least TTL of what was learned. The zero lifetime is that of
// nothing: a TTL of zero is something else.
type lifetime struct {
	ttl     time.Duration
	learned bool
}

// learn takes in one more answer.
func (l *lifetime) learn(ttl time.Duration) {
	if !l.learned || ttl < l.ttl {
		l.ttl, l.learned = ttl, true
	}
}

// and is the lifetime of all that l and m are about.
func (l lifetime) and(m lifetime) lifetime {
	if m.learned {
		l.learn(m.ttl)
	}
	return l
}
