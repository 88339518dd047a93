package policy

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/override"
	"stsmap/sts"
	"stsmap/stsfetch"
)

const (
	// simTimeout is Config.Timeout, and simClaim how long a claim of a host
	// that has died keeps others from a download.
	simTimeout   = 30 * time.Second
	simClaimTime = simTimeout / 3
	// simCopyAge is how old what a host knows can be before it asks the store.
	simCopyAge = time.Minute
	// simPoll is how often a simulated host looks for what is due: less often
	// than a real one, since that is most of the time that a simulation takes.
	simPoll = 2 * time.Minute
	// simStorePatience is how long a host waits for the store, and simStoreRetry
	// how long it then leaves the store alone at most.
	simStorePatience = time.Second
	simStoreRetry    = 5 * time.Second
)

// A simHost is one host: all that depends on how the engine is made and called
// is in this file. A host is started and stopped again and again; each time is
// a life.
type simHost struct {
	world *simWorld
	index int
	fault simFault

	offset  atomic.Int64 // of the wall clock, in nanoseconds
	refused atomic.Bool  // the store has not taken something

	// What follows is of the present life; the lock of the world guards it.
	up       bool
	busy     bool // being started or stopped
	life     int
	began    time.Time
	fetcher  *simFetcher
	handle   *simHandle
	settings Config
	allowed  bool // whether DANE may be used
	rules    *override.Table
	seen     []string // by domain: id of the record seen last
	memory   []simFloor
	epochs   []int // by domain: counts what has answers change at once
	used     []simUse
	asked    []simAsked
	usedAt   []time.Time // by domain: when a lookup began last
	commands []int       // by domain: commands under way
	destroys []int       // by domain: those of them that can remove a policy
	failedID []string    // by domain: id whose download failed last
	failedAt []time.Time
	clockSet time.Time // when the clock was set last; zero: never
	wrong    time.Time // since when the clock is wrong by an hour or more
	pressure time.Time // when a flood came last
	active   []int     // by domain: lookups and commands under way

	engine *Engine
	cancel context.CancelFunc
	runs   sync.WaitGroup
}

// start begins a life. It is called without the lock of the world.
func (h *simHost) start() {
	entries := 16384
	if h.world.plan.floods {
		entries = 200
	}
	h.handle = &simHandle{world: h.world, host: h}
	store := cache.NewBreaker(func(context.Context) (cache.Store, error) { return h.handle, nil }, simStorePatience)
	store.Shared = true
	c := h.settings
	c.Store, c.Shared = store, store
	c.Fetch = faultyFetcher{h.fetcher, h.fault}
	c.Timeout = simTimeout
	c.CacheSize = entries
	c.Observe = func(Event) {}
	c.wallOffset = &h.offset
	if c.DANE.Check != nil {
		c.DANE.Check = h.fetcher.check
	}
	engine := New(c)
	h.world.mu.Lock()
	h.engine = engine
	h.world.mu.Unlock()
	engine.Override(h.rules)
	h.allow(h.allowed)
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	h.runs.Go(func() { store.Watch(ctx, engine.hint) })
	if h.fault != faultNeverRefreshes {
		h.runs.Go(func() { h.run(ctx, engine) })
	}
}

// run does what Engine.Run does, less often.
func (h *simHost) run(ctx context.Context, e *Engine) {
	slots := make(chan struct{}, 2*e.refreshes.size())
	for {
		if e.setBack.Swap(false) {
			h.runs.Go(func() { e.reviewRefreshes(ctx) })
		}
		for e.refreshDue(ctx, slots, &h.runs) {
		}
		e.saveUnsaved(ctx)
		e.writeUses(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(simPoll):
		}
	}
}

// stop ends a life in order. It is called without the lock of the world.
func (h *simHost) stop() {
	h.cancel()
	h.runs.Wait()
	h.engine.Close()
}

// kill ends a life as a crash does: nothing more reaches the store.
func (h *simHost) kill() {
	h.world.mu.Lock()
	h.handle.cut = true
	h.world.mu.Unlock()
	h.stop()
}

// rest reports what a stopped engine has left.
func (h *simHost) rest() string {
	m := h.engine.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, hop := range m.hops {
		if hop.check != nil || hop.domain.busy() {
			return name + ": a fetch or a DANE check is still registered"
		}
	}
	for _, share := range []*fairShare{h.engine.fetches, h.engine.refreshes, h.engine.checks} {
		if share.running > 0 || len(share.owners) > 0 || len(share.waiting) > 0 {
			return fmt.Sprintf("%d places are still taken", share.running)
		}
	}
	return ""
}

// memoryUsed returns how many bytes the engine takes for what is not being
// fetched or stored, and its bound.
func (h *simHost) memoryUsed() (used, bound int) {
	m := h.current().memory
	m.mu.Lock()
	defer m.mu.Unlock()
	used = int(m.bytes)
	for name, hop := range m.hops {
		if name == hop.domain.name && hop.domain.busy() {
			used -= int(hop.domain.bytes)
		}
	}
	return used, int(m.maxBytes)
}

// current is the engine of the present life.
func (h *simHost) current() *Engine {
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	return h.engine
}

