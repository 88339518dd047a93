package cache

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
		f := NewFront(breakerFor(back), 100, time.Minute)
		defer running(t, f)()
		now := time.Now()
		back.set("broken")
		for i, domain := range []string{"a.example", "b.example", "c.example"} {
			if err := f.Put(t.Context(), policyEntry(domain, "mine", now.Add(time.Duration(i)))); !errors.Is(err, ErrUnreachable) {
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
		time.Sleep(repayLatest)
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

// A choosy is a Memory that may refuse, or delay, what is put.
type choosy struct {
	*Memory
	put func(e Entry) error
}

func (c *choosy) Put(ctx context.Context, e Entry) error {
	if err := c.put(e); err != nil {
		return err
	}
	return c.Memory.Put(ctx, e)
}

// owing is a Front whose back has taken none of some policies.
func owing(t *testing.T, domains ...string) (*Front, *choosy) {
	back := &choosy{Memory: NewMemory(100), put: func(Entry) error { return errBack }}
	f := NewFront(back, 100, 0)
	for _, domain := range domains {
		if err := f.Put(t.Context(), policyEntry(domain, "first", time.Now())); !errors.Is(err, errBack) {
			t.Fatal(err)
		}
	}
	return f, back
}

// TestRepayCurrent: what was put or deleted since the back failed is what it
// gets in the end, also where that happens while dirty policies are on their way.
func TestRepayCurrent(t *testing.T) {
	domains := []string{"a.example", "b.example", "c.example", "d.example"}
	synctest.Test(t, func(t *testing.T) {
		f, back := owing(t, domains...)
		on, goOn := make(chan string), make(chan struct{})
		back.put = func(e Entry) error {
			if e.ID == "first" {
				on <- e.Domain
				<-goOn
			}
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var run, others sync.WaitGroup
		run.Go(func() { f.Run(ctx) })
		change := func(domain, how string) {
			var err error
			switch how {
			case "deleted":
				err = f.Delete(t.Context(), domain)
			case "put":
				e := policyEntry(domain, "second", time.Now())
				e.Fetched = e.Fetched.Add(-repayEvery) // as that of the first
				err = f.Put(t.Context(), e)
			}
			if err != nil {
				t.Error(err)
			}
		}
		// The first is on its way: two that wait are changed, and itself.
		hows := make(map[string]string)
		moving := <-on
		others.Go(func() { change(moving, "deleted") })
		hows[moving] = "deleted"
		for _, domain := range domains {
			if domain != moving && len(hows) < 3 {
				hows[domain] = []string{"", "deleted", "put"}[len(hows)]
				change(domain, hows[domain])
			}
		}
		synctest.Wait()
		goOn <- struct{}{}
		others.Wait()
		// What is left is put while it is on its way.
		moving = <-on
		if hows[moving] != "" {
			t.Fatalf("%s is put as it was", moving)
		}
		hows[moving] = "put"
		others.Go(func() { change(moving, "put") })
		synctest.Wait()
		goOn <- struct{}{}
		others.Wait()
		cancel()
		run.Wait()
		for domain, how := range hows {
			stored, err := back.Memory.Get(t.Context(), domain)
			if how == "deleted" && !errors.Is(err, ErrNotFound) || how == "put" && stored.ID != "second" {
				t.Errorf("%s was %s, and stored is %q, %v", domain, how, stored.ID, err)
			}
			got, err := f.Get(t.Context(), domain)
			if got.ID != stored.ID {
				t.Errorf("%s: Get returns %q, %v, and stored is %q", domain, got.ID, err, stored.ID)
			}
		}
		if n := f.Waiting(); n != 0 {
			t.Errorf("%d policies wait still", n)
		}
	})
}

// TestRepayLeavesWriters: a policy that somebody is putting is not put at the
// same time as it was before.
func TestRepayLeavesWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, back := owing(t, "a.example")
		goOn := make(chan struct{})
		back.put = func(e Entry) error {
			if e.ID == "second" {
				<-goOn
			} else {
				t.Errorf("%q was put", e.ID)
			}
			return nil
		}
		var putting sync.WaitGroup
		putting.Go(func() {
			if err := f.Put(t.Context(), policyEntry("a.example", "second", time.Now())); err != nil {
				t.Error(err)
			}
		})
		defer running(t, f)()
		time.Sleep(10 * repayEvery)
		close(goOn)
		putting.Wait()
	})
}

// TestRepayRefused: policies that the back never takes keep no others from being
// put, are kept, and are tried less and less often.
func TestRepayRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, back := owing(t, "bad-1.example", "a.example", "bad-2.example", "b.example")
		f.OnError = func(op string, err error) { t.Errorf("told of %s: %v", op, err) }
		refused := 0
		back.put = func(e Entry) error {
			if e.Domain == "bad-1.example" || e.Domain == "bad-2.example" {
				refused++
				return errBack
			}
			return nil
		}
		defer running(t, f)()
		time.Sleep(2 * repayEvery)
		for _, domain := range []string{"a.example", "b.example"} {
			if _, err := back.Memory.Get(t.Context(), domain); err != nil {
				t.Errorf("%s: %v", domain, err)
			}
		}
		time.Sleep(time.Hour)
		if n := f.Waiting(); n != 2 {
			t.Errorf("%d policies wait, want 2", n)
		}
		if refused < 100 || refused > 140 {
			t.Errorf("two policies were tried %d times in an hour", refused)
		}
	})
}

// TestRepayBehindBreaker: where all that is known of a refusal is that the back is
// away, a policy that is never taken does not keep others waiting for ever.
func TestRepayBehindBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := newMoody()
		f := NewFront(breakerFor(&rejecting{back}), 100, time.Minute)
		defer running(t, f)()
		var told atomic.Int32
		f.back.(*Breaker).OnState = func(string, error) { told.Add(1) }
		domains := []string{"bad.example", "a.example", "worse-bad.example", "b.example"}
		back.set("broken")
		for _, domain := range domains {
			_ = f.Put(t.Context(), policyEntry(domain, "mine", time.Now()))
		}
		back.set("")
		time.Sleep(time.Minute)
		if n := f.Waiting(); n != 2 {
			t.Errorf("%d policies wait, want 2", n)
		}
		// Others go on writing.
		for range 3600 {
			time.Sleep(time.Second)
			_ = f.Touch(t.Context(), map[string]time.Time{"a.example": time.Now()})
		}
		if n := told.Load(); n > 150 {
			t.Errorf("told %d times in an hour how the back is", n)
		}
	})
}

// A rejecting fails to put some domains.
type rejecting struct{ *moody }

func (r *rejecting) Put(ctx context.Context, e Entry) error {
	if strings.HasSuffix(e.Domain, "bad.example") {
		return errBack
	}
	return r.moody.Put(ctx, e)
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
		back.watched("a.example", false)
		back.watched("b.example", false)
		want("a.example", "2")
		want("b.example", "2")
		time.Sleep(time.Second)
		theirs("a.example", "3", 2)
		back.watched("", false)
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
