package policy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing/synctest"
	"time"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/override"
)

// A simWorld is all that is simulated, and what the laws know of it. It lives in
// a bubble.
type simWorld struct {
	plan   simPlan
	began  time.Time
	hosts  []*simHost
	asking sync.WaitGroup // lookups, commands, starts and stops under way

	// No call of an engine is made while mu is held.
	mu       sync.Mutex
	domains  []*simDomain
	byName   map[string]*simDomain
	versions []*simVersion
	store    *simStore
	counts   [simKinds]int
	breach   *simBreach

	// By domain:
	storedAt   []time.Time // when the entry was written last
	removed    []cache.Entry
	deletedAt  []time.Time // by domain: when it was deleted from the store
	forgotten  []simForgotten
	purged     []time.Time // what began before is not demanded
	commandEnd []time.Time

	lostAt time.Time // when the store lost something last

	lastAnswers [simHosts][]*Decision // for a planted fault
	clocksWrong bool                  // some clock was set
	clockSlack  time.Duration         // by how much at most
}

func newSimWorld(plan simPlan) *simWorld {
	n := plan.domains
	w := &simWorld{
		plan: plan, began: time.Now(), byName: make(map[string]*simDomain),
		store:    &simStore{entries: make(map[string]cache.Entry), claims: make(map[string]simClaim), woken: make(chan struct{})},
		storedAt: make([]time.Time, n), removed: make([]cache.Entry, n), deletedAt: make([]time.Time, n), forgotten: make([]simForgotten, n),
		purged: make([]time.Time, n), commandEnd: make([]time.Time, n),
	}
	w.store.readable, w.store.writable = w.began.Add(-simDay), w.began.Add(-simDay)
	for i := range n {
		d := w.newDomain(i)
		d.calm, d.textCalm = w.began, w.began
		w.domains, w.byName[d.name] = append(w.domains, d), d
	}
	for i := range simHosts {
		h := &simHost{world: w, index: i, fault: plan.fault, allowed: true}
		if plan.dane {
			h.settings.DANE.Check = new(simFetcher).check
		}
		w.lastAnswers[i] = make([]*Decision, n)
		w.hosts = append(w.hosts, h)
		w.newLife(h)
	}
	return w
}

// newLife has a host know nothing. The lock must be held, or nothing run yet.
func (w *simWorld) newLife(h *simHost) {
	n := w.plan.domains
	h.life++
	h.began = time.Now()
	h.fetcher = &simFetcher{world: w, host: h, life: h.life}
	h.seen, h.failedID = make([]string, n), make([]string, n)
	h.memory, h.used, h.asked = make([]simFloor, n), make([]simUse, n), make([]simAsked, n)
	h.usedAt, h.failedAt = make([]time.Time, n), make([]time.Time, n)
	h.active, h.commands, h.destroys = make([]int, n), make([]int, n), make([]int, n)
	if h.epochs == nil {
		h.epochs = make([]int, n)
	}
	h.pressure = time.Time{}
}

// run carries out the schedule, and what follows it. It ends when a law breaks.
func (w *simWorld) run(events []simEvent) {
	for _, h := range w.hosts {
		h.start()
		h.up = true
	}
	for i, e := range events {
		if wait := time.Until(w.began.Add(e.at)); wait > 0 {
			time.Sleep(wait)
		}
		w.step(e)
		if i+1 < len(events) && events[i+1].at == e.at {
			continue // at the same moment
		}
		synctest.Wait()
		if w.isBroken() {
			break
		}
	}
	if !w.isBroken() && w.plan.fault == faultNone && !w.plan.brief {
		w.finish()
	}
	w.asking.Wait()
	for _, h := range w.hosts {
		if h.up {
			w.mu.Lock()
			h.up = false
			w.mu.Unlock()
			h.stop()
		}
		if rest := h.rest(); rest != "" {
			w.breaks(lawLeavesNone, -1, "host %d: after Close %s", h.index, rest)
		}
	}
}

func (w *simWorld) isBroken() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.breach != nil
}

// step carries out one event.
func (w *simWorld) step(e simEvent) {
	w.mu.Lock()
	h, d := w.hosts[e.host], w.domains[e.domain]
	ready := h.up && !h.busy
	onHost := e.kind == simLookup || e.kind > simHintsReturn
	if onHost && (!ready || w.breach != nil) {
		w.mu.Unlock()
		return
	}
	if e.kind != simClockSteps && e.kind != simClockReturns {
		w.counts[e.kind]++ // the engine may have no clock that can be set
	}
	switch {
	case e.kind == simLookup:
		q := w.ask(h, d)
		w.mu.Unlock()
		w.asking.Go(func() { w.lookup(h, e.hop(), q) })
		return
	case e.kind <= simDANEReturns:
		w.happen(e)
	case e.kind <= simHintsReturn:
		w.disturb(e)
	default:
		w.mu.Unlock()
		w.command(h, d, e)
		return
	}
	w.mu.Unlock()
}

