package bolt

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"stsmap/cache"
)

// crowdedStore is a store with room for n entries like those of entry, and the
// numbers of policies that it forgot.
func crowdedStore(t *testing.T, path string, n int64) (*Store, <-chan int) {
	t.Helper()
	forgotten := make(chan int, 1000)
	s, err := Open(path, Options{Most: n * sizeOf(entry(100)), OnForgotten: func(n int) { forgotten <- n }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, forgotten
}

// usedBefore is the entry with a use that many hours ago.
func usedBefore(i, hours int) cache.Entry {
	e := entry(i)
	e.Used = e.Used.Add(-time.Duration(hours) * time.Hour)
	return e
}

// has reports whether there is an entry.
func has(t *testing.T, s *Store, i int) bool {
	t.Helper()
	_, err := s.Get(t.Context(), entry(i).Domain)
	if err != nil && !errors.Is(err, cache.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// TestBound: what does not count goes first, then what was not used for
// longest, and no more of it than makes room.
func TestBound(t *testing.T) {
	s, forgotten := crowdedStore(t, newPath(t), 100)
	over := usedBefore(100, 0)
	over.Fetched, over.Expires = over.Fetched.Add(-8*24*time.Hour), over.Expires.Add(-8*24*time.Hour)
	put(t, s, over)
	for i := 101; i <= 120; i++ {
		put(t, s, usedBefore(i, 10+i%2)) // the odd ones go before the even ones
	}
	for i := 121; i <= 199; i++ {
		put(t, s, usedBefore(i, 0))
	}
	// A touch on its way to the disk counts.
	if err := s.Touch(t.Context(), map[string]time.Time{entry(101).Domain: time.Now()}); err != nil {
		t.Fatal(err)
	}
	put(t, s, usedBefore(200, 0))
	// There is room for 100, of which 10 are to be spare: eleven of 101 go.
	if n := <-forgotten; n != 10 {
		t.Errorf("%d policies were forgotten", n)
	}
	for i := 100; i <= 200; i++ {
		gone := i <= 102 && i != 101 || i < 120 && i%2 == 1 && i != 101
		if has(t, s, i) == gone {
			t.Errorf("%d: forgotten is %t, want %t", i, !gone, gone)
		}
	}
	if took := taken(t, s); took != 90*sizeOf(entry(100)) {
		t.Errorf("entries take %d bytes", took)
	}
	if due, err := s.Due(t.Context(), time.Now().Add(48*time.Hour), time.Hour, 1000); err != nil || len(due) != 90 {
		t.Errorf("%d are due, %v", len(due), err)
	}
}

// taken is the count in the file.
func taken(t *testing.T, s *Store) (n int64) {
	t.Helper()
	err := s.view(func(tx *bbolt.Tx) error {
		n = int64(binary.BigEndian.Uint64(tx.Bucket([]byte(bucketMeta)).Get([]byte(keyTaken))))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestTaken: what entries take is counted in whatever way they come and go, and
// the count survives.
func TestTaken(t *testing.T) {
	path, one := newPath(t), sizeOf(entry(100))
	s := mustOpen(t, path)
	for range 3 {
		put(t, s, entry(100), entry(101), entry(102))
	}
	if err := s.Delete(t.Context(), entry(101).Domain); err != nil {
		t.Fatal(err)
	}
	if err := s.Touch(t.Context(), map[string]time.Time{entry(100).Domain: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Due(t.Context(), time.Now().Add(48*time.Hour), time.Hour, 1000); err != nil {
		t.Fatal(err)
	}
	old := entry(100)
	old.Fetched = old.Fetched.Add(-time.Hour)
	if err := s.Put(t.Context(), old); !errors.Is(err, cache.ErrOutdated) {
		t.Fatal(err)
	}
	if n := taken(t, s); n != 2*one {
		t.Errorf("%d bytes, want %d", n, 2*one)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, forgotten := crowdedStore(t, path, 10)
	for i := 110; i < 119; i++ {
		put(t, s, entry(i))
	}
	if n := <-forgotten; n != 2 {
		t.Errorf("%d policies were forgotten", n)
	}
}

// TestTakenSpoiled: a count that somebody else has spoiled costs no policy.
func TestTakenSpoiled(t *testing.T) {
	path := newPath(t)
	s := mustOpen(t, path)
	put(t, s, entry(100))
	change(t, s, func(tx *bbolt.Tx) error { return noteTaken(tx, 1<<40) })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, _ = crowdedStore(t, path, 100)
	for i := 101; taken(t, s) > 1<<39; i++ {
		put(t, s, entry(101+i%8))
	}
	if !has(t, s, 100) {
		t.Error("a policy was forgotten")
	}
}
