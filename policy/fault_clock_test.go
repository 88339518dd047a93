package policy

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/cache"
)

// TestFaultClockStepForward: after the clock was set forward for good, expired
// policies are removed once it has been so for an hour, and not before.
func TestFaultClockStepForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{})
		defer x.close()
		x.run()
		for i := range 10 {
			x.want(fmt.Sprintf("d%d.example", i), Enforce, "A")
			if err := x.net.of(fmt.Sprintf("d%d.example", i)).setPolicy([]string{"badcert"}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Hour)
		x.setClock(8 * 24 * time.Hour)
		time.Sleep(50 * time.Minute)
		for i := range 10 {
			if x.stored(fmt.Sprintf("d%d.example", i)).Policy == "" {
				t.Fatalf("d%d.example is removed before the clock can be believed", i)
			}
		}
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		for i := range 10 {
			if _, err := x.store.Memory.Get(t.Context(), fmt.Sprintf("d%d.example", i)); !errors.Is(err, cache.ErrNotFound) {
				t.Errorf("d%d.example is stored: %v", i, err)
			}
		}
		if n := x.count(PolicyGone); n != 10 {
			t.Errorf("%d events", n)
		}
	})
}

// TestFaultClockBootedAhead: a host that boots with its clock a year ahead, has all
// domains looked up and due, and then has its clock set right, has lost nothing.
func TestFaultClockBootedAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const domains = 100
		x := newTrial(t, Config{})
		defer x.close()
		name := func(i int) string { return fmt.Sprintf("d%d.example", i) }
		for i := range domains {
			x.want(name(i), Enforce, "A")
			if err := x.net.of(name(i)).setPolicy([]string{"badcert"}); err != nil {
				t.Fatal(err)
			}
		}
		x.close()
		x.setClock(365 * 24 * time.Hour)
		x.start()
		x.run()
		for range 3 {
			for i := range domains / 2 { // the others are only due
				x.want(name(i), None, "")
			}
			time.Sleep(15 * time.Minute)
		}
		x.setClock(0)
		time.Sleep(time.Second)
		for i := range domains {
			x.want(name(i), Enforce, "A")
		}
		x.restart()
		for i := range domains {
			x.wantAtOnce(name(i), Enforce, "A")
		}
	})
}

// TestFaultClockWrongAndHostDown: a policy that seems to be expired, because the
// clock is wrong, is not replaced by the absence that is found then, in memory, in
// the store, and for other hosts.
func TestFaultClockWrongAndHostDown(t *testing.T) {
	for _, record := range []string{"A", "none", "fails", "silent"} {
		t.Run(record, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				all := newSharedTrials(t, 2)
				x, other := all[0], all[1]
				defer x.close()
				defer other.close()
				x.run()
				x.want("a.example", Enforce, "A")
				n := x.net.of("a.example")
				if err := errors.Join(n.setRecord([]string{record}), n.setPolicy([]string{"badcert"})); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Hour)
				x.setClock(8 * 24 * time.Hour)
				for range 5 {
					x.want("a.example", None, "")
					other.want("a.example", Enforce, "A")
					time.Sleep(10 * time.Minute)
				}
				x.setClock(0)
				time.Sleep(time.Second)
				x.wantAtOnce("a.example", Enforce, "A")
				other.want("a.example", Enforce, "A")
				if e := x.stored("a.example"); e.ID != "A" || e.Policy == "" {
					t.Errorf("stored is %+v", e)
				}
				x.restart()
				x.wantAtOnce("a.example", Enforce, "A")
			})
		})
	}
}

// TestFaultClocksApart: where the clocks of two hosts are apart, the absence that
// one finds does not replace the policy that has not expired for the other (RFC
// 8461, Section 3.3).
func TestFaultClocksApart(t *testing.T) {
	for _, apart := range []time.Duration{2 * time.Minute, 30 * time.Minute} {
		for _, record := range []string{"A", "none", "fails"} {
			t.Run(fmt.Sprint(apart, record), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					all := newSharedTrials(t, 2)
					x, ahead := all[0], all[1]
					defer x.close()
					defer ahead.close()
					ahead.setClock(apart)
					x.run()
					ahead.run()
					n := x.net.of("a.example")
					if err := n.setPolicy([]string{"enforce", "max_age=86400"}); err != nil {
						t.Fatal(err)
					}
					x.want("a.example", Enforce, "A")
					expires := time.Now().Add(24 * time.Hour)
					if err := errors.Join(n.setRecord([]string{record}), n.setPolicy([]string{"badcert"})); err != nil {
						t.Fatal(err)
					}
					time.Sleep(24*time.Hour - apart/2)
					for time.Now().Before(expires) {
						ahead.want("a.example", None, "")
						if e := x.stored("a.example"); e.Policy == "" {
							t.Fatalf("stored is %+v", e)
						}
						x.want("a.example", Enforce, "A")
						time.Sleep(apart / 10)
					}
				})
			})
		}
	}
}
