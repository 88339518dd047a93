// Package policy decides what applies to mail for a domain: its MTA-STS policy,
// or DANE, which goes before it (RFC 8461, Section 2). It decides when a cached
// policy is still valid, when to fetch it again, when to back off, and what a
// failure means (RFC 8461, Sections 3.3, 5 and 10.2).
//
// It does no I/O of its own and does not log. Packages stsfetch and dane look
// things up, a cache.Store keeps policies, package override holds what the
// administrator set, package postfix turns decisions into replies, and package
// admin shows Events.
//
// # The core
//
// An answer is made of four immutable values. Each is reached by one atomic
// pointer and replaced as a whole:
//
//	conditions  one in the Engine      settings, overrides, whether DANE may be used, clock
//	facts       one for each domain    what its cache.Entry means; no policy is a fact, too
//	daneState   one for each next-hop  what DNS says about its MX hosts
//	Decision    one for each next-hop  newDecision(facts, daneState, conditions, now)
//
// newDecision is pure, and the Decision keeps the pointers it was made from. A
// cached Decision is valid as long as those are still current, which is all
// that is compared: nothing has to be cleared when something changes.
//
//	Cached ─► decision current? ─────── yes ─► answer, no I/O, no allocation
//	Lookup ─► override? ─────────────── yes ─► newDecision
//	   │
//	   ├────► store read, not long ago? ─ no ─► read it ─► facts
//	   │
//	   ├────► facts in force? ───────── yes ─► newDecision; recheck behind the answer
//	   │        │ no
//	   │        ▼
//	   │   the domain's one flight ─► record ─► policy ─► next ─► facts ─► store
//	   │        ▲
//	   │   Run ─┴─ what is due for a refresh
//	   │
//	   └─► DANE relevant? one check for each next-hop ─► daneState
//
// The facts are the memory: there is no second copy before the store. What the
// store does not take is kept in the facts, evicted last, and saved later.
//
// A domain has one flight at a time, which fetches or changes it: a fetch, a
// deletion, an import, a save. A flight publishes facts, and each lookup that
// waits decides by itself, under the conditions of that moment. What a fetch has
// found out is applied to the facts when it ends: another process may have
// changed the domain meanwhile. A deletion or an import detaches the flight under
// way: it is cancelled, can publish nothing more, and is not joined.
//
// # Time
//
// An instant has two readings. A policy is expired if either says so: the wall
// clock, or the monotonic clock since the policy was learned. So a wall clock
// that is set back extends nothing, and one that is set forward by mistake
// deletes nothing: an expired policy is removed only after the two clocks have
// agreed for an hour that it is.
//
// # Locks
//
// memory.mu guards the table of next-hops, what is under way for each domain,
// writes of facts, and the accounting. hop.mu orders the decisions about one
// next-hop. They are never held together, nor across I/O. Engine.mu (is it
// closed?) and conditionsMu (writers of conditions) are taken last, as are the
// locks inside fairShare and uses.
package policy

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"stsmap/cache"
	"stsmap/sts"
	"stsmap/stsfetch"
)

// A Fetcher looks up what a domain publishes. *stsfetch.Fetcher implements it.
type Fetcher interface {
	// Record looks up the record, as stsfetch.Fetcher.Record does.
	Record(ctx context.Context, domain string) (stsfetch.Record, error)
	// Policy downloads the policy, as stsfetch.Fetcher.Policy does.
	Policy(ctx context.Context, domain string) (text string, p *sts.Policy, err error)
}

