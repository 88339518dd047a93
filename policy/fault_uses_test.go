package policy

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/cache"
	"stsmap/dane"
)

// TestUsesAreBatched: once an hour the engine writes to the store, in one call
// for all domains, which domains with a policy were looked up, however often
// and by whatever next-hop. It writes nothing about a domain without a policy.
func TestUsesAreBatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{})
		defer x.close()
		name := func(i int) string { return fmt.Sprintf("d%d.example", i) }
		if err := x.net.of("none.example").setRecord([]string{"none"}); err != nil {
			t.Fatal(err)
		}
		x.run()
		time.Sleep(refreshEvery / 2)
		for hour := range int32(3) {
			for range 20 {
				for i := range 50 {
					x.want(name(i), Enforce, "A")
					x.Lookup(t.Context(), dane.NextHop{Domain: name(i), Port: 587}, false)
				}
				x.want("none.example", None, "")
				time.Sleep(time.Minute)
			}
			now := time.Now().Truncate(time.Hour)
			for i := range 50 {
				if e := x.stored(name(i)); !e.Used.Equal(now) {
					t.Fatalf("hour %d: %s was used %s, want %s", hour, name(i), e.Used, now)
				}
			}
			if n := x.store.touches.Load(); n != hour+1 {
				t.Errorf("the store was told %d times in %d hours", n, hour+1)
			}
			time.Sleep(40 * time.Minute)
		}
	})
}

// TestUsesOnClose: Close tells the store of the uses that wait.
func TestUsesOnClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{})
		time.Sleep(58 * time.Minute)
		x.want("a.example", Enforce, "A")
		time.Sleep(3 * time.Minute) // the record need not be looked up again
		x.want("a.example", Enforce, "A")
		want := time.Now().Truncate(time.Hour)
		if x.stored("a.example").Used.Equal(want) {
			t.Fatal("it is told already")
		}
		x.close()
		if e := x.stored("a.example"); !e.Used.Equal(want) {
			t.Errorf("it was used %s, want %s", e.Used, want)
		}
	})
}

// TestUsesAreBounded: the number of uses not yet written is bounded, and after
// a failed write the engine writes later uses again.
func TestUsesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{})
		defer x.close()
		now := time.Now()
		for i := range 2 * maxUses {
			x.uses.add(fmt.Sprintf("d%d.example", i), now)
		}
		if n := len(x.uses.waiting); n != maxUses {
			t.Errorf("%d wait, want %d", n, maxUses)
		}
		x.store.fail(OpTouch)
		x.writeUses(t.Context())
		if n := x.count(StoreFailed); n != 1 || len(x.uses.waiting) > maxUses {
			t.Errorf("%d failures, %d wait", n, len(x.uses.waiting))
		}
		x.store.fail()
		time.Sleep(58 * time.Minute)
		x.want("a.example", Enforce, "A")
		time.Sleep(3 * time.Minute)
		x.want("a.example", Enforce, "A")
		x.writeUses(t.Context())
		if e := x.stored("a.example"); !e.Used.Equal(time.Now().Truncate(time.Hour)) {
			t.Errorf("it was used %s", e.Used)
		}
	})
}

// TestEntries: what memory and store have is listed once, as memory has it, which is
// newer, and in order of its names; an error of the store comes last.
func TestEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t, Config{})
		defer x.close()
		week := 7 * 24 * time.Hour
		x.want("both.example", Enforce, "A")
		x.store.fail(OpPut)
		if err := x.net.of("both.example").setRecord([]string{"B"}); err != nil {
			t.Fatal(err)
		}
		if _, err := x.Retrieve(t.Context(), "both.example", true); err != nil {
			t.Fatal(err)
		}
		x.want("unsaved.example", Enforce, "A")
		for _, name := range []string{"none.example", "silent.example", "fails.example"} {
			if err := x.net.of(name).setRecord([]string{name[:len(name)-len(".example")]}); err != nil {
				t.Fatal(err)
			}
			x.want(name, None, "")
		}
		x.put(storedPolicy("stored.example", "S", "enforce", time.Now(), week))
		want := []string{"both.example B", "none.example ", "unsaved.example A", "stored.example S"}
		list := func() (got []string, last error) {
			for e, err := range x.Entries(t.Context()) {
				if last != nil {
					t.Error("something came after an error")
				}
				if last = err; err == nil {
					got = append(got, e.Domain+" "+e.ID)
				}
			}
			return got, last
		}
		if got, err := list(); err != nil || !slices.Equal(got, want) {
			t.Errorf("listed %q, %v, want %q", got, err, want)
		}
		x.store.fail(OpOther, OpGet)
		want = slices.DeleteFunc(want, func(line string) bool { return line == "stored.example S" })
		if got, err := list(); err == nil || !slices.Equal(got, want) {
			t.Errorf("without the store listed %q, %v, want %q", got, err, want)
		}
		for range x.Entries(t.Context()) {
			break // which must not go on
		}
		if e, err := x.Entry(t.Context(), "both.example"); err != nil || e.ID != "B" {
			t.Errorf("Entry: %q, %v", e.ID, err)
		}
		if _, err := x.Entry(t.Context(), "stored.example"); err == nil || errors.Is(err, cache.ErrNotFound) {
			t.Errorf("Entry without the store: %v", err)
		}
		x.store.fail()
		if e, err := x.Entry(t.Context(), "stored.example"); err != nil || e.ID != "S" {
			t.Errorf("Entry: %q, %v", e.ID, err)
		}
		for _, name := range []string{"other.example", "silent.example"} {
			if e, err := x.Entry(t.Context(), name); !errors.Is(err, cache.ErrNotFound) {
				t.Errorf("Entry of %s: %+v, %v", name, e, err)
			}
		}
	})
}