// lookup asks as postfix.Handler does.
func (h *simHost) lookup(hop dane.NextHop) *Decision {
	e := h.current()
	if d := e.Cached([]byte(hop.String()), false); d != nil {
		return d
	}
	return e.Lookup(context.Background(), hop, false)
}

// A simAnswer is what the laws look at of an answer.
type simAnswer struct {
	kind     Kind
	version  *simVersion // nil: no policy
	id       string
	fetched  time.Time // by the clock of the host that downloaded it
	expires  time.Time
	override bool // the answer is that of an override, whatever the policy
	reason   string
}

// answer reads a decision. The lock of the world must be held.
func (h *simHost) answer(d *Decision) simAnswer {
	a := simAnswer{kind: d.Kind, id: d.ID, reason: d.String()}
	a.override = d.Override != nil && d.Override.Action != override.Enforce
	if d.STS != nil && d.from != nil {
		e := d.from.decoded(d.Domain)
		if p, err := sts.ParsePolicy([]byte(e.Policy)); err == nil && len(p.MX) > 0 {
			a.version = h.world.version("mx: " + string(p.MX[0]))
		}
		a.fetched, a.expires = e.Fetched, e.Expires
	}
	return a
}

func (h *simHost) override(t *override.Table) {
	if h.fault != faultIgnoresOverride {
		h.current().Override(t)
	}
}

// configure has the settings count. DANE stays on or off, as at the start.
func (h *simHost) configure(c Config) {
	c.Fetch, c.Timeout = faultyFetcher{h.fetcher, h.fault}, simTimeout
	if c.DANE.Check != nil {
		c.DANE.Check = h.fetcher.check
	}
	h.current().Configure(c)
}

func (h *simHost) allow(dane bool) {
	if dane {
		h.current().AllowDANE(nil)
	} else {
		h.current().AllowDANE(errSimNotAllowed)
	}
}

func (h *simHost) forget(domain string) error {
	if h.fault == faultForgetsNothing {
		return nil
	}
	return h.current().Delete(context.Background(), domain)
}

func (h *simHost) retrieve(domain string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*simTimeout)
	defer cancel()
	_, _ = h.current().Retrieve(ctx, domain, true)
}

func (h *simHost) importEntry(e cache.Entry) error {
	return h.current().Import(context.Background(), e)
}

// setClock has the wall clock of the host be wrong by offset from now on, and
// right if that is zero. It reports whether the engine has one that can be set.
func (h *simHost) setClock(offset time.Duration) bool {
	h.offset.Store(int64(offset))
	return true
}

// wall is what the clock of the host says at a time.
func (h *simHost) wall(t time.Time) time.Time { return t.Add(time.Duration(h.offset.Load())) }

// A simFault is planted in a host, for the laws to notice.
type simFault uint8

// The faults.
const (
	faultNone simFault = iota
	faultDropsOnFailure
	faultExtends
	faultIgnoresOverride
	faultTwoDownloads
	faultNoBackOff
	faultAsksAlways
	faultDefers
	faultForgetsNothing
	faultNeverRefreshes
	faultReadsNothing
	faultSlow
	faultNeverNotices
	faultOutlives
)

// A faultyFetcher is a Fetcher with a fault.
type faultyFetcher struct {
	*simFetcher
	fault simFault
}

// Policy implements Fetcher.
func (f faultyFetcher) Policy(ctx context.Context, name string) (string, *sts.Policy, error) {
	if strings.HasSuffix(name, simFloodName) {
		return f.simFetcher.Policy(ctx, name)
	}
	if f.fault == faultTwoDownloads {
		var second sync.WaitGroup
		defer second.Wait()
		second.Go(func() { _, _, _ = f.simFetcher.Policy(ctx, name) })
	}
	text, p, err := f.simFetcher.Policy(ctx, name)
	if err != nil && f.fault == faultNoBackOff {
		return f.simFetcher.Policy(ctx, name)
	}
	return text, p, err
}

// Record implements Fetcher.
func (f faultyFetcher) Record(ctx context.Context, name string) (r stsfetch.Record, err error) {
	r, err = f.simFetcher.Record(ctx, name)
	if f.fault == faultNeverNotices && r.ID != "" {
		r.ID = "i"
	}
	return r, err
}

// faulty returns the answer of a host with a fault in place of d.
func (h *simHost) faulty(d *Decision) *Decision {
	w := h.world
	w.mu.Lock()
	defer w.mu.Unlock()
	dom := w.byName[d.Domain]
	if dom == nil {
		return d
	}
	switch h.fault {
	case faultDropsOnFailure:
		if dom.host != simWell && d.STS != nil && d.Override == nil {
			return &Decision{Domain: d.Domain, NextHop: d.NextHop}
		}
	case faultDefers:
		if d.STS == nil && d.Override == nil {
			return &Decision{Domain: d.Domain, NextHop: d.NextHop, Kind: Failed}
		}
	case faultOutlives:
		if last := w.lastAnswers[h.index][dom.index]; d.STS == nil && d.Override == nil && last != nil {
			return last
		}
		if d.STS != nil {
			w.lastAnswers[h.index][dom.index] = d
		}
	}
	return d
}
