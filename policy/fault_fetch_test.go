package policy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/sts"
	"stsmap/stsfetch"
)

// TestFaultOverrideDuringFetch: an override to enforce begins and ends to count
// for every lookup that begins after Override returned, and at once, however slow
// the name server is that is being asked meanwhile.
func TestFaultOverrideDuringFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{})
		defer x.close()
		n := x.net.of("a.example")
		if err := n.setPolicy([]string{"testing"}); err != nil {
			t.Fatal(err)
		}
		x.want("a.example", Testing, "A")
		n.set(func(n *fakeDomain) { n.delay = 24 * time.Second })
		for range 2 {
			time.Sleep(6 * time.Minute)
			x.wantAtOnce("a.example", Testing, "A") // the record is looked up behind the answer
			time.Sleep(time.Second)
			x.overrideTo("a.example", "enforce")
			x.wantAtOnce("a.example", Enforce, "A")
			time.Sleep(time.Second)
			x.Override(nil)
			x.wantAtOnce("a.example", Testing, "A")
			time.Sleep(time.Second)
			x.overrideTo("a.example", "enforce")
			time.Sleep(30 * time.Second) // the lookup of the record ends meanwhile
			x.wantAtOnce("a.example", Enforce, "A")
			x.Override(nil)
			x.wantAtOnce("a.example", Testing, "A")
		}
	})
}

// TestFaultOverrideDuringFirstContact: lookups that wait for a first fetch decide
// under the overrides of the moment at which it ends.
func TestFaultOverrideDuringFirstContact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{})
		defer x.close()
		n := x.net.of("a.example")
		if err := n.setPolicy([]string{"testing"}); err != nil {
			t.Fatal(err)
		}
		n.set(func(n *fakeDomain) { n.delay = 10 * time.Second })
		var waiting sync.WaitGroup
		waiting.Go(func() {
			if d := x.lookup("a.example"); d.Kind != Enforce {
				t.Errorf("decided %s: %s", d.Kind, d)
			}
		})
		time.Sleep(time.Second)
		x.overrideTo("a.example", "enforce")
		waiting.Wait()
		x.wantAtOnce("a.example", Enforce, "A")
	})
}

// TestFaultDeleteDuringFetch: what is deleted while it is fetched is a first
// contact from then on, and the fetch brings nothing back, neither to memory nor
// to the store: be it of a first contact, a forced download or a recheck.
func TestFaultDeleteDuringFetch(t *testing.T) {
	for _, known := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			x := newTrial(t, Config{})
			defer x.close()
			n := x.net.of("a.example")
			if known {
				x.want("a.example", Enforce, "A")
			}
			n.set(func(n *fakeDomain) { n.delay = 5 * time.Second })
			var fetching sync.WaitGroup
			fetching.Go(func() { _, _ = x.Retrieve(context.Background(), "a.example", true) })
			fetching.Go(func() { x.lookup("a.example") })
			time.Sleep(7 * time.Second) // the policy is being downloaded
			if err := n.setRecord([]string{"none"}); err != nil {
				t.Fatal(err)
			}
			n.set(func(n *fakeDomain) { n.records, n.policies = 0, 0 })
			began := time.Now()
			if err := x.Delete(t.Context(), "a.example"); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("the deletion took %s", took)
			}
			if d := x.Cached([]byte("a.example"), false); d != nil {
				t.Errorf("known %v: %s is still cached", known, d)
			}
			x.want("a.example", None, "")
			fetching.Wait()
			time.Sleep(time.Minute)
			synctest.Wait()
			x.want("a.example", None, "")
			if n.records == 0 {
				t.Errorf("known %v: the domain was not asked again", known)
			}
			if e := x.stored("a.example"); e.Policy != "" {
				t.Errorf("known %v: stored again: %+v", known, e)
			}
		})
	}
}

