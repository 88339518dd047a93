package cachetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"stsmap/cache"
)

// soon is longer than anything takes that has to happen by itself, on any
// machine.
const soon = 30 * time.Second

// TestShared tests what [cache.Shared] promises beyond [cache.Store], and what
// Store promises where two processes use one store. Each time open returns two
// handles on a new and empty one, with room for at least 2000 entries.
// TestShared closes them.
func TestShared(t *testing.T, open func(t *testing.T) (a, b cache.Shared)) {
	TestSharedQuiet(t, open)
	testShared(t, open, []sharedPromise{
		{"Watch tells what the other changes", watchTells},
		{"Watch tells deletions from changes", watchDeletions},
		{"Watch tells of a Replace as a deletion and a change", watchReplace},
		{"Watch does not tell of touches and leases", watchQuiet},
		{"Watch ends with the context", watchEnds},
		{"Watch ends with the store", watchCloses},
	})
}

// TestSharedQuiet is TestShared without what it tests of Watch: for a store that
// has no hints, which Watch permits.
func TestSharedQuiet(t *testing.T, open func(t *testing.T) (a, b cache.Shared)) {
	testShared(t, open, []sharedPromise{
		{"what one puts the other gets", sharedPut},
		{"Outdates is decided by what the other has put", sharedOutdates},
		{"concurrent Puts of both end with the latest Fetched", sharedConcurrentPuts},
		{"Due gives no entry to both", sharedDue},
		{"a claim is for one", claimOnce},
		{"a claim ends with a Put or a Delete of anyone", claimEnds},
		{"a claim ends with its Release, and no other", claimRelease},
		{"a claim ends by itself", claimLease},
		{"of many who claim at once one gets it", claimRace},
		{"a claim restrains nobody", claimNoLock},
	})
}

type sharedPromise struct {
	name string
	test func(t *testing.T, a, b cache.Shared)
}

