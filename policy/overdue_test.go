package policy

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestRefreshAfterFlush: a policy that the store has lost is refreshed daily,
// although it is not looked up and the store says that nothing is due.
func TestRefreshAfterFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newSharedTrials(t, 1)[0]
		defer x.close()
		x.run()
		x.want("a.example", Enforce, "A")
		if err := x.store.Memory.Delete(t.Context(), "a.example"); err != nil {
			t.Fatal(err)
		}
		x.hint("", false)
		x.net.of("a.example").set(func(n *fakeDomain) { n.policies = 0 })
		time.Sleep(8 * 24 * time.Hour)
		synctest.Wait()
		if n := x.net.of("a.example").policies; n < 5 {
			t.Errorf("%d downloads in 8 days", n)
		}
		if err := x.net.of("a.example").setPolicy([]string{"badcert"}); err != nil {
			t.Fatal(err)
		}
		x.want("a.example", Enforce, "A")
	})
}

// TestRefreshUnsaved: so is a policy that the store never took.
func TestRefreshUnsaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{})
		defer x.close()
		x.run()
		x.store.fail(OpPut)
		x.want("a.example", Enforce, "A")
		time.Sleep(8 * 24 * time.Hour)
		synctest.Wait()
		if n := x.net.of("a.example").policies; n < 5 {
			t.Errorf("%d downloads in 8 days", n)
		}
	})
}

// TestStoreKeepsForgetting: a store that loses a policy again and again does not
// burden the policy host; the policy is put back each time.
func TestStoreKeepsForgetting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newSharedTrials(t, 1)[0]
		defer x.close()
		for range 51 { // an hour
			x.want("a.example", Enforce, "A")
			_ = x.store.Memory.Delete(t.Context(), "a.example") // no hint: evicted
			time.Sleep(70 * time.Second)
		}
		if n := x.net.of("a.example").policies; n > 1 {
			t.Errorf("%d downloads in an hour", n)
		}
	})
}
