package policy

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/cache"
)

// TestFaultFailureOfOtherHost: an engine takes over a failed download that
// another host has stored: before the retry time it queries neither the record
// nor the policy, and it does not change the entry.
func TestFaultFailureOfOtherHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newSharedTrials(t, 2)
		defer all[0].close()
		defer all[1].close()
		x, n := all[0], all[0].net.of("a.example")
		if err := n.setPolicy([]string{"badcert"}); err != nil {
			t.Fatal(err)
		}
		x.want("a.example", None, "")
		x.wantAsked("a.example", 1, 1)
		before := x.stored("a.example")
		if before.FailedID != "A" {
			t.Fatalf("stored %+v", before)
		}
		for range 4 {
			time.Sleep(70 * time.Second) // longer than a copy is used
			for _, x := range all {
				x.wantAtOnce("a.example", None, "")
			}
		}
		x.wantAsked("a.example", 0, 0)
		if after := x.stored("a.example"); after != before {
			t.Errorf("stored %+v, before %+v", after, before)
		}
		time.Sleep(time.Minute) // now it may be tried again
		all[1].want("a.example", None, "")
		x.wantAsked("a.example", 1, 1)
	})
}

// TestFailureAfterOtherHost: a failed download is remembered although the store has
// what another host has downloaded since the policy that was known here.
func TestFailureAfterOtherHost(t *testing.T) {
	const name = "a.example"
	synctest.Test(t, func(t *testing.T) {
		x := newSharedTrials(t, 1)[0]
		defer x.close()
		n := x.net.of(name)
		x.want(name, Enforce, "A")
		time.Sleep(10 * time.Minute)
		later := x.stored(name)
		later.Fetched, later.Checked = time.Now(), time.Now()
		if err := x.store.handle.Put(t.Context(), later); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := n.setPolicy([]string{"badcert"}); err != nil {
			t.Fatal(err)
		}
		n.set(func(n *fakeDomain) { n.delay = 5 * time.Second })
		x.store.fail(OpGet) // it is not read until the download is under way
		time.AfterFunc(3*time.Second, func() { x.store.fail() })
		if _, err := x.Retrieve(t.Context(), name, true); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		e, err := x.Entry(t.Context(), name)
		if err != nil || !e.Fetched.Equal(later.Fetched) || e.FailedID != "A" || e.Failures != 1 {
			t.Errorf("known is %+v, %v", e, err)
		}
	})
}

// TestFaultOlderPolicy: a policy never gives way to one that was downloaded
// earlier: not to one that waits to be saved, not to one of a store that has lost
// what it had acknowledged, and not to one that is imported.
func TestFaultOlderPolicy(t *testing.T) {
	const name = "a.example"
	week := 7 * 24 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		x := newSharedTrials(t, 1)[0]
		defer x.close()
		first := time.Now()
		x.store.fail(OpPut)
		x.want(name, Enforce, "A") // waits to be saved
		if u := x.Usage(); u.Unsaved != 1 {
			t.Errorf("%d policies wait to be saved", u.Unsaved)
		}
		time.Sleep(time.Second)
		x.put(storedPolicy(name, "B", "enforce", time.Now(), week))
		x.store.fail()
		x.run()
		time.Sleep(2 * refreshEvery)
		x.wantAtOnce(name, Enforce, "B")
		if e := x.stored(name); e.ID != "B" {
			t.Errorf("%q is stored", e.ID)
		}
		// The store fails over to a copy that is older.
		if err := errors.Join(x.net.of(name).setRecord([]string{"B"}), x.net.of(name).setPolicy([]string{"badcert"})); err != nil {
			t.Fatal(err)
		}
		later := x.stored(name)
		if err := x.store.Memory.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		x.put(storedPolicy(name, "A", "none", first, week))
		x.hint(name, false)
		x.wantAtOnce(name, Enforce, "B")
		time.Sleep(2 * time.Minute)
		x.wantAtOnce(name, Enforce, "B")
		if e := x.stored(name); e.ID != "B" || !e.Fetched.Equal(later.Fetched) {
			t.Errorf("%q, downloaded %s, is stored", e.ID, e.Fetched)
		}
		if err := x.store.Memory.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if err := x.Import(t.Context(), storedPolicy(name, "A", "none", first, week)); !errors.Is(err, cache.ErrOutdated) {
			t.Errorf("imported: %v", err)
		}
		x.wantAtOnce(name, Enforce, "B")
	})
}

