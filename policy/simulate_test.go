package policy

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestSimulate simulates two hosts that share a store, and holds them against
// the laws after every step. The environment variables SEEDS, DAYS, DOMAINS and
// SEED (the first one) make it longer; see "make simulate". A broken law prints
// its seed and the shortest history found that breaks it again: SHOW of each law,
// with SHRINK seconds of looking for a shorter one. To look into some laws alone,
// LAW has parts of their names with commas between.
func TestSimulate(t *testing.T) {
	seeds, days := simNumber(t, "SEEDS", 2), simNumber(t, "DAYS", 2)
	domains, first := simNumber(t, "DOMAINS", 50), simNumber(t, "SEED", 1)
	var mu sync.Mutex
	var counts [simKinds]int
	broken := make(map[string][]uint64)
	began, done := time.Now(), 0
	note := func(seed uint64, breach *simBreach, n [simKinds]int) (show bool) {
		mu.Lock()
		defer mu.Unlock()
		done++
		for k := range n {
			counts[k] += n[k]
		}
		if testing.Verbose() && done%max(seeds/20, 1) == 0 && seeds > 20 {
			t.Logf("%d of %d seeds after %s", done, seeds, time.Since(began).Round(time.Second))
		}
		if breach == nil {
			return false
		}
		if testing.Verbose() {
			t.Logf("seed %d: %s: %s", seed, breach.law, breach.text)
		}
		broken[breach.law] = append(broken[breach.law], seed)
		return len(broken[breach.law]) <= simNumber(t, "SHOW", 1)
	}
	run := func(seed uint64) {
		plan := newSimPlan(seed, days, domains)
		plan.only = os.Getenv("LAW")
		events := plan.schedule()
		breach, n := simulate(t, plan, events)
		if note(seed, breach, n) {
			t.Error(plan.explain(t, events, breach))
		}
	}
	simParallel(seeds, func(i int) { run(uint64(first + i)) })
	for law, in := range broken {
		slices.Sort(in)
		t.Errorf("%s: broken with %d of %d seeds: %v", law, len(in), seeds, in[:min(len(in), 20)])
	}
	t.Logf("%d seeds of %d days and %d domains in %s; events:\n%s", seeds, days, domains, time.Since(began).Round(time.Millisecond), simCounts(counts))
}

// simNumber reads a number from the environment.
func simNumber(t *testing.T, name string, def int) int {
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// simParallel calls do with the numbers below n, as many at a time as there are
// processors.
func simParallel(n int, do func(i int)) {
	numbers := make(chan int)
	var workers sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		workers.Go(func() {
			for i := range numbers {
				do(i)
			}
		})
	}
	for i := range n {
		numbers <- i
	}
	close(numbers)
	workers.Wait()
}

// simCounts prints how often each kind of event happened.
func simCounts(counts [simKinds]int) string {
	var b strings.Builder
	for k, n := range counts {
		fmt.Fprintf(&b, "%10d  %s\n", n, simKind(k))
	}
	return b.String()
}

// simulate carries out a schedule in a bubble of its own, and returns the first
// broken law, if any, and how often each kind of event happened.
func simulate(t *testing.T, plan simPlan, events []simEvent) (breach *simBreach, counts [simKinds]int) {
	synctest.Test(t, func(*testing.T) {
		w := newSimWorld(plan)
		w.run(events)
		breach, counts = w.breach, w.counts
	})
	return breach, counts
}

// explain prints a broken law with the shortest history found.
func (p simPlan) explain(t *testing.T, events []simEvent, breach *simBreach) string {
	short, last := p.shrink(t, events, breach)
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: broken law: %s\n%s\n", p.seed, breach.law, breach.text)
	fmt.Fprintf(&b, "DANE: %t, clocks are set: %t, floods: %t\nThe shortest history found (%d of %d events) ends %s after its beginning:\n", p.dane, p.clocks, p.floods, len(short), len(events), last.at)
	shown := make(map[int]bool)
	for _, e := range short {
		if e.kind <= simDANEReturns && !shown[e.domain] && (len(shown) < 5 || e.domain == last.domain) {
			shown[e.domain] = true
			fmt.Fprintf(&b, "    at first %s\n", p.describe(e.domain))
		}
	}
	for i, e := range short {
		if i == 80 {
			fmt.Fprintf(&b, "    and %d more\n", len(short)-i)
			break
		}
		fmt.Fprintf(&b, "    %s\n", e)
	}
	fmt.Fprintf(&b, "    %s\n", last.text)
	return b.String()
}

// describe prints how a domain is at the beginning.
func (p simPlan) describe(domain int) string {
	w := &simWorld{plan: p}
	var d *simDomain
	for i := range domain + 1 {
		d = w.newDomain(i)
	}
	return fmt.Sprintf("%s: id %s (%v), TTL %s, DNS takes %s; version %d, %s, max_age %s, policy host takes %s", d.name, d.id, d.why, d.ttl, d.dnsDelay, d.policy.number, d.policy.mode, d.policy.maxAge, d.hostDelay)
}

