// Package policy decides what applies to mail for a domain: its MTA-STS policy,
// or DANE, which goes before it (RFC 8461, Section 2). It knows when a cached
// policy still counts, when to ask the domain again, when to give up, and what
// a failure means (RFC 8461, Sections 3.3, 5 and 10.2).
//
// It speaks to nobody by itself: stsfetch and dane ask, cache remembers,
// override has the exceptions of the administrator, which go before all that,
// postfix puts the decision into Postfix's words, and admin shows what happened.
// It does not log; all that it has to tell is an Event.
//
// The rules are in pure functions with the clock as an argument: next says what
// is to be remembered of a domain after something was learned, decide what that
// means for mail, conclude what is to be remembered of a DANE check, and weigh
// what the two mean together. The rest of the package is about who asks when.
//
//	Known ──► decisions at hand, no I/O
//	Lookup ─► an override? its answer
//	   │
//	   ├────► one flight per domain ─► store ─► known and valid? publish it
//	   │                                 │
//	   │      Run ─► what is due ────────┤   record to be looked at again?
//	   │                                 ▼
//	   │                        record ─► download ─► next ─► decide ─► with
//	   │                                    ║                            ▲
//	   └─► a policy may be at stake? one check per next-hop ─► conclude ─┘
package policy

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"stsmap/cache"
	"stsmap/override"
	"stsmap/sts"
	"stsmap/stsfetch"
)

// A Fetcher asks a domain. *stsfetch.Fetcher is the one there is.
type Fetcher interface {
	// Record looks up the record, as stsfetch.Fetcher.Record does.
	Record(ctx context.Context, domain string) (stsfetch.Record, error)
	// Policy downloads the policy, as stsfetch.Fetcher.Policy does.
	Policy(ctx context.Context, domain string) (text string, p *sts.Policy, err error)
}

// Config says how an Engine works. It is copied by New.
type Config struct {
	// Store remembers. It must be set; the caller closes it after the Engine.
	Store cache.Store
	// Claims are those on the domains in Store, if other processes use it, too:
	// a domain that nothing is known of is retrieved by one of them, and the
	// others wait for what that one learns. Nil means that none does. See also
	// Changed.
	Claims cache.Claims
	// Fetch asks. It must be set.
	Fetch Fetcher
	// Timeout bounds one retrieval from beginning to end, and so the time
	// that a lookup can take; zero means 30 seconds.
	Timeout time.Duration
	// Workers is how many downloads may run at once; zero means 32.
	Workers int
	// Refresh is how long after a download the next one follows whatever the
	// record says (RFC 8461, Section 10.2); zero means 24 hours.
	Refresh time.Duration
	// Recheck is how long the record is not looked at again on use, if its
	// TTL is not shorter; zero means 5 minutes, which is Postfix's shortest
	// delay between two attempts (RFC 8461, Section 5).
	Recheck time.Duration
	// Forget is how long after the last use a domain is not refreshed any
	// more and its policy left to expire; zero means 90 days.
	Forget time.Duration
	// DANE says how DANE goes before policies.
	DANE DANEConfig
	// Ready is how many decisions are kept at hand for Known; zero means
	// 16384.
	Ready int
	// Defer makes mail wait while nothing is known about a domain and its
	// record cannot be looked up; otherwise it is delivered as to a domain
	// without a policy.
	Defer bool
	// Strict has policies in mode testing decided a second time, as if they
	// were in mode enforce, for those who ask for that: see Decision.Strict.
	Strict bool
	// Render makes what a client is told of a policy in mode enforce or
	// testing: Decision.Answer. It is called once for each policy that is read
	// or downloaded, before anybody else sees the decision, and only then
	// STS.Lines is there; nil means that there is nothing to make. An error
	// tells why the policy cannot be put into force in the words of the
	// client: while it is to be enforced and DANE does not go before it, mail
	// waits. The answer counts nevertheless.
	Render func(*Decision) (answer string, err error)
	// Observe is told everything that happens; nil means nobody listens. It
	// is called from many goroutines, in the way of answers: it must be safe
	// for that, and fast.
	Observe func(Event)
}

