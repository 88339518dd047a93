package policy

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"stsmap/dane"
)

// A simKind is what happens in an event of a simulation.
type simKind uint8

// The kinds of events. Those up to simDANEReturns happen to a domain, those up
// to simStoreWritten to the store, the others to a host.
const (
	simLookup simKind = iota
	simPolicyChanges
	simPolicyRepeatsID
	simRecordVanishes
	simRecordInvalid
	simRecordTwice
	simRecordAppears
	simPolicyHangs
	simPolicyMissing
	simPolicyBadCert
	simPolicyGarbage
	simPolicyReturns
	simDNSFails
	simDNSSilent
	simDNSReturns
	simSlower
	simDANEChanges
	simDANEFails
	simDANESilent
	simDANEHangs
	simDANEReturns
	simStoreRefuses
	simStoreReadOnly
	simStoreHangs
	simStoreLate
	simStoreReturns
	simStoreLosesSecond
	simStoreFlushed
	simStoreWritten
	simHintsLost
	simHintsReturn
	simRestart
	simKill
	simOverride
	simOverrideEnds
	simConfigure
	simForget
	simImport
	simRetrieve
	simClockSteps
	simClockReturns
	simFlood
	simKinds // how many there are
)

// String returns what is printed of k.
func (k simKind) String() string {
	return [...]string{
		"lookup", "policy and id change", "policy changes, id stays", "record vanishes", "record becomes invalid", "second record", "record appears",
		"policy host hangs", "policy host answers 404", "policy host has a bad certificate", "policy host serves garbage", "policy host returns",
		"DNS fails", "DNS is silent", "DNS returns", "DNS and policy host become slower or faster", "DANE result changes", "DANE fails", "DANE is silent", "DANE hangs", "DANE returns",
		"store refuses", "store refuses writes", "store hangs", "store writes, then hangs", "store returns", "store loses its last second", "store is flushed", "another host writes to the store",
		"hints are lost", "hints return", "restart", "kill", "override", "override ends", "settings change", "cache forget", "import", "cache refresh",
		"clock is set", "clock is set right", "flood of large policies",
	}[k]
}

// A simEvent is one event of a schedule. What its numbers mean depends on the
// kind; n is a seed for what is drawn when the event happens.
type simEvent struct {
	at     time.Duration // since the beginning
	kind   simKind
	host   int
	domain int
	n      uint64
}

// hop is the next-hop of a lookup: now and then one with a port, or a host.
func (e simEvent) hop() dane.NextHop {
	hop := dane.NextHop{Domain: simName(e.domain)}
	switch e.n % 10 {
	case 0:
		hop.Port = 587
	case 1:
		hop.NoMX = true
	}
	return hop
}

func (e simEvent) String() string {
	day := e.at / simDay
	rest := e.at % simDay
	text := fmt.Sprintf("day %2d %02d:%02d:%06.3f  ", day, int(rest.Hours()), int(rest.Minutes())%60, math.Mod(rest.Seconds(), 60))
	switch {
	case e.kind == simLookup:
		return text + fmt.Sprintf("host %d  %s lookup", e.host, e.hop())
	case e.kind == simForget || e.kind == simImport || e.kind == simRetrieve || e.kind == simOverride || e.kind == simOverrideEnds:
		return text + fmt.Sprintf("host %d  %s %s", e.host, simName(e.domain), e.kind)
	case e.kind <= simDANEReturns || e.kind == simStoreWritten:
		return text + fmt.Sprintf("%s  %s", simName(e.domain), e.kind)
	case e.kind < simStoreWritten:
		return text + e.kind.String()
	}
	return text + fmt.Sprintf("host %d  %s", e.host, e.kind)
}

// simName is the name of a domain.
func simName(domain int) string { return fmt.Sprintf("d%02d.example", domain) }

const (
	simHosts     = 2
	simPerDay    = 20 // events a day that are no lookups
	simClockMax  = 50 * time.Minute
	simClockFar  = 6 * time.Hour
	simFinalTime = 27 * time.Hour // after the last day, for all to be in step again
)

// A simPlan is what does not change during a simulation. It follows from the
// seed alone.
type simPlan struct {
	seed    uint64
	days    int
	domains int
	dane    bool // DANE goes before policies
	clocks  bool // clocks of hosts are set
	farther bool // by more than an hour, too
	floods  bool // memory is small, and strangers publish large policies
	brief   bool // ends with the schedule, in step or not
	fault   simFault
	only    string // parts of the names of the laws to look at, with commas between; empty: all
}

func newSimPlan(seed uint64, days, domains int) simPlan {
	rng := rand.New(rand.NewPCG(seed, 1))
	p := simPlan{seed: seed, days: days, domains: domains}
	p.dane = rng.IntN(2) == 0
	p.clocks = rng.IntN(2) == 0
	p.farther = p.clocks && rng.IntN(4) == 0
	p.floods = rng.IntN(4) == 0
	return p
}

// A simPlanner draws a schedule.
type simPlanner struct {
	simPlan
	rng    *rand.Rand
	events []simEvent
}

