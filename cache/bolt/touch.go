package bolt

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"go.etcd.io/bbolt"

	"stsmap/cache"
)

const (
	// touchMax bounds how many touches wait in memory, and touchBatch how many
	// are written along with one commit.
	touchMax   = 8192
	touchBatch = 512
	touchEvery = time.Minute
)

// touchAll writes the touches.
func (s *Store) touchAll(tx *bbolt.Tx, touches map[string]time.Time, wrote bool) (bool, error) {
	for domain, used := range touches {
		e, ok := load(tx, domain)
		if !ok || touched(e, used) == e {
			continue
		}
		value, err := encode(touched(e, used))
		if err != nil {
			continue // a time that cannot be written
		}
		if err := s.set(tx, domain, value); err != nil {
			return false, fmt.Errorf("%w: %w", errApply, err)
		}
		wrote = true
	}
	return wrote, nil
}

// flush writes all touches that wait.
func (s *Store) flush() error {
	for {
		s.mu.Lock()
		n := len(s.waiting)
		s.mu.Unlock()
		if n == 0 {
			return nil
		}
		touches := s.someTouches()
		err := s.together(nil, touches)
		if errors.Is(err, errApply) {
			s.written(touches) // never to be; the others may
			continue
		}
		if err != nil {
			return err
		}
	}
}

// Touch implements [cache.Store]. With thousands of touches waiting, because
// the disk does not take them, further ones are forgotten.
func (s *Store) Touch(ctx context.Context, uses map[string]time.Time) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for domain, used := range uses {
		had, ok := s.waiting[domain]
		if ok && !used.After(had) || !ok && len(s.waiting) >= touchMax {
			continue
		}
		s.waiting[domain] = used
	}
	return nil
}

// touch returns the touch of the domain that waits, or the zero time.
func (s *Store) touch(domain string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting[domain]
}

// touches returns all touches that wait.
func (s *Store) touches() map[string]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.waiting)
}

// touched returns e with Used moved forward to used.
func touched(e cache.Entry, used time.Time) cache.Entry {
	if used.UnixMilli() > e.Used.UnixMilli() {
		e.Used = time.UnixMilli(used.UnixMilli()).UTC()
	}
	return e
}

// someTouches returns touches to be written; they stay where they are, for Get
// to see, until they are.
func (s *Store) someTouches() map[string]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) <= touchBatch {
		return maps.Clone(s.waiting)
	}
	some := make(map[string]time.Time, touchBatch)
	for domain, used := range s.waiting {
		if len(some) == touchBatch {
			break
		}
		some[domain] = used
	}
	return some
}

// written forgets touches that are on disk, or cannot be.
func (s *Store) written(touches map[string]time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for domain, used := range touches {
		if s.waiting[domain].Equal(used) {
			delete(s.waiting, domain)
		}
	}
}
