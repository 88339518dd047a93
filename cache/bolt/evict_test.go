package bolt

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"stsmap/cache"
	"stsmap/cache/cachetest"
)

// sizeOf is how many bytes an entry takes.
func sizeOf(e cache.Entry) int64 {
	value, err := encode(e)
	if err != nil {
		panic(err)
	}
	return entrySize([]byte(e.Domain), value)
}

// boundedStore is a store that evicts when makeRoom is called, and not by
// itself.
func boundedStore(t *testing.T, maxBytes int64) *Store {
	t.Helper()
	s, err := Open(newPath(t), Options{MaxBytes: maxBytes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for s.evictAt.Load() == 0 { // the check when it is opened
		time.Sleep(time.Millisecond)
	}
	s.evictAt.Store(1 << 60)
	return s
}

// makeRoom evicts, and returns how many policies went.
func makeRoom(t *testing.T, s *Store) int {
	t.Helper()
	policies, err := s.makeRoom(t.Context(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return policies
}

// usedBefore is the entry with a use that many hours ago, of an owner of its own.
func usedBefore(i, hours int) cache.Entry {
	e := entry(i)
	e.Used = e.Used.Add(-time.Duration(hours) * time.Hour)
	return e
}

// has reports whether there is an entry.
func has(t *testing.T, s *Store, domain string) bool {
	t.Helper()
	_, err := s.Get(t.Context(), domain)
	if err != nil && !errors.Is(err, cache.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// stored is how many bytes all entries take.
func stored(t *testing.T, s *Store) (total int64) {
	t.Helper()
	for r, err := range s.walk(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		total += r.size
	}
	return total
}

// TestEvict: expired policies and negative entries are evicted first, then the
// least recently used policies, and no more than makes room.
func TestEvict(t *testing.T) {
	s := boundedStore(t, 100*sizeOf(entry(100)))
	expired := usedBefore(100, 0)
	expired.Fetched, expired.Expires = expired.Fetched.Add(-8*24*time.Hour), expired.Expires.Add(-8*24*time.Hour)
	cachetest.Put(t, s, expired)
	for i := 101; i <= 120; i++ {
		cachetest.Put(t, s, usedBefore(i, 10+i%2)) // the odd ones go before the even ones
	}
	for i := 121; i <= 199; i++ {
		cachetest.Put(t, s, usedBefore(i, 0))
	}
	if n := makeRoom(t, s); n != 0 {
		t.Errorf("%d policies were evicted although there is room", n)
	}
	if err := s.Touch(t.Context(), map[string]time.Time{entry(101).Domain: time.Now()}); err != nil {
		t.Fatal(err)
	}
	cachetest.Put(t, s, usedBefore(200, 0), cache.Entry{Domain: "negative.example", Expires: time.Now().Add(time.Hour)})
	// There is room for 100, of which 10 are to be free: eleven of 101 go, and
	// the negative entry makes nearly one.
	if n := makeRoom(t, s); n != 10 {
		t.Errorf("%d policies were evicted", n)
	}
	for i := 100; i <= 200; i++ {
		gone := i <= 102 && i != 101 || i < 120 && i%2 == 1 && i != 101
		if has(t, s, entry(i).Domain) == gone {
			t.Errorf("%d: evicted is %t, want %t", i, !gone, gone)
		}
	}
	if has(t, s, "negative.example") {
		t.Error("the negative entry is there")
	}
	if bytes := stored(t, s); bytes != 90*sizeOf(entry(100)) {
		t.Errorf("entries take %d bytes", bytes)
	}
	if due, err := s.Due(t.Context(), time.Now().Add(48*time.Hour), time.Hour, 1000); err != nil || len(due) != 90 {
		t.Errorf("%d are due, %v", len(due), err)
	}
}

// TestFairShare: 400 policies of 64 KiB of one owner, all just used, cost no
// policy of the others, however long those were not used.
func TestFairShare(t *testing.T) {
	s := boundedStore(t, 5<<20)
	var honest []cache.Entry
	for i := range 50 {
		e := usedBefore(i, 1000)
		e.Domain = fmt.Sprintf("mail.honest%d.example", i)
		honest = append(honest, e)
	}
	err := s.file.Load().db.Update(func(tx *bbolt.Tx) error {
		for i := range 400 {
			e := entry(i)
			e.Domain = fmt.Sprintf("%d.attacker.co.uk", i)
			e.Policy += strings.Repeat("x", 64<<10-len(e.Policy))
			if err := save(tx, cache.Entry{}, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	cachetest.Put(t, s, honest...)
	if policies := makeRoom(t, s); policies < 320 || policies > 335 {
		t.Errorf("%d policies were evicted", policies)
	}
	for _, e := range honest {
		if !has(t, s, e.Domain) {
			t.Errorf("%s was evicted", e.Domain)
		}
	}
	if bytes := stored(t, s); bytes > 5<<20*9/10 || bytes < 4<<20 {
		t.Errorf("entries take %d bytes of 5 MiB", bytes)
	}
}

// TestOwners: the owners that have most are cut down to the same level, each
// from its least recently used on; owners below it lose nothing; and where all
// have little, the least recently used of all are evicted.
func TestOwners(t *testing.T) {
	of := func(owner string, i, hours int) cache.Entry {
		e := usedBefore(i, hours)
		e.Domain = fmt.Sprintf("%d.%s.example", i, owner)
		e.Policy += strings.Repeat("x", 16<<10-len(e.Policy))
		return e
	}
	s := boundedStore(t, 100*sizeOf(of("largest", 100, 0)))
	for i := range 80 {
		cachetest.Put(t, s, of("largest", 100+i, i))
	}
	for i := range 50 {
		cachetest.Put(t, s, of("large", 100+i, i))
	}
	for i := range 20 {
		cachetest.Put(t, s, of("small", 100+i, 900))
	}
	makeRoom(t, s)
	n := make(map[string]int)
	for r, err := range s.walk(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		n[r.owner()]++
	}
	if n["small.example"] != 20 || n["large.example"] < 33 || n["large.example"] > 35 || n["largest.example"] < 33 || n["largest.example"] > 35 {
		t.Errorf("left are %v", n)
	}
	for i := range 33 {
		if !has(t, s, of("largest", 100+i, 0).Domain) {
			t.Errorf("the %d. most recently used of the largest owner was evicted", i+1)
		}
	}
}

// TestManyOwners: owners that all have less than a share are evicted by use
// alone, and what owners with more have beyond that comes before.
func TestManyOwners(t *testing.T) {
	for _, c := range []struct {
		name          string
		sizes         []int64 // of owners; the first was not used for longest
		share, excess int64
		owners        []int64 // how much is cut off each; 0: nothing
		all           *threshold
	}{
		{"all small", []int64{90, 90, 90, 90}, 100, 100, nil, &threshold{1, 10}},
		{"one large", []int64{90, 90, 500, 90}, 100, 100, []int64{0, 0, 100, 0}, nil},
		{"two large", []int64{90, 300, 500, 90}, 100, 300, []int64{0, 50, 250, 0}, nil},
		{"not large enough", []int64{90, 150, 120, 90}, 100, 200, []int64{0, 50, 20, 0}, &threshold{1, 40}},
	} {
		plan := &evictionPlan{}
		all, large := make(histogram), make(map[string]histogram)
		for i, size := range c.sizes {
			large[fmt.Sprint(i)] = histogram{int64(i): size}
			all[int64(i)] = size
		}
		plan.cutOwners(all, large, c.share, c.excess)
		if (plan.all == nil) != (c.all == nil) || c.all != nil && *plan.all != *c.all {
			t.Errorf("%s: all %v, want %v", c.name, plan.all, c.all)
		}
		for i, cut := range c.owners {
			if got := plan.owners[fmt.Sprint(i)]; (got != nil) != (cut > 0) || got != nil && *got != (threshold{int64(i), cut}) {
				t.Errorf("%s: owner %d: %v, want %d", c.name, i, got, cut)
			}
		}
	}
}

// TestEvictUnreadable: rows that cannot be decoded are evicted first.
func TestEvictUnreadable(t *testing.T) {
	s := boundedStore(t, 10*sizeOf(entry(100)))
	for i := 100; i < 112; i++ {
		cachetest.Put(t, s, entry(i))
	}
	change(t, s, func(tx *bbolt.Tx) error {
		return errors.Join(entries(tx).Put([]byte(entry(100).Domain), make([]byte, 300)), entries(tx).Put([]byte(entry(111).Domain), make([]byte, 300)))
	})
	if n := makeRoom(t, s); n != 1 || !has(t, s, entry(105).Domain) {
		t.Errorf("%d policies were evicted", n)
	}
	change(t, s, func(tx *bbolt.Tx) error {
		if entries(tx).Get([]byte(entry(100).Domain)) != nil || entries(tx).Get([]byte(entry(111).Domain)) != nil {
			t.Error("an unreadable row is left")
		}
		return nil
	})
}

// TestEvictChanged: an entry that is replaced while entries are evicted stays.
func TestEvictChanged(t *testing.T) {
	s := mustOpen(t, newPath(t))
	cachetest.Put(t, s, usedBefore(100, 10), usedBefore(101, 10))
	var victims []victim
	for r := range s.walk(t.Context()) {
		victims = append(victims, victim{r.domain, r.sum, true})
	}
	cachetest.Put(t, s, usedBefore(100, 0))
	if n, err := s.evictRows(t.Context(), victims); n != 1 || err != nil || !has(t, s, entry(100).Domain) || has(t, s, entry(101).Domain) {
		t.Errorf("%d policies were evicted (%v)", n, err)
	}
}

// TestEvictWhen: the bound is checked when the store is opened, when the file
// has grown, and every hour.
func TestEvictWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		s := mustOpen(t, path)
		for i := 100; i < 150; i++ {
			cachetest.Put(t, s, entry(i))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		var evicted atomic.Int64
		s, err := Open(path, Options{MaxBytes: 40 * sizeOf(entry(100)), OnEvict: func(n int) { evicted.Add(int64(n)) }})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		took := func(when string, want int64) {
			t.Helper()
			synctest.Wait()
			if n := evicted.Swap(0); n != want {
				t.Errorf("%s: %d policies were evicted, want %d", when, n, want)
			}
		}
		took("opened", 14)
		for i := 200; i < 203; i++ {
			cachetest.Put(t, s, entry(i))
		}
		took("not full", 0)
		for i := 203; i < 240; i++ {
			cachetest.Put(t, s, entry(i))
		}
		synctest.Wait()
		if evicted.Swap(0) == 0 {
			t.Error("nothing was evicted when the file had grown")
		}
		s.evictAt.Store(1 << 40) // the file grows no more
		for i := 300; i < 350; i++ {
			cachetest.Put(t, s, entry(i))
		}
		took("just full", 0)
		time.Sleep(evictEvery)
		synctest.Wait()
		if n := evicted.Load(); n < 50 {
			t.Errorf("%d policies were evicted in an hour", n)
		}
	})
}
