package redis

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// sweepEvery is how often Due looks for rows of entries that have expired,
	// sweepPage how many rows it then looks at in one step, and sweepRounds how
	// many steps it makes at most, as long as it finds any.
	sweepEvery  = 10 * time.Second
	sweepPage   = 256
	sweepRounds = 5
)

// A sweeper goes through the domains, a page from time to time, and begins again
// at the end. Each daemon has its own: that two sweep the same is no harm.
type sweeper struct {
	mu   sync.Mutex
	last time.Time // when a sweep began; zero: never
	from string    // where the next begins, as ZRANGE BYLEX has it; empty: anew
}

// begin reports whether it is time, and where to go on.
func (s *sweeper) begin() (from string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if !s.last.IsZero() && now.Sub(s.last) < sweepEvery {
		return "", false
	}
	s.last = now
	return s.from, true
}

// end keeps where the next sweep goes on.
func (s *sweeper) end(from string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from = from
}

// sweepRows removes rows of entries that have expired, if it is time to look for
// some: the server removes an entry by itself, and leaves the rows.
func (s *Store) sweepRows(ctx context.Context) error {
	from, ok := s.sweeper.begin()
	if !ok {
		return nil
	}
	for range sweepRounds {
		last, gone, err := s.sweepPageAt(ctx, from)
		if err != nil {
			return err
		}
		from = last
		s.sweeper.end(from)
		if from == "" || gone == 0 {
			return nil
		}
	}
	return nil
}

// sweepPageAt looks at one page, and returns where the next one begins, empty at
// the end, and how many rows led nowhere.
func (s *Store) sweepPageAt(ctx context.Context, from string) (next string, gone int64, err error) {
	if from == "" {
		from = "-"
	}
	answer, err := s.sweepMany.Run(ctx, s.client, []string{s.keys.domains(), s.keys.due()}, from, sweepPage, s.keys.entry("")).Slice()
	if err != nil {
		return "", 0, err
	}
	if len(answer) != 2 {
		return "", 0, errors.New("odd answer of a script")
	}
	next, _ = answer[0].(string)
	gone, _ = answer[1].(int64)
	return next, gone, nil
}