// lookup has a host answer, and judges that.
func (w *simWorld) lookup(h *simHost, hop dane.NextHop, q *simQuestion) {
	switch h.fault {
	case faultAsksAlways:
		_, _ = h.fetcher.Record(context.Background(), hop.Domain)
	case faultSlow:
		time.Sleep(simTimeout + time.Second)
	}
	answer := h.faulty(h.lookup(hop))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.judge(h, q, h.answer(answer))
}

// command carries out what an administrator, the system or a stranger does to a
// host.
func (w *simWorld) command(h *simHost, d *simDomain, e simEvent) {
	rng := rand.New(rand.NewPCG(e.n, 4))
	switch e.kind {
	case simRestart, simKill:
		w.restart(h, e.kind == simKill, time.Duration(rng.ExpFloat64()*float64(time.Minute)))
	case simOverride, simOverrideEnds:
		w.override(h, d, e.kind == simOverride, rng)
	case simConfigure:
		w.configure(h, rng)
	case simForget:
		w.asking.Go(func() { w.forget(h, d) })
	case simImport:
		w.asking.Go(func() { w.importEntry(h, d, rng) })
	case simRetrieve:
		w.mu.Lock()
		life := h.life
		w.beganCommand(h, d, false)
		w.mu.Unlock()
		w.asking.Go(func() {
			h.retrieve(d.name)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.endedCommand(h, life, d, false)
		})
	case simClockSteps, simClockReturns:
		w.stepClock(h, e.kind == simClockSteps, rng)
	case simFlood:
		w.flood(h)
	}
}

// restart ends the life of a host, and begins another one after a while.
func (w *simWorld) restart(h *simHost, kill bool, down time.Duration) {
	w.mu.Lock()
	h.busy, h.up = true, false
	w.newLife(h)
	w.mu.Unlock()
	w.asking.Go(func() {
		if kill {
			h.kill()
		} else {
			h.stop()
		}
		if rest := h.rest(); rest != "" {
			w.mu.Lock()
			w.breaks(lawLeavesNone, -1, "host %d: after Close %s", h.index, rest)
			w.mu.Unlock()
		}
		time.Sleep(down)
		w.mu.Lock()
		w.newLife(h)
		w.mu.Unlock()
		h.start()
		w.mu.Lock()
		h.busy, h.up, h.began = false, true, time.Now()
		w.mu.Unlock()
	})
}

// override sets the overrides of a host to one for d, or to none.
func (w *simWorld) override(h *simHost, d *simDomain, set bool, rng *rand.Rand) {
	var table *override.Table
	if set {
		action := override.Action(rng.IntN(4))
		text := fmt.Sprintf("[[override]]\ndomain = %q\naction = %q\n", d.name, action)
		if action == override.Reply {
			text += "text = \"encrypt\"\n"
		}
		if rng.IntN(3) == 0 {
			text += "until = " + time.Now().Add(time.Duration(rng.IntN(7200))*time.Second).Format(time.RFC3339) + "\n"
		}
		var err error
		if table, err = override.Parse(text, func(string) error { return nil }); err != nil {
			panic(err)
		}
	}
	w.change(h, func() { h.rules = table }, func() { h.override(table) })
}

// configure changes the settings of a host.
func (w *simWorld) configure(h *simHost, rng *rand.Rand) {
	w.mu.Lock()
	c, allowed := h.settings, h.allowed
	w.mu.Unlock()
	switch rng.IntN(4) {
	case 0:
		c.Defer = !c.Defer
	case 1:
		c.DANE.FallBack = !c.DANE.FallBack
	case 2:
		c.DANE.Partial = !c.DANE.Partial
	case 3:
		allowed = !allowed
	}
	w.change(h, func() { h.settings, h.allowed = c, allowed }, func() {
		h.configure(c)
		h.allow(allowed)
	})
}

// change has a host do what counts at once for every domain.
func (w *simWorld) change(h *simHost, note, do func()) {
	do()
	w.mu.Lock()
	defer w.mu.Unlock()
	note()
	for d := range w.domains {
		w.upset(h, d)
	}
}

// forget has a host forget a domain.
func (w *simWorld) forget(h *simHost, d *simDomain) {
	w.mu.Lock()
	f := simForgotten{host: h.index, began: time.Now()}
	clean := w.quiet(h, d)
	life := h.life
	w.forgotten[d.index] = simForgotten{}
	w.beganCommand(h, d, true)
	w.mu.Unlock()
	err := h.forget(d.name)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.endedCommand(h, life, d, true)
	for _, other := range w.hosts {
		other.asked[d.index] = simAsked{} // the next lookup is a first contact
	}
	f.ended = time.Now()
	w.forgotten[d.index] = f
	w.mu.Unlock()
	time.Sleep(2 * simHintDelay) // until hints have reached the others
	w.mu.Lock()
	for _, other := range w.hosts {
		if other != h && other.usedAt[d.index].After(f.began.Add(-2*simTimeout)) {
			clean = false
		}
	}
	if w.forgotten[d.index] == f {
		w.forgotten[d.index].clean = clean && err == nil && life == h.life && h.up && w.quiet(h, d)
	}
}