// An Engine answers which policy applies. Its methods may be called
// concurrently.
type Engine struct {
	store    cache.Store
	claims   cache.Claims // on what is in store, if others use it; else nil
	render   func(*Decision) (string, error)
	observe  func(Event)
	ready    *decisions
	findings *findings
	versions *versions
	settings atomic.Pointer[settings]

	overrides atomic.Pointer[override.Table] // nil or empty for most

	permit     atomic.Pointer[permit] // nil until AllowDANE was called
	permitted  chan struct{}          // closed then
	permitting sync.Mutex             // orders calls of AllowDANE
	checks     chan struct{}          // one element for each DANE check under way
	settling   sync.Mutex             // held while a decision is made from what is at hand

	began time.Time    // when New was called, with its monotonic reading
	clock atomic.Int64 // drift when the decisions at hand were made

	ctx     context.Context // of all flights; ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup // flights, and what else Close waits for
	touches touches

	mu      sync.Mutex
	flights map[string]*flight // domain to the one retrieval that may run for it
	closed  bool
}

// settings are what Configure can change. A flight keeps those that it began
// with.
type settings struct {
	fetch    Fetcher
	timeout  time.Duration
	deferred bool
	dane     DANEConfig
	strict   bool
	rules    rules
	slots    chan struct{} // one element for each download under way
}

// New returns an Engine. It starts nothing; see Run.
func New(c Config) *Engine {
	most := orDefault(c.Ready, 16384)
	e := &Engine{
		store:     c.Store,
		claims:    c.Claims,
		render:    c.Render,
		observe:   c.Observe,
		ready:     newDecisions(most),
		findings:  newFindings(most),
		versions:  newVersions(),
		permitted: make(chan struct{}),
		checks:    make(chan struct{}, mostDANE),
		flights:   make(map[string]*flight),
		touches:   touches{waiting: make(map[string]time.Time)},
		began:     time.Now(),
	}
	if e.observe == nil {
		e.observe = func(Event) {}
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.Configure(c)
	return e
}

// Configure replaces the settings of a running Engine; retrievals under way
// end with the old ones. Store, Claims, Ready, Render and Observe stay as they were.
func (e *Engine) Configure(c Config) {
	next := &settings{
		fetch:    c.Fetch,
		timeout:  orDefault(c.Timeout, 30*time.Second),
		deferred: c.Defer,
		dane:     c.DANE,
		strict:   c.Strict,
		rules: rules{
			refresh: orDefault(c.Refresh, 24*time.Hour),
			recheck: orDefault(c.Recheck, 5*time.Minute),
			forget:  orDefault(c.Forget, 90*24*time.Hour),
		},
		slots: make(chan struct{}, orDefault(c.Workers, 32)),
	}
	e.settling.Lock()
	defer e.settling.Unlock()
	if last := e.settings.Swap(next); last != nil && (!last.dane.sameAs(c.DANE) || last.strict != c.Strict) {
		e.ready.clear()
	}
}

// matters reports whether what DANE says matters where MTA-STS says k.
func (s *settings) matters(k Kind) bool {
	return s.dane.weighs(k) || s.strict && k == Testing && s.dane.weighs(Enforce)
}

func orDefault[T int | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

// clockJump is how far the clock must be set to be noticed.
const clockJump = time.Minute

// drift is how far the wall clock has moved since New beyond the time that has
// passed.
func (e *Engine) drift(now time.Time) time.Duration {
	return time.Duration(now.UnixNano()-e.began.UnixNano()) - now.Sub(e.began)
}

// clockWasSet reports whether the clock was set since the decisions at hand
// were made, and then gives them up: they hold until times on that clock.
func (e *Engine) clockWasSet(now time.Time) bool {
	drift, last := int64(e.drift(now)), e.clock.Load()
	if max(drift-last, last-drift) < int64(clockJump) {
		return false
	}
	if e.clock.CompareAndSwap(last, drift) {
		e.ready.clear()
		e.findings.expire()
	}
	return true
}

// answered counts one answer, and notes that the domain is in use: one with an
// override, too, whose policy is to be there when that ends.
func (e *Engine) answered(d *Decision, from Source, now time.Time) {
	e.observe(Event{Kind: Lookup, Domain: d.Domain, Decision: d, Source: from, First: !d.told.Load() && d.told.CompareAndSwap(false, true)})
	if d.Override != nil && d.Override.Use(now) {
		e.observe(Event{Kind: OverrideUsed, Domain: d.Domain, Decision: d})
	}
	hour := now.Unix() / 3600
	if d.used.Load() == hour || d.STS == nil && d.Override == nil || d.used.Swap(hour) == hour {
		return
	}
	e.touch(d.Domain, now.Truncate(time.Hour))
}

// begin runs work on a goroutine that Close waits for; after Close it does
// nothing and returns false.
func (e *Engine) begin(work func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.running.Go(work)
	}
	return !e.closed
}

// Close ends all retrievals and waits until their goroutines have returned.
// What they had learned is in the store by then. Lookups that still wait, and
// all later ones, are answered as if nothing were known.
func (e *Engine) Close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.cancel()
	e.running.Wait()
}
