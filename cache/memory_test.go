package cache

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func testPolicy(i int, life time.Duration) Entry {
	now := time.Now()
	return Entry{
		Domain: fmt.Sprintf("policy-%d.example", i), ID: "20260101T000000",
		Policy:  "version: STSv1\r\nmode: enforce\r\n" + strings.Repeat("mx: *.mail.example.net\r\n", 4) + "max_age: 604800\r\n",
		Fetched: now, Expires: now.Add(life), Checked: now, Recheck: now.Add(5 * time.Minute),
		Refresh: now.Add(24 * time.Hour), Used: now,
	}
}

func testAbsence(i int) Entry {
	now := time.Now()
	return Entry{Domain: fmt.Sprintf("absence-%d.example", i), Expires: now.Add(time.Hour), Checked: now, Recheck: now.Add(time.Hour), Used: now}
}

func has(t *testing.T, s Store, e Entry) bool {
	t.Helper()
	_, err := s.Get(t.Context(), e.Domain)
	if err != nil && !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// TestMemoryForgets goes through what a full Memory forgets: vector C26 and
// RFC 8461, Section 10.2.
func TestMemoryForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(3)
		old, short, long := testAbsence(1), testPolicy(1, time.Hour), testPolicy(2, 48*time.Hour)
		put := func(e Entry) {
			t.Helper()
			if err := m.Put(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		want := func(what string, there bool, entries ...Entry) {
			t.Helper()
			for _, e := range entries {
				if has(t, m, e) != there {
					t.Errorf("%s: %s is there: %v", what, e.Domain, !there)
				}
			}
		}
		put(short)
		put(long)
		put(old)
		put(testAbsence(2))
		want("an absence goes for an absence", false, old)
		want("an absence goes for an absence", true, testAbsence(2), short, long)

		put(testPolicy(3, 48*time.Hour))
		want("an absence goes for a policy", false, testAbsence(2))
		want("an absence goes for a policy", true, long, testPolicy(3, 0), short)

		put(testAbsence(3))
		want("no policy goes for an absence", false, testAbsence(3))
		want("no policy goes for an absence", true, long, testPolicy(3, 0), short)

		time.Sleep(2 * time.Hour)
		put(testAbsence(4))
		want("an expired policy goes first, though used last", false, short)
		want("an expired policy goes first", true, testPolicy(3, 0), testAbsence(4), long)

		put(testPolicy(5, time.Hour))
		want("then the absence", false, testAbsence(4))
		put(testPolicy(6, time.Hour))
		want("then the policy least recently used", false, testPolicy(3, 0))
		want("then the policy least recently used", true, long, testPolicy(5, 0), testPolicy(6, 0))

		put(testPolicy(7, -time.Hour))
		want("a policy that comes expired displaces none", false, testPolicy(7, 0))
		if got, want := m.Usage(), (Usage{Entries: 3, Most: 3, Expired: 1, Unused: 3, Policies: 1}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
}

// TestMemoryChurn compares the table with its own invariants while entries come,
// go and change sides, far beyond what there is room for.
func TestMemoryChurn(t *testing.T) {
	const limit = 2500 // more than two chunks
	m := NewMemory(limit)
	for i := range 20000 {
		n := (i * 7919) % 6000
		e := testPolicy(n, time.Duration(n)*time.Second)
		if n%3 == 0 {
			e = testAbsence(n)
		}
		if i%11 == 0 {
			_ = m.Delete(t.Context(), e.Domain)
		} else if err := m.Put(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if i%2000 == 0 {
			checkTable(t, m.table)
		}
	}
	checkTable(t, m.table)
	if n := len(m.table.index); n != limit {
		t.Errorf("%d entries, want %d", n, limit)
	}
	if n := m.table.nodes.n; n > limit+firstNode {
		t.Errorf("%d nodes for %d entries", n, limit)
	}
}

// TestMemoryBytes: however long the policies of strangers are, they take no more
// than there is room for, and what is forgotten for them is what would be
// forgotten for others.
func TestMemoryBytes(t *testing.T) {
	const limit = 100
	m := NewMemory(limit)
	long := func(i int, life time.Duration) Entry {
		e := testPolicy(i, life)
		e.Policy = strings.Repeat("x", 15_000)
		return e
	}
	put := func(e Entry) {
		t.Helper()
		if err := m.Put(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		checkTable(t, m.table)
	}
	absent, short, over := testAbsence(1), testPolicy(1, time.Hour), long(2, -time.Hour)
	put(over)
	put(absent)
	put(short)
	for i := range 5 {
		put(long(10+i, time.Hour))
	}
	if !has(t, m, over) || !has(t, m, absent) || !has(t, m, short) {
		t.Error("something went although there was room")
	}
	put(long(15, time.Hour))
	if has(t, m, over) || !has(t, m, absent) || !has(t, m, short) {
		t.Error("what is over did not go first, or not alone")
	}
	put(long(16, time.Hour))
	if has(t, m, absent) || !has(t, m, short) || has(t, m, long(10, 0)) || !has(t, m, long(11, 0)) {
		t.Error("an absence, then the policy least recently used, did not go, or not alone")
	}
	put(long(17, -time.Hour))
	if has(t, m, long(17, 0)) || !has(t, m, long(11, 0)) {
		t.Error("an expired policy displaced another")
	}
	// One that grows makes room, and is not what goes; all of it is given back.
	put(testPolicy(12, time.Hour))
	put(long(18, time.Hour))
	put(long(12, time.Hour))
	if !has(t, m, long(12, 0)) {
		t.Error("the policy that grew is gone")
	}
	for i := range 1000 {
		put(long(i%200, time.Duration(i%7-1)*time.Hour))
	}
	for i := range 200 {
		if err := m.Delete(t.Context(), long(i, 0).Domain); err != nil {
			t.Fatal(err)
		}
	}
	checkTable(t, m.table)
}

// TestLargerThanRoom: a policy that takes more than all there is has no copy
// where it is in the back; where it is nowhere else it stays, alone.
func TestLargerThanRoom(t *testing.T) {
	large := testPolicy(1, time.Hour)
	large.Policy = strings.Repeat("x", 3*usual)
	m := NewMemory(2)
	s := newScene(t, 2, 0)
	for _, store := range []Store{m, s} {
		for _, e := range []Entry{testPolicy(2, time.Hour), large} {
			if err := store.Put(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !has(t, m, large) || has(t, m, testPolicy(2, 0)) {
		t.Error("Memory does not hold it alone")
	}
	for range 2 {
		s.want(large)
	}
	s.want(testPolicy(2, 0))
	if n := s.back.gets.Load(); n != 2 {
		t.Errorf("the back was asked %d times, want twice for what is too large", n)
	}
	s.back.broken.Store(true)
	s.put(named(large, "dirty", time.Minute), errBack)
	s.want(named(large, "dirty", 0))
	s.back.broken.Store(false)
	s.put(named(large, "put", time.Hour), nil)
	s.want(named(large, "put", 0))
}

func checkTable(t *testing.T, tab *table) {
	t.Helper()
	linked := 0
	for ring := range int32(firstNode) {
		for i := tab.nodes.at(ring).next; i != ring; i = tab.nodes.at(i).next {
			n := tab.nodes.at(i)
			linked++
			if tab.index[domainOf(n.enc)] != i {
				t.Fatalf("node %d is not that of its domain", i)
			}
			if tab.keep.has(i) != (ring == ringKept) {
				t.Fatalf("node %d is in the wrong ring", i)
			}
			if tab.nodes.at(n.next).prev != i {
				t.Fatalf("node %d is badly linked", i)
			}
		}
	}
	var used int64
	for _, i := range tab.index {
		used += int64(len(tab.nodes.at(i).enc))
	}
	if used != tab.used || used > tab.room {
		t.Fatalf("%d bytes counted, %d used, %d allowed", tab.used, used, tab.room)
	}
	if linked != len(tab.index) || linked > tab.max {
		t.Fatalf("%d linked, %d indexed, %d allowed", linked, len(tab.index), tab.max)
	}
	for _, h := range []*timeHeap{&tab.due, &tab.keep} {
		for pos := range h.items.n {
			it := *h.items.at(pos)
			if h.nodes.at(it.node).pos[h.which] != pos+1 {
				t.Fatalf("heap %d: item %d does not know its place", h.which, pos)
			}
			if pos > 0 && h.items.at((pos-1)/2).at > it.at {
				t.Fatalf("heap %d: item %d is before its parent", h.which, pos)
			}
		}
	}
}

// TestMemorySize prints what an entry costs, and holds it to a budget. It is
// also where a key that keeps its old encoding alive would be seen.
func TestMemorySize(t *testing.T) {
	const n = 100_000
	for _, c := range []struct {
		name   string
		make   func(i int) Entry
		budget int
	}{
		{"absence", testAbsence, 200},
		{"policy", func(i int) Entry { return testPolicy(i, time.Hour) }, 500},
	} {
		m := NewMemory(n)
		before := heap()
		for range 3 {
			for i := range n {
				if err := m.Put(t.Context(), c.make(i)); err != nil {
					t.Fatal(err)
				}
			}
		}
		each := int(heap()-before) / n
		runtime.KeepAlive(m)
		t.Logf("%s: %d bytes", c.name, each)
		if each > c.budget {
			t.Errorf("an entry (%s) takes %d bytes, more than %d", c.name, each, c.budget)
		}
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// BenchmarkMemorySlowest fills a Memory of a million with two million entries,
// and reports the slowest Put and Get.
func BenchmarkMemorySlowest(b *testing.B) {
	const n = 1_000_000
	for b.Loop() {
		m := NewMemory(n)
		var slowPut, slowGet, slowDue time.Duration
		for i := range 2 * n {
			e := testAbsence(i)
			if i%4 == 0 {
				e = testPolicy(i, time.Hour)
			}
			start := time.Now()
			_ = m.Put(b.Context(), e)
			put := time.Now()
			_, _ = m.Get(b.Context(), e.Domain)
			slowPut, slowGet = max(slowPut, put.Sub(start)), max(slowGet, time.Since(put))
			if i%100_000 == 0 {
				start = time.Now()
				_, _ = m.Due(b.Context(), start.Add(48*time.Hour), time.Hour, 1)
				slowDue = max(slowDue, time.Since(start))
			}
		}
		b.ReportMetric(float64(slowPut.Microseconds()), "µs-slowest-Put")
		b.ReportMetric(float64(slowGet.Microseconds()), "µs-slowest-Get")
		b.ReportMetric(float64(slowDue.Microseconds()), "µs-slowest-Due")
	}
}

func BenchmarkMemoryGet(b *testing.B) {
	m := NewMemory(100_000)
	names := make([]string, 100_000)
	for i := range names {
		e := testPolicy(i, time.Hour)
		names[i] = e.Domain
		_ = m.Put(b.Context(), e)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			_, _ = m.Get(b.Context(), names[i*7919%len(names)])
		}
	})
}