// schedule returns the events of p in their order.
func (p simPlan) schedule() []simEvent {
	s := &simPlanner{simPlan: p, rng: rand.New(rand.NewPCG(p.seed, 2))}
	for d := range p.domains {
		s.uses(d)
	}
	total := time.Duration(p.days) * simDay
	for range p.days * simPerDay {
		s.happen(time.Duration(s.rng.Int64N(int64(total))))
	}
	slices.SortStableFunc(s.events, func(a, b simEvent) int { return cmp.Compare(a.at, b.at) })
	return s.events
}

// uses has the domain used by mail: some domains hourly, some daily, some rarely.
func (s *simPlanner) uses(d int) {
	mean := [...]time.Duration{simDay, 6 * time.Hour, simDay, simDay, 4 * simDay, 2 * simDay, time.Hour, simDay, 2 * simDay, 8 * simDay}[d%10]
	at := time.Duration(0)
	for {
		at += time.Duration(s.rng.ExpFloat64() * float64(mean))
		if at >= time.Duration(s.days)*simDay {
			return
		}
		s.lookup(at, d)
	}
}

func (s *simPlanner) lookup(at time.Duration, d int) {
	if at < 0 {
		return
	}
	s.events = append(s.events, simEvent{at: at, kind: simLookup, host: s.rng.IntN(simHosts), domain: d, n: s.rng.Uint64()})
}

func (s *simPlanner) add(at time.Duration, kind simKind, host, domain int) {
	s.events = append(s.events, simEvent{at: at, kind: kind, host: host, domain: domain, n: s.rng.Uint64()})
}

// lasting draws how long a disturbance lasts: from seconds to hours, and now
// and then for days.
func (s *simPlanner) lasting() time.Duration {
	if s.rng.IntN(12) == 0 {
		return time.Duration((1 + 3*s.rng.Float64()) * float64(simDay))
	}
	return time.Duration(float64(5*time.Second) * math.Pow(2000, s.rng.Float64()))
}

// A simChance is how many of a hundred events are of one of some kinds.
type simChance struct {
	below int // how many are of these kinds or of those before
	kinds []simKind
	ends  simKind // what ends the disturbance later; 0 if nothing does
}

// chances returns how often each kind of event happens in p.
func (p simPlan) chances() []simChance {
	clock, last := simChance{99, []simKind{simRetrieve}, 0}, simPolicyChanges
	if p.clocks {
		clock = simChance{99, []simKind{simClockSteps}, simClockReturns}
	}
	if p.floods {
		last = simFlood
	}
	return []simChance{
		{14, []simKind{simPolicyChanges}, 0},
		{19, []simKind{simPolicyRepeatsID}, 0},
		{26, []simKind{simRecordVanishes, simRecordInvalid, simRecordTwice}, simRecordAppears},
		{40, []simKind{simPolicyHangs, simPolicyMissing, simPolicyBadCert, simPolicyGarbage}, simPolicyReturns},
		{48, []simKind{simDNSFails, simDNSSilent}, simDNSReturns},
		{52, []simKind{simSlower}, 0},
		{56, []simKind{simDANEChanges}, 0},
		{60, []simKind{simDANEFails, simDANESilent, simDANEHangs}, simDANEReturns},
		{68, []simKind{simStoreRefuses, simStoreReadOnly, simStoreHangs, simStoreLate}, simStoreReturns},
		{72, []simKind{simStoreLosesSecond, simStoreFlushed, simStoreWritten}, 0},
		{74, []simKind{simHintsLost}, simHintsReturn},
		{78, []simKind{simRestart, simKill}, 0},
		{83, []simKind{simOverride}, simOverrideEnds},
		{86, []simKind{simConfigure}, 0},
		{90, []simKind{simForget}, 0},
		{92, []simKind{simImport}, 0},
		{95, []simKind{simRetrieve}, 0},
		clock,
		{100, []simKind{last}, 0},
	}
}

// happen draws one event, with its end where it has one, and has the domain
// looked up around it.
func (s *simPlanner) happen(at time.Duration) {
	host, d, n := s.rng.IntN(simHosts), s.rng.IntN(s.domains), s.rng.IntN(100)
	all := s.chances()
	c := all[slices.IndexFunc(all, func(c simChance) bool { return n < c.below })]
	kind := c.kinds[0]
	if len(c.kinds) > 1 {
		kind = c.kinds[s.rng.IntN(len(c.kinds))]
	}
	s.add(at, kind, host, d)
	if c.ends != 0 {
		lasts := s.lasting()
		if kind == simClockSteps {
			lasts = min(lasts, simClockMax)
		}
		s.add(at+lasts, c.ends, host, d)
	}
	s.around(at, d)
	if s.rng.IntN(3) == 0 {
		s.around(at, s.rng.IntN(s.domains))
	}
}

// around has the domain looked up before, during and after an event.
func (s *simPlanner) around(at time.Duration, d int) {
	before := time.Duration(s.rng.Int64N(int64(25 * time.Second)))
	s.lookup(at-before, d)
	s.lookup(at-before/2, d)
	for _, after := range []time.Duration{0, time.Millisecond, time.Second, 6 * time.Second, 40 * time.Second, 62 * time.Second, 70 * time.Second, 6 * time.Minute, 8 * time.Minute, 70 * time.Minute} {
		if s.rng.IntN(5) < 2 {
			s.lookup(at+after+time.Duration(s.rng.Int64N(int64(after/4)+1)), d)
		}
	}
}