// TestFaultRecheckWithoutStore: the record of a known policy is looked up on use
// while the store fails, also if other hosts use it, and a new version counts (RFC
// 8461, Section 5).
func TestFaultRecheckWithoutStore(t *testing.T) {
	for _, shared := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			x := newTrial(t, Config{})
			if shared {
				x.close()
				x = newSharedTrials(t, 1)[0]
			}
			defer x.close()
			x.run()
			x.want("a.example", Enforce, "A")
			x.store.fail(OpGet, OpPut, OpTouch, OpDue, OpDelete, OpOther)
			time.Sleep(6 * time.Minute)
			if err := x.net.of("a.example").setRecord([]string{"B"}); err != nil {
				t.Fatal(err)
			}
			x.net.of("a.example").set(func(n *fakeDomain) { n.records, n.policies = 0, 0 })
			x.want("a.example", Enforce, "A")
			x.wantAtOnce("a.example", Enforce, "B")
			x.wantAsked("a.example", 1, 1)
			time.Sleep(6 * time.Minute)
			x.wantAtOnce("a.example", Enforce, "B")
			x.wantAsked("a.example", 1, 0)
			x.store.fail()
			time.Sleep(time.Minute)
			if e := x.stored("a.example"); e.ID != "B" {
				t.Errorf("shared %v: stored is %q", shared, e.ID)
			}
		})
	}
}

// TestFaultStoreForgets: policies that a shared store has forgotten stay in force,
// are fetched again at the next use, and are put back as they are if that fails.
// The domain is not burdened by it.
func TestFaultStoreForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newSharedTrials(t, 2)
		x, other := all[0], all[1]
		defer x.close()
		defer other.close()
		names := []string{"up.example", "down.example"}
		for _, x := range all {
			for _, name := range names {
				x.want(name, Enforce, "A")
			}
		}
		fetched := x.stored("down.example").Fetched
		time.Sleep(lostAge)
		for _, name := range names {
			x.want(name, Enforce, "A")
			if err := x.store.Memory.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			x.net.of(name).set(func(n *fakeDomain) { n.records, n.policies = 0, 0 })
		}
		if err := x.net.of("down.example").setPolicy([]string{"badcert"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * minTTL)
		x.hint("", false) // the connection is new: anything may have changed
		other.hint("", false)
		flushed := time.Now()
		for _, name := range names {
			x.wantAtOnce(name, Enforce, "A")
			x.wantAsked(name, 1, 1)
		}
		if e := x.stored("up.example"); !e.Fetched.Equal(flushed) {
			t.Errorf("what could be downloaded was so at %s", e.Fetched)
		}
		if e := x.stored("down.example"); !e.Fetched.Equal(fetched) || !e.Expires.Equal(fetched.Add(7*24*time.Hour)) {
			t.Errorf("what could not is stored with %s, want %s", e.Fetched, fetched)
		}
		for range 60 {
			time.Sleep(2 * time.Second)
			for _, name := range names {
				x.wantAtOnce(name, Enforce, "A")
				other.wantAtOnce(name, Enforce, "A")
			}
		}
		for _, name := range names {
			n := x.net.of(name)
			if n.policies > 0 {
				t.Errorf("%s was downloaded %d times more", name, n.policies)
			}
		}
	})
}

// TestFaultStoreForgetsDeleted: what another host deletes is not put back.
func TestFaultStoreForgetsDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newSharedTrials(t, 1)[0]
		defer x.close()
		x.run()
		x.want("a.example", Enforce, "A")
		if err := errors.Join(x.store.Memory.Delete(t.Context(), "a.example"), x.net.of("a.example").setRecord([]string{"none"})); err != nil {
			t.Fatal(err)
		}
		x.hint("a.example", true)
		x.wantAtOnce("a.example", None, "")
		time.Sleep(5 * time.Minute)
		if e := x.stored("a.example"); e.Policy != "" {
			t.Errorf("stored again: %+v", e)
		}
	})
}