// A simShrinker looks for a shorter history that breaks the same law.
type simShrinker struct {
	t        *testing.T
	plan     simPlan
	breach   *simBreach
	deadline time.Time
	last     *simBreach // of the shortest history
}

// shrink returns the shortest history found by delta debugging: events are left
// out, in smaller and smaller parts, for as long as the same law breaks.
func (p simPlan) shrink(t *testing.T, events []simEvent, breach *simBreach) ([]simEvent, *simBreach) {
	s := &simShrinker{t: t, plan: p, breach: breach, last: breach, deadline: time.Now().Add(time.Duration(simNumber(t, "SHRINK", 15)) * time.Second)}
	s.cut(&events)
	s.shift(&events)
	if breach.domain >= 0 {
		s.try(&events, func(e simEvent) bool { return e.domain == breach.domain || e.kind > simDANEReturns })
		s.try(&events, func(e simEvent) bool { return e.domain == breach.domain })
		s.try(&events, func(e simEvent) bool { return e.domain == breach.domain && e.kind <= simDANEReturns })
	}
	s.try(&events, func(e simEvent) bool { return e.kind != simLookup || e.domain == breach.domain })
	for parts := 2; len(events) > 1 && time.Now().Before(s.deadline); {
		size := (len(events) + parts - 1) / parts
		smaller := false
		for at := 0; at < len(events) && time.Now().Before(s.deadline); {
			without := slices.Concat(events[:at], events[min(at+size, len(events)):])
			if s.breaks(without, 1+2*min(40/len(events), 1)) { // more runs where they take little time
				events, smaller = without, true
				s.cut(&events)
				s.shift(&events)
			} else {
				at += size
			}
		}
		if size == 1 && !smaller {
			break
		}
		if !smaller {
			parts = min(parts*2, len(events))
		}
	}
	return events, s.last
}

// cut removes what comes after the law broke.
func (s *simShrinker) cut(events *[]simEvent) {
	n, _ := slices.BinarySearchFunc(*events, s.last.at+1, func(e simEvent, at time.Duration) int { return cmp.Compare(e.at, at) })
	*events = (*events)[:n]
}

// shift begins with the first event, if the law still breaks then: days in which
// nothing happens take time to simulate.
func (s *simShrinker) shift(events *[]simEvent) {
	if len(*events) == 0 || (*events)[0].at < time.Hour {
		return
	}
	shifted := slices.Clone(*events)
	for i := range shifted {
		shifted[i].at -= (*events)[0].at - time.Minute
	}
	if s.breaks(shifted, 1) {
		*events = shifted
		s.cut(events)
	}
}

// try keeps those events alone that match, if the law still breaks then.
func (s *simShrinker) try(events *[]simEvent, match func(simEvent) bool) {
	var some []simEvent
	for _, e := range *events {
		if match(e) {
			some = append(some, e)
		}
	}
	if len(some) < len(*events) && s.breaks(some, 4) {
		*events = some
		s.cut(events)
	}
}

// breaks reports whether the law breaks with these events in one of some runs:
// the order of goroutines is the scheduler's, and the engine spreads refreshes at
// random.
func (s *simShrinker) breaks(events []simEvent, runs int) bool {
	for range runs {
		if b, _ := simulate(s.t, s.plan, events); b.same(s.breach) {
			s.last = b
			return true
		}
	}
	return false
}

// TestSimulatorNotices plants faults, and expects the laws to notice each.
func TestSimulatorNotices(t *testing.T) {
	for _, c := range []struct {
		fault simFault
		law   string
		seed  uint64 // of the first schedule that is tried
	}{
		{faultDropsOnFailure, lawInForce, 0},
		{faultExtends, lawLifetime, 0},
		{faultIgnoresOverride, lawOverride, 0},
		{faultTwoDownloads, lawOnce, 0},
		{faultNoBackOff, lawBackOff, 0},
		{faultAsksAlways, lawZone, 0},
		{faultDefers, lawDefer, 0},
		{faultForgetsNothing, lawForget, 15},
		{faultNeverRefreshes, lawDaily, 0},
		{faultReadsNothing, lawKept, 21},
		{faultSlow, lawInTime, 0},
		{faultNeverNotices, lawNoticed, 0},
		{faultOutlives, lawLifetime, 0},
	} {
		t.Run(c.law, func(t *testing.T) {
			for seed := c.seed; seed < c.seed+100; seed++ {
				if noticed(t, seed, c.fault, c.law) {
					t.Logf("with seed %d", seed)
					return
				}
			}
			t.Error("not noticed")
		})
	}
}

// noticed reports whether a law breaks with a fault, and not without it.
func noticed(t *testing.T, seed uint64, fault simFault, law string) bool {
	plan := newSimPlan(seed, 2, 50)
	plan.only, plan.fault, plan.brief = law, fault, true
	events := plan.schedule()
	breach, _ := simulate(t, plan, events)
	if breach == nil {
		return false
	}
	n, _ := slices.BinarySearchFunc(events, breach.at+time.Minute, func(e simEvent, at time.Duration) int { return cmp.Compare(e.at, at) })
	plan.fault = faultNone
	breach, _ = simulate(t, plan, events[:n])
	return breach == nil
}