// Config configures an Engine. New copies it.
type Config struct {
	// Store keeps policies. The caller closes it after the Engine. Nil means
	// that memory is all there is: policies are lost with the process.
	Store cache.Store
	// Shared is Store, if other processes use it, too: then a domain is fetched
	// by one of them at a time, and what another one writes is read within a
	// minute. Nil means that no other process uses Store.
	Shared cache.Shared
	// Fetch must be set.
	Fetch Fetcher
	// Timeout bounds the time that a lookup can take; zero means 30 seconds. A
	// fetch has that long to read the store, wait for a place and look up the
	// record, and as long again for the download.
	Timeout time.Duration
	// Concurrency is how many fetches may run at once; zero means 512. Beyond it
	// a fair share of them applies: see fairShare. DANE checks have as many
	// places of their own, and refreshes a quarter of that.
	Concurrency int
	// Refresh is how long after a download the next one follows, whatever the
	// record says (RFC 8461, Section 10.2); zero means 24 hours.
	Refresh time.Duration
	// Recheck is how long the record is not looked up again on use, if its TTL
	// is not shorter; zero means 5 minutes, Postfix's shortest delay between two
	// attempts (RFC 8461, Section 5).
	Recheck time.Duration
	// Forget is how long after its last use a domain is no longer refreshed;
	// its policy is then left to expire. Zero means 90 days.
	Forget time.Duration
	// DANE says how DANE goes before policies.
	DANE DANEConfig
	// CacheSize is how many next-hops are kept in memory; zero means 16384.
	// Memory is bounded in bytes as well, to 1536 for each of them.
	CacheSize int
	// Defer defers mail to a domain of which nothing is known if its record
	// cannot be looked up; otherwise it is delivered as to a domain without a
	// policy.
	Defer bool
	// Strict adds Decision.Strict to decisions about policies in testing mode.
	Strict bool
	// Render makes Decision.Answer of a policy in mode enforce or testing. It is
	// called once for each policy that is read or downloaded, with a Decision
	// that has Domain, ID, STS and Kind, and only there STS has MX and Lines. An
	// error says why the client cannot enforce the policy: mail that would have
	// to be enforced by it is deferred. The answer is used nevertheless. Nil
	// means that decisions have no Answer.
	Render func(*Decision) (answer string, err error)
	// Observe is called with every Event, from many goroutines and while answers
	// wait: it must be safe for that, and must not block. Nil means that events
	// are dropped.
	Observe func(Event)

	// wallOffset, in nanoseconds, is added to the wall clock alone; nil means
	// none. Tests set the clock with it.
	wallOffset *atomic.Int64
}

// An Engine answers which policy applies. Its methods may be called
// concurrently.
type Engine struct {
	store   cache.Store  // nil: memory only
	shared  cache.Shared // nil: no other process uses store
	render  func(*Decision) (string, error)
	observe func(Event)

	began      time.Time // when New was called, with its monotonic reading
	wallOffset *atomic.Int64

	conditionsMu sync.Mutex // orders changes of conditions
	conditions   atomic.Pointer[conditions]
	daneDecided  chan struct{} // closed by the first AllowDANE

	memory    *memory
	fetches   *fairShare // of first contacts
	refreshes *fairShare // of all fetches with a policy in force meanwhile
	checks    *fairShare // of DANE checks
	uses      uses

	setBack     atomic.Bool  // the wall clock was, and refreshes have not been reviewed since
	verifyAfter atomic.Int64 // monotonic: what was read from a shared store before is read again

	ctx     context.Context // of all flights and checks; ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup // flights and checks

	mu     sync.Mutex
	closed bool
}

// errClosing is the reason of lookups that Close cuts short.
var errClosing = errors.New("shutting down")

// New returns an Engine. It starts nothing; see Run.
func New(c Config) *Engine {
	e := &Engine{
		store:       c.Store,
		shared:      c.Shared,
		render:      c.Render,
		observe:     c.Observe,
		began:       time.Now(),
		wallOffset:  c.wallOffset,
		daneDecided: make(chan struct{}),
		memory:      newMemory(orDefault(c.CacheSize, 16384)),
		fetches:     newFairShare(),
		refreshes:   newFairShare(),
		checks:      newFairShare(),
		uses:        uses{waiting: make(map[string]time.Time)},
	}
	if e.observe == nil {
		e.observe = func(Event) {}
	}
	if e.wallOffset == nil {
		e.wallOffset = new(atomic.Int64)
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	now := e.now()
	e.conditions.Store(&conditions{dane: new(danePermission), drift: now.drift(), steady: now.mono})
	e.Configure(c)
	return e
}

// Configure replaces the settings of a running Engine. Lookups that begin after
// it returned are answered by the new ones; fetches under way end with the old
// ones. Store, Shared, CacheSize, Render and Observe stay as they were.
func (e *Engine) Configure(c Config) {
	s := settings{
		fetcher:    c.Fetch,
		timeout:    orDefault(c.Timeout, 30*time.Second),
		deferred:   c.Defer,
		daneConfig: c.DANE,
		strict:     c.Strict,
		rules: rules{
			refresh: orDefault(c.Refresh, 24*time.Hour),
			recheck: orDefault(c.Recheck, 5*time.Minute),
			forget:  orDefault(c.Forget, 90*24*time.Hour),
		},
	}
	concurrency := orDefault(c.Concurrency, 512)
	e.fetches.resize(concurrency)
	e.checks.resize(concurrency)
	e.refreshes.resize(max(concurrency/4, 1))
	e.change(func(c *conditions) { c.settings = s })
}

func orDefault[T int | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
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

// Close ends all fetches, waits until their goroutines have returned, and has
// the store told of uses that it has not been told of. What was learned is in
// the store by then, unless that does not take it. Lookups under way and all
// later ones are answered as if nothing were known, if nothing is in memory.
func (e *Engine) Close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.cancel()
	e.running.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	e.writeUses(ctx)
}

// closePatience is how long Close waits for the store to be told of uses.
const closePatience = 2 * time.Second
