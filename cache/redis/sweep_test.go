package redis

import (
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"stsmap/cache"
	"stsmap/cache/cachetest"
)

// TestExpires: the server removes an entry an hour after it expired, and Due its
// rows.
func TestExpires(t *testing.T) {
	s := startServer(t)
	store := mustOpen(t, s.url())
	e := entry(1)
	e.Expires, e.Refresh = time.Now().Add(time.Minute), time.Now().Add(2*time.Hour)
	cachetest.Put(t, store, e)
	left, _ := time.ParseDuration(s.cli("PTTL", "{stsmap}:e:1.example") + "ms")
	if left < 2*time.Hour+50*time.Minute || left > 3*time.Hour+10*time.Minute {
		t.Errorf("it is kept for %s", left)
	}
	old := entry(2)
	old.Expires, old.Refresh = time.Now().Add(-100*time.Hour), time.Now().Add(-time.Hour)
	cachetest.Put(t, store, old)
	get(t, store, old) // not forgotten at once
	s.cli("DEL", "{stsmap}:e:2.example")
	for e, err := range store.All(t.Context()) {
		if err != nil || e.Domain != "1.example" {
			t.Errorf("%s, %v", e.Domain, err)
		}
	}
	if due, err := store.Due(t.Context(), time.Now(), time.Minute, 10); err != nil || len(due) != 0 {
		t.Errorf("%v, %v", due, err)
	}
	if all := s.cli("ZRANGE", "{stsmap}:domains", "0", "-1") + s.cli("ZRANGE", "{stsmap}:due", "0", "-1"); all != "1.example1.example" {
		t.Errorf("rows after Due: %q", all)
	}
}

// TestSweep: Due removes the rows of entries that have expired, a bounded number
// at a time, in turn, and by several daemons; those of others stay.
func TestSweep(t *testing.T) {
	s := startServer(t)
	stores := []*Store{mustOpen(t, s.url()), mustOpen(t, s.url())}
	pipe := stores[0].client.Pipeline()
	const all, lasting = 4000, 100
	for i := range all {
		// Absences, which are never due: only a sweep finds their rows.
		e := cache.Entry{Domain: entry(i).Domain, FailedID: "A", Failures: 1, Expires: time.Now().Add(time.Hour)}
		if i%(all/lasting) == 0 {
			cachetest.Put(t, stores[0], e)
		} else {
			pipe.ZAdd(t.Context(), stores[0].keys.domains(), redis.Z{Member: e.Domain})
		}
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows := func() int64 { return stores[0].client.ZCard(t.Context(), stores[0].keys.domains()).Val() }
	due := func(store *Store) {
		t.Helper()
		if taken, err := store.Due(t.Context(), time.Now(), time.Minute, 10); err != nil || len(taken) != 0 {
			t.Fatal(taken, err)
		}
	}
	due(stores[0])
	after := rows()
	if after >= all || after < all-5*256 {
		t.Errorf("%d rows of %d are left by the first sweep", after, all)
	}
	due(stores[0])
	if n := rows(); n != after {
		t.Errorf("%d rows are left by a Due at once, want %d", n, after)
	}
	for range all/256 + 2 {
		for _, store := range stores {
			s.cli("DEL", store.keys.swept()) // as if ten seconds were over
			due(store)
		}
	}
	if n := rows(); n != lasting {
		t.Errorf("%d rows are left, want %d", n, lasting)
	}
	// And again from the beginning.
	stores[0].client.Del(t.Context(), stores[0].keys.entry(entry(0).Domain))
	for range all/256 + 2 {
		s.cli("DEL", stores[0].keys.swept())
		due(stores[0])
	}
	if n := rows(); n != lasting-1 {
		t.Errorf("%d rows are left, want %d", n, lasting-1)
	}
}

// TestSweepFails: a failed sweep is reported, and Due returns what it took.
func TestSweepFails(t *testing.T) {
	s := startServer(t)
	var told []string
	store, err := Open(t.Context(), s.url(), Options{OnError: func(op string, err error) { told = append(told, op) }})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	cachetest.Put(t, store, entry(1))
	s.cli("SET", "{stsmap}:domains", "x")
	if taken, err := store.Due(t.Context(), entry(1).Refresh, time.Minute, 10); len(taken) != 1 || err != nil {
		t.Error(taken, err)
	}
	if !slices.Equal(told, []string{"sweep"}) {
		t.Errorf("told %q", told)
	}
}