func testShared(t *testing.T, open func(t *testing.T) (a, b cache.Shared), promises []sharedPromise) {
	for _, promise := range promises {
		t.Run(promise.name, func(t *testing.T) {
			a, b := open(t)
			t.Cleanup(func() {
				if err := errors.Join(a.Close(), b.Close()); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			promise.test(t, a, b)
		})
	}
}

func sharedPut(t *testing.T, a, b cache.Shared) {
	e := policy("example.com")
	Put(t, a, e)
	want(t, b, e)
	if err := b.Delete(t.Context(), e.Domain); err != nil {
		t.Fatal(err)
	}
	wantNone(t, a, e.Domain)
}

func sharedOutdates(t *testing.T, a, b cache.Shared) {
	late, early := policy("example.com"), policy("example.com")
	late.Fetched = late.Fetched.Add(time.Second)
	early.ID = "early"
	Put(t, a, late)
	if err := b.Put(t.Context(), early); !errors.Is(err, cache.ErrOutdated) {
		t.Fatalf("Put = %v, want ErrOutdated", err)
	}
	want(t, b, late)
}

func sharedConcurrentPuts(t *testing.T, a, b cache.Shared) {
	const writers, puts = 8, 20
	last := policy("example.com")
	last.Fetched = base().Add(writers * puts * time.Second)
	var writing sync.WaitGroup
	for w := range writers {
		s := []cache.Shared{a, b}[w%2]
		writing.Go(func() {
			for i := range puts {
				e := policy("example.com")
				e.Fetched = base().Add(time.Duration(i*writers+w+1) * time.Second)
				if err := s.Put(t.Context(), e); err != nil && !errors.Is(err, cache.ErrOutdated) {
					t.Errorf("Put: %v", err)
				}
			}
		})
	}
	writing.Wait()
	want(t, a, last)
	want(t, b, last)
}

func sharedDue(t *testing.T, a, b cache.Shared) {
	const n = 200
	for i := range n {
		Put(t, a, refreshing(fmt.Sprintf("%d.example", i), base()))
	}
	var mu sync.Mutex
	taken := make(map[string]int)
	var taking sync.WaitGroup
	for i := range 6 {
		s := []cache.Shared{a, b}[i%2]
		taking.Go(func() {
			for {
				some, err := s.Due(t.Context(), base().Add(time.Minute), time.Hour, 7)
				if err != nil {
					t.Errorf("Due: %v", err)
				}
				if len(some) == 0 {
					return
				}
				mu.Lock()
				for _, e := range some {
					taken[e.Domain]++
				}
				mu.Unlock()
			}
		})
	}
	taking.Wait()
	if len(taken) != n {
		t.Errorf("%d of %d entries were taken", len(taken), n)
	}
	for domain, times := range taken {
		if times != 1 {
			t.Errorf("%s was taken %d times", domain, times)
		}
	}
}

// claims fails unless a claim is granted, or refused.
func claims(t *testing.T, s cache.Shared, domain string, lease time.Duration, want bool) {
	t.Helper()
	ok, err := s.Claim(t.Context(), domain, lease)
	if err != nil || ok != want {
		t.Fatalf("Claim(%s) = %v, %v, want %v", domain, ok, err, want)
	}
}

func claimOnce(t *testing.T, a, b cache.Shared) {
	claims(t, a, "example.com", time.Hour, true)
	claims(t, b, "example.com", time.Hour, false)
	claims(t, a, "example.com", time.Hour, false)
	claims(t, b, "other.example", time.Hour, true)
}

func claimEnds(t *testing.T, a, b cache.Shared) {
	for _, s := range []cache.Shared{a, b} {
		for domain, end := range map[string]func(string) error{
			"put.example":    func(d string) error { return s.Put(t.Context(), policy(d)) },
			"absent.example": func(d string) error { return s.Put(t.Context(), none(d)) },
			"delete.example": func(d string) error { return s.Delete(t.Context(), d) },
		} {
			claims(t, a, domain, time.Hour, true)
			if err := end(domain); err != nil {
				t.Fatal(err)
			}
			claims(t, b, domain, time.Hour, true)
			if err := b.Release(t.Context(), domain); err != nil {
				t.Fatal(err)
			}
			if err := a.Delete(t.Context(), domain); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func claimRelease(t *testing.T, a, b cache.Shared) {
	if err := b.Release(t.Context(), "example.com"); err != nil {
		t.Fatalf("Release of no claim: %v", err)
	}
	claims(t, a, "example.com", time.Hour, true)
	if err := b.Release(t.Context(), "example.com"); err != nil {
		t.Fatalf("Release of another's claim: %v", err)
	}
	claims(t, b, "example.com", time.Hour, false)
	if err := a.Release(t.Context(), "example.com"); err != nil {
		t.Fatal(err)
	}
	claims(t, b, "example.com", time.Hour, true)
}

func claimLease(t *testing.T, a, b cache.Shared) {
	claims(t, a, "example.com", 50*time.Millisecond, true)
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		ok, err := b.Claim(t.Context(), "example.com", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			break
		}
		if time.Since(began) > soon {
			t.Fatal("the claim of another does not end")
		}
	}
	// The first owner is late: what it gives back is not its own any more.
	if err := a.Release(t.Context(), "example.com"); err != nil {
		t.Fatal(err)
	}
	claims(t, a, "example.com", time.Hour, false)
	claims(t, a, "short.example", 0, true) // counts as a millisecond
}

func claimRace(t *testing.T, a, b cache.Shared) {
	for i := range 20 {
		domain := fmt.Sprintf("%d.example", i)
		var mu sync.Mutex
		granted := 0
		var claiming sync.WaitGroup
		for w := range 8 {
			s := []cache.Shared{a, b}[w%2]
			claiming.Go(func() {
				ok, err := s.Claim(t.Context(), domain, time.Hour)
				if err != nil {
					t.Errorf("Claim: %v", err)
				}
				mu.Lock()
				defer mu.Unlock()
				if ok {
					granted++
				}
			})
		}
		claiming.Wait()
		if granted != 1 {
			t.Fatalf("%d claims were granted", granted)
		}
	}
}

func claimNoLock(t *testing.T, a, b cache.Shared) {
	claims(t, a, "example.com", time.Hour, true)
	wantNone(t, b, "example.com")
	if err := b.Touch(t.Context(), map[string]time.Time{"example.com": base()}); err != nil {
		t.Fatal(err)
	}
	wantNone(t, a, "example.com") // the claim is no entry
	for e, err := range b.All(t.Context()) {
		t.Fatalf("All: %v, %v", e, err)
	}
	Put(t, b, policy("example.com"))
	want(t, a, policy("example.com"))
}

// A watcher runs Watch and records its calls.
type watcher struct {
	done   chan struct{}
	cancel context.CancelFunc

	mu        sync.Mutex
	told      map[string]int  // calls for each domain
	deletions map[string]int  // how many of them told of a deletion
	deleted   map[string]bool // of the last call for each domain
}

// watch starts a Watch, and returns when it tells.
func watch(t *testing.T, s, other cache.Shared) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	w := &watcher{
		told: make(map[string]int), deletions: make(map[string]int), deleted: make(map[string]bool),
		done: make(chan struct{}), cancel: cancel,
	}
	go func() {
		defer close(w.done)
		s.Watch(ctx, func(domain string, deleted bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.told[domain]++
			if w.deleted[domain] = deleted; deleted {
				w.deletions[domain]++
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-w.done
	})
	// From when it begins is all that is promised, and a test cannot see when.
	e := none("begins.example")
	for began := time.Now(); w.times(e.Domain) == 0; time.Sleep(20 * time.Millisecond) {
		Put(t, other, e)
		if time.Since(began) > soon {
			t.Fatal("Watch does not begin")
		}
	}
	return w
}

// times is how often a domain was told.
func (w *watcher) times(domain string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.told[domain]
}

func (w *watcher) wait(t *testing.T, domain string, more int) {
	t.Helper()
	for began := time.Now(); w.times(domain) < more; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > soon {
			t.Fatalf("%s was told %d times, want %d", domain, w.times(domain), more)
		}
	}
}

func watchTells(t *testing.T, a, b cache.Shared) {
	w := watch(t, a, b)
	Put(t, b, policy("put.example"), none("absent.example"))
	w.wait(t, "put.example", 1)
	w.wait(t, "absent.example", 1)
	Put(t, b, policy("put.example"))
	w.wait(t, "put.example", 2)
	if err := b.Delete(t.Context(), "put.example"); err != nil {
		t.Fatal(err)
	}
	w.wait(t, "put.example", 3)
	Put(t, a, policy("own.example"))
	w.wait(t, "own.example", 1)
	for i := range 500 { // all of many
		Put(t, b, none(fmt.Sprintf("%d.example", i)))
	}
	for i := range 500 {
		w.wait(t, fmt.Sprintf("%d.example", i), 1)
	}
}

func watchDeletions(t *testing.T, a, b cache.Shared) {
	// The store itself removes this one while Watch runs: that is no deletion.
	expired := none("expired.example")
	expired.Expires, expired.Checked = time.Now().Add(-3*time.Hour), time.Now().Add(-4*time.Hour)
	Put(t, b, policy("deleted.example"), policy("back.example"), policy("changed.example"), expired)
	w := watch(t, a, b)
	Put(t, b, policy("changed.example"), none("new.example"))
	for _, domain := range []string{"deleted.example", "back.example", "unknown.example"} {
		if err := b.Delete(t.Context(), domain); err != nil {
			t.Fatal(err)
		}
	}
	Put(t, b, policy("back.example"))
	takeDue(t, b, base(), time.Hour, 1)
	for e, err := range b.All(t.Context()) {
		if err != nil {
			t.Fatal(e, err)
		}
	}
	Put(t, b, none("last.example"))
	w.wait(t, "last.example", 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	for domain, deleted := range map[string]bool{
		"deleted.example": true, "unknown.example": true, "back.example": false, "changed.example": false,
		"new.example": false, "last.example": false, "expired.example": false, "": false,
	} {
		if w.deleted[domain] != deleted {
			t.Errorf("Watch says of %q deleted = %v, want %v", domain, w.deleted[domain], deleted)
		}
	}
	if w.told["deleted.example"] == 0 || w.told["unknown.example"] == 0 || w.told["changed.example"] == 0 {
		t.Errorf("calls: %v", w.told)
	}
}

func watchReplace(t *testing.T, a, b cache.Shared) {
	wrong := policy("wrong.example")
	earlier := wrong
	earlier.Fetched = wrong.Fetched.Add(-time.Hour)
	Put(t, b, wrong, policy("right.example"))
	w := watch(t, a, b)
	before := w.times("wrong.example")
	if err := b.Replace(t.Context(), earlier, wrong.Fetched); err != nil {
		t.Fatal(err)
	}
	if err := b.Replace(t.Context(), policy("right.example"), base().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	Put(t, b, none("last.example"))
	w.wait(t, "last.example", 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := w.told["wrong.example"] - before; n < 2 || w.deletions["wrong.example"] != 1 || w.deleted["wrong.example"] {
		t.Errorf("of what was replaced Watch told %d times, %d of them as a deletion, the last one: %v", n, w.deletions["wrong.example"], w.deleted["wrong.example"])
	}
	if w.deletions["right.example"] != 0 {
		t.Error("Watch told of a Put as a deletion")
	}
}

func watchQuiet(t *testing.T, a, b cache.Shared) {
	Put(t, b, refreshing("touched.example", base()))
	w := watch(t, a, b)
	before := w.times("touched.example")
	for i := range 50 {
		if err := b.Touch(t.Context(), map[string]time.Time{"touched.example": base().Add(time.Duration(i) * time.Hour)}); err != nil {
			t.Fatal(err)
		}
		takeDue(t, b, base().Add(time.Duration(i)*2*time.Hour), time.Hour, 1)
	}
	Put(t, b, none("last.example"))
	w.wait(t, "last.example", 1)
	// A change may be told more often than it happened, but not that often.
	if got := w.times("touched.example"); got > before+5 {
		t.Errorf("touches and leases were told %d times", got-before)
	}
}

func watchEnds(t *testing.T, a, b cache.Shared) {
	w := watch(t, a, b)
	w.cancel()
	select {
	case <-w.done:
	case <-time.After(soon):
		t.Fatal("Watch goes on although its context has ended")
	}
}

func watchCloses(t *testing.T, a, b cache.Shared) {
	w := watch(t, a, b)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.done:
	case <-time.After(soon):
		t.Fatal("Watch goes on although the store was closed")
	}
}