// TestFaultNoneDuringFetch: a policy in mode none that another host has downloaded
// counts for the next lookup after its hint, and without a hint within a minute,
// however slow the fetch is that is under way here.
func TestFaultNoneDuringFetch(t *testing.T) {
	for _, hinted := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			x := newSharedTrials(t, 1)[0]
			defer x.close()
			x.want("a.example", Enforce, "A")
			n := x.net.of("a.example")
			n.set(func(n *fakeDomain) { n.delay = 29 * time.Second })
			time.Sleep(6 * time.Minute)
			x.wantAtOnce("a.example", Enforce, "A") // is looked up behind the answer
			if err := errors.Join(n.setRecord([]string{"N"}), n.setPolicy([]string{"none"})); err != nil {
				t.Fatal(err)
			}
			x.put(storedPolicy("a.example", "N", "none", time.Now(), 24*time.Hour))
			if hinted {
				time.Sleep(time.Second)
				x.hint("a.example", false)
				x.wantAtOnce("a.example", None, "N")
			}
			time.Sleep(time.Minute)
			for range 10 { // while the fetch is under way, and after it
				if d := x.lookup("a.example"); d.Kind != None {
					t.Errorf("hinted %v: decided %s: %s", hinted, d.Kind, d)
				}
				time.Sleep(20 * time.Second)
			}
			if p, err := sts.ParsePolicy([]byte(x.stored("a.example").Policy)); err != nil || p.Mode != sts.None {
				t.Errorf("hinted %v: stored is %v, %v", hinted, p, err)
			}
		})
	}
}

// TestFaultRefreshOfHanging: refreshes do not wait for the slowest of others: of
// many that are due, of which one in twenty hangs, the others are done as fast as
// the places for refreshes allow.
func TestFaultRefreshOfHanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const domains, places = 1000, 32
		x := newTrial(t, Config{Concurrency: 4 * places})
		defer x.close()
		name := func(i int) string { return fmt.Sprintf("d%d.example", i) }
		hanging := 0
		for i := range domains {
			fetched := time.Now().Add(-24 * time.Hour)
			x.put(storedPolicy(name(i), "A", "enforce", fetched, 7*24*time.Hour))
			n := x.net.of(name(i))
			if n.delay = time.Second; i%20 == 7 {
				n.hangs = true
				hanging++
			}
		}
		x.run()
		// Each takes a second for the record and one for the policy, or 30 seconds.
		work := time.Duration(2*(domains-hanging)+31*hanging) * time.Second
		time.Sleep(work/places + 35*time.Second)
		synctest.Wait()
		if done := x.count(PolicyRenewed); done != domains-hanging {
			t.Errorf("%d of %d are refreshed after %s", done, domains-hanging, work/places+35*time.Second)
		}
		if failed := x.count(PolicyFailed); failed != hanging {
			t.Errorf("%d of %d that hang have failed", failed, hanging)
		}
	})
}

// TestFaultRefreshWithoutPlace: a refresh that gets no place in time makes an
// event that says so, is not held to be the domain's failure, and follows later.
func TestFaultRefreshWithoutPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{Concurrency: 4}) // one of them for refreshes
		defer x.close()
		fetched := time.Now().Add(-24 * time.Hour)
		for _, name := range []string{"a.example", "b.example"} {
			x.put(storedPolicy(name, "A", "enforce", fetched, 7*24*time.Hour))
			x.net.of(name).set(func(n *fakeDomain) { n.delay, n.hangs = 5*time.Second, true })
		}
		x.run()
		time.Sleep(time.Minute)
		synctest.Wait()
		ended := 0
		for _, ev := range x.events {
			if ev.Kind == FetchEnded {
				ended++
				if !strings.Contains(ev.Err.Error(), "too many fetches at once") {
					t.Errorf("the reason is %v", ev.Err)
				}
				if e := x.stored(ev.Domain); e.Failures != 0 || e.Error != "" {
					t.Errorf("%s is blamed: %+v", ev.Domain, e)
				}
			}
		}
		if failed := x.count(PolicyFailed); ended != 1 || failed != 1 {
			t.Errorf("%d ended, %d failed, want one each", ended, failed)
		}
		for _, name := range []string{"a.example", "b.example"} {
			x.net.of(name).set(func(n *fakeDomain) { n.delay, n.hangs = 0, false })
		}
		time.Sleep(11 * time.Minute)
		if renewed := x.count(PolicyRenewed); renewed != 2 {
			t.Errorf("%d are refreshed later", renewed)
		}
	})
}

