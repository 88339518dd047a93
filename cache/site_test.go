package cache

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// policyEntry is a policy that was downloaded at that time.
func policyEntry(domain, id string, fetched time.Time) Entry {
	return Entry{Domain: domain, ID: id, Policy: "version: STSv1", Fetched: fetched, Expires: fetched.Add(24 * time.Hour), Checked: fetched}
}

// running is a Front of two that share a back, in a bubble.
func running(t *testing.T, f *Front) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { f.Run(ctx) })
	synctest.Wait()
	return func() { cancel(); run.Wait() }
}

// TestRepay: what was learned while the back was away is put when it is back,
// but for what others have learned later.
func TestRepay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := newMoody()
		f := NewFront(NewGuard(back, time.Second), 100, time.Minute)
		defer running(t, f)()
		now := time.Now()
		back.set("broken")
		for i, domain := range []string{"a.example", "b.example", "c.example"} {
			if err := f.Put(t.Context(), policyEntry(domain, "mine", now.Add(time.Duration(i)))); !errors.Is(err, ErrAway) {
				t.Fatal(err)
			}
		}
		if err := back.Memory.Put(t.Context(), policyEntry("b.example", "theirs", now.Add(time.Second))); err != nil {
			t.Fatal(err)
		}
		if err := back.Memory.Put(t.Context(), policyEntry("c.example", "old", now.Add(-time.Second))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := f.Waiting(); n != 3 {
			t.Errorf("%d policies wait, want 3", n)
		}
		if back.count() > 30 {
			t.Errorf("asked %d times in a minute", back.count())
		}
		if e, err := f.Get(t.Context(), "b.example"); err != nil || e.ID != "mine" {
			t.Error("while the back is away:", e.ID, err)
		}
		back.set("")
		time.Sleep(2 * longestPause)
		for domain, want := range map[string]string{"a.example": "mine", "b.example": "theirs", "c.example": "mine"} {
			stored, err := back.Memory.Get(t.Context(), domain)
			got, err2 := f.Get(t.Context(), domain)
			if err != nil || err2 != nil || stored.ID != want || got.ID != want {
				t.Errorf("%s: %q is stored and %q is answered, want %q (%v, %v)", domain, stored.ID, got.ID, want, err, err2)
			}
		}
		if n := f.Waiting(); n != 0 {
			t.Errorf("%d policies wait still", n)
		}
		back.set("")
		time.Sleep(time.Minute)
		if back.count() != 0 {
			t.Errorf("asked %d times although nothing is owed", back.count())
		}
	})
}

// TestWatch: a copy is not used any more once another has changed the entry, be
// it of a policy or of an absence, nor is one that was on its way meanwhile.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := newMoody()
		f := NewFront(back, 100, time.Hour)
		var told []string
		f.OnChange = func(domain string) { told = append(told, domain) }
		defer running(t, f)()
		<-back.watches
		now := time.Now()
		want := func(domain, id string) {
			t.Helper()
			if e, err := f.Get(t.Context(), domain); err != nil || e.ID != id {
				t.Errorf("%s: %q, %v, want %q", domain, e.ID, err, id)
			}
		}
		theirs := func(domain, id string, after time.Duration) {
			t.Helper()
			if err := back.Memory.Put(t.Context(), policyEntry(domain, id, now.Add(after))); err != nil {
				t.Fatal(err)
			}
		}
		theirs("a.example", "1", 0)
		want("a.example", "1")
		if err := f.Put(t.Context(), Entry{Domain: "b.example", ID: "absent", Expires: now.Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		theirs("a.example", "2", 1)
		theirs("b.example", "2", 1)
		want("a.example", "1") // nobody has told yet
		back.watched("a.example")
		back.watched("b.example")
		want("a.example", "2")
		want("b.example", "2")
		time.Sleep(time.Second)
		theirs("a.example", "3", 2)
		back.watched("")
		want("a.example", "3")
		if !slices.Equal(told, []string{"a.example", "b.example", ""}) {
			t.Errorf("told %q", told)
		}
	})
}

// TestClaimRefused: where somebody else retrieves, the copy is not trusted.
func TestClaimRefused(t *testing.T) {
	alone := NewFront(NewMemory(10), 10, 0)
	if ok, err := alone.Claim(t.Context(), "example.com", time.Second); !ok || err != nil {
		t.Error("nobody else is there:", ok, err)
	}
	if err := alone.Release(t.Context(), "example.com"); err != nil {
		t.Error(err)
	}
	back := &refusing{newMoody()}
	f := NewFront(back, 10, time.Hour)
	if err := f.Put(t.Context(), Entry{Domain: "example.com", ID: "absent", Expires: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if err := back.Memory.Put(t.Context(), policyEntry("example.com", "theirs", time.Now())); err != nil {
		t.Fatal(err)
	}
	if ok, err := f.Claim(t.Context(), "example.com", time.Second); ok || err != nil {
		t.Error(ok, err)
	}
	if e, err := f.Get(t.Context(), "example.com"); err != nil || e.ID != "theirs" {
		t.Error(e.ID, err)
	}
}

type refusing struct{ *moody }

func (*refusing) Claim(context.Context, string, time.Duration) (bool, error) { return false, nil }

// TestFailureIsShared: that a download failed is for others to know; that there
// is no record is not.
func TestFailureIsShared(t *testing.T) {
	back := newMoody()
	f := NewFront(back, 10, time.Hour)
	later := time.Now().Add(time.Hour)
	for _, e := range []Entry{{Domain: "failed.example", FailedID: "A", Failures: 1, Expires: later}, {Domain: "absent.example", Expires: later}} {
		if err := f.Put(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := back.Memory.Get(t.Context(), "failed.example"); err != nil {
		t.Error(err)
	}
	if _, err := back.Memory.Get(t.Context(), "absent.example"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}
