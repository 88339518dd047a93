package policy

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/cache"
)

// TestClockSetEndsDecisions: decisions hold until times on the wall clock, so
// they are made anew when it is set: what has expired by it does not count, and
// what has not counts again, for as long as it would have without that.
func TestClockSetEndsDecisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{})
		defer x.close()
		n := x.net.of("a.example")
		x.want("a.example", Enforce, "A")
		if err := n.setPolicy([]string{"badcert"}); err != nil {
			t.Fatal(err)
		}
		x.setClock(8 * 24 * time.Hour)
		if d := x.Cached([]byte("a.example"), false); d != nil {
			t.Errorf("cached is %s", d)
		}
		x.want("a.example", None, "")
		x.setClock(-24 * time.Hour)
		x.wantAtOnce("a.example", Enforce, "A")
		time.Sleep(7*24*time.Hour + time.Second)
		x.want("a.example", None, "") // a clock that is set back extends nothing
	})
}

// TestClockBackKeepsRefreshing: after a clock that was ahead is set right, what it
// has noted for far in the future is refreshed as soon as the clock was steady for
// an hour, and what it has backed off from is tried again at once.
func TestClockBackKeepsRefreshing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{})
		defer x.close()
		x.setClock(365 * 24 * time.Hour)
		x.run()
		x.want("a.example", Enforce, "A")
		x.net.of("b.example").set(func(n *fakeDomain) { n.policyErr = errors.New("down") })
		x.want("b.example", None, "")
		x.net.of("b.example").set(func(n *fakeDomain) { n.policyErr = nil })
		time.Sleep(time.Minute)
		x.setClock(0)
		x.want("a.example", Enforce, "A")
		time.Sleep(6 * time.Minute)
		x.want("b.example", Enforce, "A")
		time.Sleep(agreement - 6*time.Minute + time.Minute)
		synctest.Wait()
		if e := x.stored("a.example"); e.Fetched.After(time.Now()) || e.Policy == "" {
			t.Errorf("stored is what was downloaded at %s; now is %s", e.Fetched, time.Now())
		}
	})
}

// TestClockSane: times that a clock ahead of ours has noted in the store do not
// keep a domain from being looked up: neither an absence, nor a recheck, nor the
// back-off of a version, and none is stored as it is not.
func TestClockSane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ahead := time.Now().Add(30 * 24 * time.Hour)
		for name, e := range map[string]cache.Entry{
			"absence":  {Domain: "a.example", Expires: ahead, Recheck: ahead, Checked: ahead},
			"back-off": {Domain: "a.example", Expires: ahead, Recheck: ahead, Checked: ahead, FailedID: "A", Failures: 3, Retry: ahead},
			"download": storedPolicy("a.example", "Z", "enforce", ahead, 24*time.Hour),
		} {
			x := newTrial(t, Config{})
			x.put(e)
			time.Sleep(2 * minTTL)
			x.lookup("a.example")
			synctest.Wait()
			if d := x.lookup("a.example"); d.Kind != Enforce || d.ID != "A" {
				t.Errorf("%s: decided %s %q: %s", name, d.Kind, d.ID, d)
			}
			if e := x.stored("a.example"); e.ID != "A" || e.Fetched.After(time.Now()) || e.Checked.After(time.Now()) {
				t.Errorf("%s: stored is %+v", name, e)
			}
			x.close()
		}
	})
}

// TestClockLifetime: no policy lasts longer than its max_age, by either clock,
// whatever the times are that it was stored with.
func TestClockLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{})
		defer x.close()
		now := time.Now()
		for name, fetched := range map[string]time.Time{"past.example": now.Add(-time.Hour), "now.example": now, "future.example": now.Add(1000 * time.Hour)} {
			e := storedPolicy(name, "A", "enforce", fetched, 24*time.Hour)
			x.put(e)
			if err := x.net.of(name).setPolicy([]string{"badcert"}); err != nil {
				t.Fatal(err)
			}
			x.want(name, Enforce, "A")
		}
		time.Sleep(23*time.Hour + time.Minute)
		x.want("past.example", None, "")
		x.want("now.example", Enforce, "A")
		time.Sleep(time.Hour)
		x.want("now.example", None, "")
		x.want("future.example", None, "")
	})
}

// TestClockBootedBehind: a machine that boots with its clock a year behind loses
// no policy when the clock is set right a minute later.
func TestClockBootedBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{})
		defer x.close()
		x.want("a.example", Enforce, "A")
		time.Sleep(time.Hour)
		x.close()
		x.setClock(-365 * 24 * time.Hour)
		x.start()
		x.run()
		x.want("a.example", Enforce, "A")
		time.Sleep(time.Minute) // until NTP
		x.setClock(0)
		if err := x.net.of("a.example").setPolicy([]string{"badcert"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		x.want("a.example", Enforce, "A")
	})
}

// TestClockSetBackForAMinute: neither does a host whose clock is set back for a
// minute, whether a domain is used meanwhile or not.
func TestClockSetBackForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{})
		defer x.close()
		x.run()
		x.want("a.example", Enforce, "A")
		x.want("b.example", Enforce, "A")
		time.Sleep(2 * time.Hour)
		x.setClock(-365 * 24 * time.Hour)
		x.want("b.example", Enforce, "A")
		time.Sleep(time.Minute)
		x.setClock(0)
		for _, name := range []string{"a.example", "b.example"} {
			if err := x.net.of(name).setPolicy([]string{"badcert"}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		x.want("a.example", Enforce, "A")
		x.want("b.example", Enforce, "A")
	})
}
