package policy

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/cache"
	"stsmap/dane"
)

// A gatedStore lets a test order a Delete and a Get that run at the same time.
type gatedStore struct {
	*testStore
	beforeDelete, afterGet chan struct{} // nil: not gated
	inDelete, gotten       chan struct{}
}

func (s *gatedStore) Get(ctx context.Context, name string) (cache.Entry, error) {
	e, err := s.testStore.Get(ctx, name)
	if s.afterGet != nil {
		g := s.afterGet
		s.afterGet = nil
		close(s.gotten)
		<-g
	}
	return e, err
}

func (s *gatedStore) Delete(ctx context.Context, name string) error {
	close(s.inDelete)
	<-s.beforeDelete
	return s.testStore.Delete(ctx, name)
}

// TestDeleteDuringRead: a deletion counts for every lookup that begins after it
// returned, although a lookup that began before has read the policy from the
// store by then.
func TestDeleteDuringRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{})
		x.Close()
		s := &gatedStore{testStore: x.store, beforeDelete: make(chan struct{}), afterGet: make(chan struct{}), inDelete: make(chan struct{}), gotten: make(chan struct{})}
		afterGet := s.afterGet
		x.Engine = New(Config{Store: s, Fetch: x.net})
		defer x.Close()
		x.put(storedPolicy("a.example", "A", "enforce", time.Now(), 7*24*time.Hour))
		if err := x.net.of("a.example").setRecord([]string{"none"}); err != nil {
			t.Fatal(err)
		}
		deleted := make(chan error, 1)
		go func() { deleted <- x.Delete(context.Background(), "a.example") }()
		<-s.inDelete             // the command has begun, and the store has the policy
		go x.lookup("a.example") // begins before the command returned
		<-s.gotten               // it has read the policy
		close(s.beforeDelete)    // the store deletes it
		if err := <-deleted; err != nil {
			t.Fatal(err)
		}
		close(afterGet)
		synctest.Wait()
		if d := x.lookup("a.example"); d.Kind != None {
			t.Errorf("after the deletion: %s %q (%s)", d.Kind, d.ID, d)
		}
		time.Sleep(time.Hour)
		x.lookup("a.example")
		synctest.Wait()
		if e := x.stored("a.example"); e.Policy != "" {
			t.Errorf("stored again: %+v", e)
		}
	})
}

// TestClockStepDuringFetch: a clock that is set forward for some minutes while a
// record is rechecked costs no policy, neither here nor in a shared store.
func TestClockStepDuringFetch(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprint(shared), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newTrial(t, Config{})
				if shared {
					x.close()
					x = newSharedTrials(t, 1)[0]
				}
				defer x.close()
				x.want("a.example", Enforce, "A")
				time.Sleep(2 * time.Hour)
				n := x.net.of("a.example")
				if err := errors.Join(n.setRecord([]string{"B"}), n.setPolicy([]string{"badcert"})); err != nil {
					t.Fatal(err)
				}
				n.set(func(n *fakeDomain) { n.delay = 10 * time.Second })
				x.want("a.example", Enforce, "A") // recheck begins behind it
				time.Sleep(5 * time.Second)
				x.setClock(8 * 24 * time.Hour)
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				x.setClock(0)
				time.Sleep(time.Second)
				if e := x.stored("a.example"); e.Policy == "" {
					t.Errorf("stored: %+v", e)
				}
				x.want("a.example", Enforce, "A")
				time.Sleep(2 * time.Hour)
				x.want("a.example", Enforce, "A")
			})
		})
	}
}

// TestReplaceHintWithoutStore: that another host replaces a policy takes it out of
// force nowhere, also where the store cannot be read at that moment.
func TestReplaceHintWithoutStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newSharedTrials(t, 1)[0]
		defer x.close()
		x.want("a.example", Enforce, "A")
		old := x.stored("a.example")
		time.Sleep(10 * time.Minute)
		if err := x.store.Memory.Replace(t.Context(), storedPolicy("a.example", "A", "enforce", time.Now(), 7*24*time.Hour), old.Fetched); err != nil {
			t.Fatal(err)
		}
		if err := x.net.of("a.example").setPolicy([]string{"badcert"}); err != nil {
			t.Fatal(err)
		}
		x.store.fail(OpGet)
		x.hint("a.example", true) // as Replace publishes it
		x.hint("a.example", false)
		x.want("a.example", Enforce, "A")
	})
}

// An afterPutStore calls a function between the first Put and its return.
type afterPutStore struct {
	*testStore
	after func()
}

func (s *afterPutStore) Put(ctx context.Context, e cache.Entry) error {
	err := s.testStore.Put(ctx, e)
	if f := s.after; f != nil {
		s.after = nil
		f()
	}
	return err
}

// TestHintDuringImport: a policy that another host deletes while an import of it
// ends is not put back.
func TestHintDuringImport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newSharedTrials(t, 1)[0]
		x.close()
		s := &afterPutStore{testStore: x.store}
		x.Engine = New(Config{Store: s, Shared: s, Fetch: x.net})
		defer x.Close()
		if err := x.net.of("a.example").setRecord([]string{"none"}); err != nil {
			t.Fatal(err)
		}
		s.after = func() {
			_ = x.store.Memory.Delete(context.Background(), "a.example")
			x.hint("a.example", true)
		}
		if err := x.Import(t.Context(), storedPolicy("a.example", "A", "enforce", time.Now(), 7*24*time.Hour)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		x.want("a.example", None, "")
		time.Sleep(2 * time.Minute)
		x.want("a.example", None, "")
		if e := x.stored("a.example"); e.Policy != "" {
			t.Errorf("put back: %+v", e)
		}
	})
}

// TestLookupAfterFailure: a lookup that begins after another one was answered that
// the record could not be looked up looks it up itself, although the flight of the
// other has not ended.
func TestLookupAfterFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		domain, reported := new(fakeDomain), make(chan struct{})
		domain.recordErr = errors.New("SERVFAIL")
		e := New(Config{Fetch: domain, Observe: func(ev Event) {
			if ev.Kind == RecordFailed {
				<-reported
			}
		}})
		defer e.Close()
		hop := dane.NextHop{Domain: "example.com"}
		if d := e.Lookup(t.Context(), hop, false); d.Kind != None {
			t.Fatalf("%s (%s)", d.Kind, d)
		}
		if err := errors.Join(domain.setRecord([]string{"A"}), domain.setPolicy([]string{"enforce"})); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, func() { close(reported) })
		if d := e.Lookup(t.Context(), hop, false); d.Kind != Enforce {
			t.Errorf("%s (%s)", d.Kind, d)
		}
	})
}