// TestFaultRefreshEnded: a refresh that is ended for the sake of another owner
// makes an event, and its domain is not blamed.
func TestFaultRefreshEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{Concurrency: 8}) // two of them for refreshes
		defer x.close()
		for _, name := range []string{"a.big.example", "b.big.example", "other.example"} {
			x.want(name, Enforce, "A")
			n := x.net.of(name)
			n.set(func(n *fakeDomain) { n.delay = 10 * time.Second })
		}
		time.Sleep(6 * time.Minute)
		for _, name := range []string{"a.big.example", "b.big.example", "other.example"} {
			x.wantAtOnce(name, Enforce, "A") // is looked up behind the answer
			time.Sleep(time.Second)
		}
		synctest.Wait()
		var domains []string
		for _, ev := range x.events {
			if ev.Kind == FetchEnded && errors.Is(ev.Err, errEnded) {
				domains = append(domains, ev.Domain)
			}
		}
		if fmt.Sprint(domains) != "[a.big.example]" {
			t.Errorf("ended: %v", domains)
		}
		time.Sleep(20 * time.Second)
		for _, name := range []string{"a.big.example", "b.big.example", "other.example"} {
			if e := x.stored(name); e.Failures != 0 || e.Error != "" {
				t.Errorf("%s is blamed: %+v", name, e)
			}
			x.want(name, Enforce, "A")
		}
	})
}

// TestFaultReasonOfEndedWait: a lookup whose wait for a place ends is answered with
// the reason for which it ended. An event blames too many fetches only if the time
// ran out.
func TestFaultReasonOfEndedWait(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(x *trial, cancel context.CancelFunc)
		want string
	}{
		"time":   {func(*trial, context.CancelFunc) {}, ""},
		"close":  {func(x *trial, _ context.CancelFunc) { x.Close() }, "shutting down"},
		"client": {func(_ *trial, cancel context.CancelFunc) { cancel() }, "context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newTrial(t, Config{Concurrency: 1, Timeout: 30 * time.Second})
				defer x.close()
				x.net.of("slow.example").set(func(n *fakeDomain) { n.hangs, n.delay = true, 20*time.Second })
				x.net.of("a.example").set(func(n *fakeDomain) { n.delay = time.Second })
				var asking sync.WaitGroup
				asking.Go(func() { x.lookup("slow.example") })
				time.Sleep(time.Second)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var d *Decision
				asking.Go(func() { d = x.Lookup(ctx, dane.NextHop{Domain: "a.example"}, false) })
				time.Sleep(time.Second)
				c.end(x, cancel)
				asking.Wait()
				if !strings.Contains(d.Reason, c.want) || name != "time" && strings.Contains(d.Reason, "fetch.concurrency") {
					t.Errorf("the reason is %q, want %q", d.Reason, c.want)
				}
				synctest.Wait()
				blamed := false
				for _, ev := range x.events {
					blamed = blamed || ev.Kind == FetchEnded && strings.Contains(ev.Err.Error(), "fetch.concurrency")
				}
				if blamed != (name == "time") {
					t.Errorf("too many fetches are blamed: %v", blamed)
				}
				if _, err := x.store.Memory.Get(t.Context(), "a.example"); !errors.Is(err, cache.ErrNotFound) {
					t.Errorf("something is stored: %v", err)
				}
			})
		})
	}
}