// TestFaultRefreshWithoutLease: while the store cannot lease what is due, what
// memory holds is refreshed from memory: no policy expires for that reason.
func TestFaultRefreshWithoutLease(t *testing.T) {
	for name, failing := range map[string][]Op{
		"full disk": {OpPut, OpTouch, OpDelete, OpDue},
		"away":      {OpGet, OpPut, OpTouch, OpDelete, OpDue, OpOther},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const domains = 70 // more than one batch
				x := newTrial(t, Config{})
				defer x.close()
				for i := range domains {
					name := fmt.Sprintf("d%d.example", i)
					if err := x.net.of(name).setPolicy([]string{"enforce", "max_age=21600"}); err != nil {
						t.Fatal(err)
					}
					x.want(name, Enforce, "A")
				}
				x.store.fail(failing...)
				x.run()
				time.Sleep(13 * time.Hour)
				synctest.Wait()
				for i := range domains {
					name := fmt.Sprintf("d%d.example", i)
					if n := x.net.of(name).policies; n < 5 || n > 6 {
						t.Errorf("%s was downloaded %d times in 13 hours", name, n)
					}
					x.wantAtOnce(name, Enforce, "A")
				}
				x.store.fail()
				time.Sleep(time.Minute)
				for i := range domains {
					if e := x.stored(fmt.Sprintf("d%d.example", i)); time.Since(e.Fetched) > 4*time.Hour {
						t.Fatalf("d%d.example is stored as downloaded %s ago", i, time.Since(e.Fetched))
					}
				}
			})
		})
	}
}

// TestFaultUnsavedIsSaved: what the store did not take is in force, and stored
// within seconds after it works again, all of it, but for what was deleted, and
// one that it never takes keeps no others from being stored.
func TestFaultUnsavedIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const domains = 200
		x := newTrial(t, Config{})
		defer x.close()
		x.run()
		x.store.fail(OpPut)
		name := func(i int) string { return fmt.Sprintf("d%d.example", i) }
		for i := range domains {
			x.want(name(i), Enforce, "A")
		}
		if err := x.Delete(t.Context(), name(0)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if u := x.Usage(); u.Unsaved != domains-1 {
			t.Errorf("%d wait to be saved, want %d", u.Unsaved, domains-1)
		}
		x.store.fail()
		time.Sleep(2 * refreshEvery)
		synctest.Wait()
		for i := range domains {
			if e := x.stored(name(i)); (e.ID == "A") != (i > 0) {
				t.Errorf("%s: stored is %+v", name(i), e)
			}
		}
		if u := x.Usage(); u.Unsaved != 0 {
			t.Errorf("%d wait to be saved still", u.Unsaved)
		}
		x.restart()
		x.wantAtOnce(name(1), Enforce, "A")
	})
}

// TestFaultSaveDuringDelete: a deletion while the store is given a policy that it
// did not take before is the last word.
func TestFaultSaveDuringDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{})
		defer x.Close()
		if err := x.store.set("fails"); err != nil {
			t.Fatal(err)
		}
		x.want("a.example", Enforce, "A")
		if err := x.store.set("write-hangs"); err != nil {
			t.Fatal(err)
		}
		saved := make(chan struct{})
		go func() { x.saveUnsaved(context.Background()); close(saved) }()
		synctest.Wait()
		deleted := make(chan error)
		go func() { deleted <- x.Delete(context.Background(), "a.example") }()
		synctest.Wait()
		if err := x.store.set("works"); err != nil {
			t.Fatal(err)
		}
		if err := <-deleted; err != nil {
			t.Error(err)
		}
		<-saved
		if _, err := x.store.Get(t.Context(), "a.example"); !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("it is stored again: %v", err)
		}
		if u := x.Usage(); u.Unsaved != 0 {
			t.Errorf("%d wait to be saved", u.Unsaved)
		}
	})
}