// quiet reports whether a hint of what h does to d reaches all hosts, and no other
// does anything about d now.
func (w *simWorld) quiet(h *simHost, d *simDomain) bool {
	if w.store.state != simStoreWell || w.store.noHints || w.clocksWrong {
		return false
	}
	for _, other := range w.hosts {
		if other != h && (other.busy || other.active[d.index] > 0 || other.commands[d.index] > 0) {
			return false
		}
	}
	for _, fetch := range d.fetches {
		if fetch.host != h.index {
			return false
		}
	}
	return true
}

// importEntry has a host import a policy that was downloaded elsewhere.
func (w *simWorld) importEntry(h *simHost, d *simDomain, rng *rand.Rand) {
	w.mu.Lock()
	now := time.Now()
	life := h.life
	v := w.newVersion(d, rng)
	age := time.Duration(rng.Int64N(int64(v.maxAge)))
	v.began, v.done = now.Add(1), now.Add(-age).Truncate(time.Millisecond)
	e := cache.Entry{Domain: d.name, ID: d.id, Policy: v.text, Fetched: v.done.Add(time.Duration(h.offset.Load())), Used: now.Truncate(time.Hour)}
	w.beganCommand(h, d, true)
	w.mu.Unlock()
	err := h.importEntry(e)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.endedCommand(h, life, d, true)
	v.began = w.purged[d.index].Add(1)
	if err == nil {
		d.attempted = time.Now()
	}
	if err == nil && life == h.life && h.up {
		h.memory[d.index] = simFloor{version: v, fetched: e.Fetched, expires: e.Fetched.Add(v.maxAge), since: time.Now(), shaky: w.clocksWrong}
	}
}

// stepClock sets the wall clock of a host, or sets it right.
func (w *simWorld) stepClock(h *simHost, wrong bool, rng *rand.Rand) {
	var offset time.Duration
	if wrong {
		offset = time.Duration(rng.Int64N(int64(2*simClockMax))) - simClockMax
		if w.plan.farther && rng.IntN(3) == 0 {
			offset = time.Duration(rng.Int64N(int64(2*simClockFar))) - simClockFar
		}
	}
	if !h.setClock(offset) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if wrong {
		w.counts[simClockSteps]++
	} else {
		w.counts[simClockReturns]++
	}
	w.clocksWrong = true
	w.clockSlack = max(w.clockSlack, 2*offset.Abs())
	h.clockSet = time.Now()
	far := offset.Abs() >= time.Hour
	if far || !h.wrong.IsZero() {
		clear(h.memory)
	}
	h.wrong = time.Time{}
	if far {
		h.wrong = h.clockSet
	}
	for d := range w.domains {
		w.upset(h, d)
	}
}

// flood has strangers' domains with large policies looked up.
func (w *simWorld) flood(h *simHost) {
	const strangers = 60
	w.mu.Lock()
	h.pressure = time.Now()
	w.mu.Unlock()
	for i := range strangers {
		w.asking.Go(func() { h.lookup(dane.NextHop{Domain: fmt.Sprintf("s%d%s", i, simFloodName)}) })
	}
	w.asking.Go(func() {
		time.Sleep(time.Second)
		w.judgeMemory(h)
	})
}

// finish makes everything healthy, and expects everything to be in step after a
// day.
func (w *simWorld) finish() {
	if wait := time.Until(w.began.Add(time.Duration(w.plan.days) * simDay)); wait > 0 {
		time.Sleep(wait)
	}
	w.asking.Wait()
	w.mu.Lock()
	for _, kind := range []simKind{simPolicyReturns, simDNSReturns, simDANEReturns} {
		for d := range w.domains {
			w.happen(simEvent{kind: kind, domain: d})
		}
	}
	w.disturb(simEvent{kind: simStoreReturns})
	w.disturb(simEvent{kind: simHintsReturn})
	w.mu.Unlock()
	for _, h := range w.hosts {
		w.stepClock(h, false, nil)
	}
	for _, h := range w.hosts {
		w.change(h, func() { h.rules = nil }, func() { h.override(nil) })
	}
	end := time.Now()
	for _, after := range []time.Duration{2 * time.Minute, 8 * time.Minute, 70 * time.Minute, 80 * time.Minute, simFinalTime - time.Hour, simFinalTime} {
		time.Sleep(time.Until(end.Add(after)))
		for d := range w.domains {
			for h := range w.hosts {
				w.step(simEvent{kind: simLookup, host: h, domain: d, n: 9})
			}
		}
		w.asking.Wait()
		synctest.Wait()
		if w.isBroken() {
			return
		}
	}
	w.settled()
}

// settled expects both hosts to answer what the domains publish.
func (w *simWorld) settled() {
	for _, h := range w.hosts {
		for _, d := range w.domains {
			decision := h.lookup(dane.NextHop{Domain: d.name})
			w.mu.Lock()
			w.judgeStep(h, d, h.answer(decision))
			w.mu.Unlock()
		}
	}
}