// TestFaultConcurrentLookups: fifty lookups at once are given the same decision,
// and it is reported to be the first of its kind exactly once, whatever they wait
// for and whatever changes meanwhile.
func TestFaultConcurrentLookups(t *testing.T) {
	for _, change := range []string{"nothing", "override", "settings", "facts"} {
		t.Run(change, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				first := make(map[*Decision]int)
				n := &fakeNet{domains: make(map[string]*fakeDomain)}
				config := Config{Store: cache.NewMemory(10), Fetch: n, Observe: func(ev Event) {
					if ev.Kind == Lookup && ev.First {
						mu.Lock()
						defer mu.Unlock()
						first[ev.Decision]++
					}
				}}
				x := &trial{t: t, net: n, Engine: New(config)}
				defer x.Close()
				n.of("a.example").set(func(n *fakeDomain) { n.delay = time.Second })
				for round := range 4 {
					clear(first)
					all := x.fifty("a.example", func() {
						switch change {
						case "override":
							x.overrideTo("a.example", []string{"exempt", "defer"}[round%2])
						case "settings":
							config.Strict = !config.Strict
							x.Configure(config)
						case "facts":
							_ = n.of("a.example").setRecord([]string{fmt.Sprint("A", round)})
						}
					})
					last := all[len(all)-1]
					for _, d := range all {
						if d.Kind != last.Kind || d.ID != last.ID {
							t.Errorf("round %d: decided %s %q and %s %q", round, d.Kind, d.ID, last.Kind, last.ID)
						}
					}
					if len(first) > 1 || first[last] > 1 || round == 0 && first[last] != 1 {
						t.Errorf("round %d: %d decisions were the first of their kind, the last one %d times", round, len(first), first[last])
					}
					time.Sleep(6 * time.Minute)
				}
			})
		})
	}
}

// fifty looks a domain up fifty times at once, with a change before, and returns
// the decisions.
func (x *trial) fifty(name string, change func()) []*Decision {
	change()
	all := make([]*Decision, 50)
	start := make(chan struct{})
	var asking sync.WaitGroup
	for i := range all {
		asking.Go(func() {
			<-start
			all[i] = x.lookup(name)
		})
	}
	close(start)
	asking.Wait()
	synctest.Wait()
	return all
}

// TestFaultShortage: a shortage of descriptors on this host is no failure of the
// domain: known policies stay as they are, a first contact is answered by
// Config.Defer, nothing is stored, and an event says what is short.
func TestFaultShortage(t *testing.T) {
	short := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", syscall.EMFILE)}
	for _, deferred := range []bool{false, true} {
		for _, atRecord := range []bool{false, true} {
			t.Run(fmt.Sprintf("defer %v, record %v", deferred, atRecord), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					x := newTrial(t, Config{Defer: deferred})
					defer x.close()
					x.want("known.example", Enforce, "A")
					before := x.stored("known.example")
					for _, name := range []string{"known.example", "new.example"} {
						x.net.of(name).set(func(n *fakeDomain) {
							n.record.ID = "B"
							if atRecord {
								n.record, n.recordErr = stsfetch.Record{}, fmt.Errorf("%s TXT: %w", name, short)
							} else {
								n.policyErr = &stsfetch.Error{Domain: name, Step: stsfetch.StepConnect, Err: short}
							}
						})
					}
					time.Sleep(6 * time.Minute)
					x.wantAtOnce("known.example", Enforce, "A")
					if _, err := x.Retrieve(t.Context(), "known.example", true); err != nil {
						t.Error(err)
					}
					x.wantAtOnce("known.example", Enforce, "A")
					if after := x.stored("known.example"); after != before {
						t.Errorf("stored %+v, before %+v", after, before)
					}
					kind := None
					if deferred {
						kind = Failed
					}
					x.want("new.example", kind, "")
					if d := x.lookup("new.example"); !strings.Contains(d.Reason, "short of resources") {
						t.Errorf("the reason is %q", d.Reason)
					}
					if n := x.count(ResourcesShort); n < 3 || x.count(PolicyFailed)+x.count(RecordFailed) != 0 {
						t.Errorf("%d times short", n)
					}
					synctest.Wait()
					x.net.of("new.example").set(func(n *fakeDomain) {
						n.record, n.recordErr, n.policyErr = stsfetch.Record{ID: "B"}, nil, nil
					})
					x.want("new.example", Enforce, "B") // is not held against the domain
				})
			})
		}
	}
}
