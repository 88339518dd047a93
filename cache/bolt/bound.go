package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"stsmap/cache"
)

// How many bytes entries take is counted as they are written, in the same
// transaction. Asking bbolt instead would not do: deleting entries here and
// there leaves pages that are half empty, so that what they took is not to be
// seen in the number of pages.
const (
	// rowBytes is what belongs to an entry beyond its key and value: its row in
	// the index of what is due, without the domain, and the headers of both.
	rowBytes = 8 + 2*16
	// spare is which part of the room, in percent, is made when there is none
	// left, so that it is not looked for each time.
	spare = 10
	// forgetStep is how many entries are forgotten in one transaction.
	forgetStep = 256
)

// footprint is how many bytes an entry takes.
func footprint(domain string, value []byte) int64 {
	if value == nil {
		return 0
	}
	return int64(2*len(domain) + len(value) + rowBytes)
}

// set writes the value of a domain, or removes it if that is nil, and counts.
// Only the writer may call it.
func (s *Store) set(tx *bbolt.Tx, domain string, value []byte) error {
	b, key := entries(tx), []byte(domain)
	change := footprint(domain, value) - footprint(domain, b.Get(key))
	var err error
	if value == nil {
		err = b.Delete(key)
	} else {
		err = b.Put(key, value)
	}
	if err == nil {
		s.taken += change
	}
	return err
}

// noteTaken has the count survive.
func noteTaken(tx *bbolt.Tx, taken int64) error {
	return tx.Bucket([]byte(bucketMeta)).Put([]byte(keyTaken), binary.BigEndian.AppendUint64(nil, uint64(taken)))
}

// readTaken reads the count. Whoever edits the file by other means spoils it:
// makeRoom then puts it right, which is no reason to read all entries at every
// start.
func (s *Store) readTaken() error {
	return s.view(func(tx *bbolt.Tx) error {
		if v := tx.Bucket([]byte(bucketMeta)).Get([]byte(keyTaken)); len(v) == 8 {
			s.taken = int64(min(binary.BigEndian.Uint64(v), math.MaxInt64))
		}
		return nil
	})
}

// crowd has room made, without waiting for it: nobody's Put is held up by what
// others have written.
func (s *Store) crowd() {
	select {
	case s.crowded <- struct{}{}:
	default: // it will be
	}
}

// keep makes room until Close.
func (s *Store) keep() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for {
		select {
		case <-s.quit:
			return
		case <-s.crowded:
		}
		// An error is that of a disk that takes nothing, which those who Put
		// hear; the next of them that succeeds comes back here.
		if n, err := s.makeRoom(ctx, time.Now()); n > 0 && err == nil && s.options.OnForgotten != nil {
			s.options.OnForgotten(n)
		}
	}
}

// worth orders entries: those that are worth least are forgotten first. It is
// the hour of the last use, and before all hours for what does not count.
func worth(e cache.Entry, now time.Time) int64 {
	if e.Policy == "" || now.After(e.Expires) {
		return math.MinInt64
	}
	return e.Used.Unix() / 3600
}

// A bar is how little an entry must be worth to be forgotten.
type bar struct {
	worth int64 // what is worth less goes
	rest  int64 // and as many bytes of what is worth as much
}

// makeRoom forgets what is worth least, until there is spare room. It returns
// how many of that were policies that still counted.
func (s *Store) makeRoom(ctx context.Context, now time.Time) (policies int, err error) {
	b, total, err := s.bar(ctx, now)
	if err != nil {
		return 0, err
	}
	if b == nil { // the file was edited by other means
		return 0, s.write(ctx, func(*bbolt.Tx) (bool, error) { s.taken = total; return true, nil })
	}
	var victims []string
	for e, err := range s.All(ctx) {
		if err != nil {
			return policies, err
		}
		if !b.under(e, now) {
			continue
		}
		if victims = append(victims, e.Domain); len(victims) == forgetStep {
			n, err := s.forget(ctx, victims, b.worth, now)
			if policies += n; err != nil {
				return policies, err
			}
			victims = victims[:0]
		}
	}
	n, err := s.forget(ctx, victims, b.worth, now)
	return policies + n, err
}

// under reports whether e is to be forgotten. It takes rest from the bar.
func (b *bar) under(e cache.Entry, now time.Time) bool {
	switch w := worth(e, now); {
	case w != b.worth:
		return w < b.worth
	case b.rest > 0:
		b.rest -= sizeOf(e)
		return true
	}
	return false
}

// bar returns the bar that leaves spare room, or nil if there is that much, and
// how many bytes all entries take. Uses are known to the hour, so that a table
// of them is short however many entries there are.
func (s *Store) bar(ctx context.Context, now time.Time) (b *bar, total int64, err error) {
	taken := make(map[int64]int64)
	for e, err := range s.All(ctx) {
		if err != nil {
			return nil, 0, err
		}
		n := sizeOf(e)
		taken[worth(e, now)] += n
		total += n
	}
	excess := total - (s.options.Most - s.options.Most/100*spare)
	for _, w := range slices.Sorted(maps.Keys(taken)) {
		if excess <= 0 {
			break
		}
		b = &bar{w, excess}
		excess -= taken[w]
	}
	return b, total, nil
}

// sizeOf is the footprint of an entry.
func sizeOf(e cache.Entry) int64 {
	value, err := encode(e)
	if err != nil {
		return 0 // it cannot have been stored
	}
	return footprint(e.Domain, value)
}

// forget deletes the domains, in one transaction, unless they have become worth
// more meanwhile. It returns how many policies that still counted were among
// them.
func (s *Store) forget(ctx context.Context, domains []string, worst int64, now time.Time) (policies int, err error) {
	if len(domains) == 0 {
		return 0, nil
	}
	err = s.write(ctx, func(tx *bbolt.Tx) (bool, error) {
		policies = 0 // it may be the second attempt
		for _, domain := range domains {
			old, _ := load(tx, domain)
			w := worth(touched(old, s.touch(domain)), now)
			if w > worst {
				continue
			}
			if w > math.MinInt64 {
				policies++
			}
			if err := errors.Join(unindex(tx, old), s.set(tx, domain, nil)); err != nil {
				return true, err
			}
		}
		return true, nil
	})
	return policies, err
}
