package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/override"
	"stsmap/sts"
	"stsmap/stsfetch"
)

// A fakeNet is a Fetcher for many domains.
type fakeNet struct {
	mu      sync.Mutex
	domains map[string]*fakeDomain
}

// of returns the domain of that name, new if need be: with a record, and a policy
// to be enforced that lasts a week.
func (n *fakeNet) of(name string) *fakeDomain {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.domains[name]
	if d == nil {
		d = new(fakeDomain)
		if err := errors.Join(d.setRecord([]string{"A"}), d.setPolicy([]string{"enforce"})); err != nil {
			panic(err)
		}
		n.domains[name] = d
	}
	return d
}

func (n *fakeNet) Record(ctx context.Context, name string) (stsfetch.Record, error) {
	return n.of(name).Record(ctx, name)
}

func (n *fakeNet) Policy(ctx context.Context, name string) (string, *sts.Policy, error) {
	return n.of(name).Policy(ctx, name)
}

// An absentFetcher finds no record anywhere.
type absentFetcher struct{}

func (absentFetcher) Record(context.Context, string) (stsfetch.Record, error) {
	return stsfetch.Record{Why: sts.ErrNoRecord, TTL: time.Hour}, nil
}

func (absentFetcher) Policy(context.Context, string) (string, *sts.Policy, error) {
	return "", nil, errors.New("nothing there")
}

// A trial is an Engine in a bubble, with all that it uses.
type trial struct {
	*Engine
	t      *testing.T
	net    *fakeNet
	store  *testStore
	offset atomic.Int64 // of the wall clock
	config Config
	stop   func() // ends Run; nil if it is not running

	mu     sync.Mutex
	events []Event // but Lookup
}

// newTrial returns a trial whose Engine alone uses its store.
func newTrial(t *testing.T, c Config) *trial {
	x := &trial{t: t, net: &fakeNet{domains: make(map[string]*fakeDomain)}, store: newTestStore(), config: c}
	x.start()
	return x
}

// newSharedTrials returns n trials with one net and one store.
func newSharedTrials(t *testing.T, n int) []*trial {
	first := &trial{t: t, net: &fakeNet{domains: make(map[string]*fakeDomain)}, store: newTestStore()}
	all := []*trial{first}
	for range n - 1 {
		all = append(all, &trial{t: t, net: first.net, store: &testStore{handle: handle{first.store.sharedMemory}}})
	}
	for _, x := range all {
		x.config.Shared = x.store
		x.start()
	}
	return all
}

func (x *trial) start() {
	x.config.Store, x.config.Fetch, x.config.wallOffset = x.store, x.net, &x.offset
	x.config.Observe = func(ev Event) {
		if ev.Kind == Lookup {
			return
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		x.events = append(x.events, ev)
	}
	x.Engine = New(x.config)
	x.AllowDANE(nil)
}

// run begins Run, which close ends.
func (x *trial) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { x.Run(ctx) })
	x.stop = func() { cancel(); running.Wait(); x.stop = nil }
}

func (x *trial) close() {
	if x.stop != nil {
		x.stop()
	}
	x.Close()
}

// restart has a new Engine use the same store.
func (x *trial) restart() {
	x.close()
	x.start()
}

// setClock sets the wall clock that far ahead.
func (x *trial) setClock(ahead time.Duration) { x.offset.Store(int64(ahead)) }

// lookup answers as package postfix does.
func (x *trial) lookup(name string) *Decision {
	if d := x.Cached([]byte(name), false); d != nil {
		return d
	}
	return x.Lookup(context.Background(), dane.NextHop{Domain: name}, false)
}

// want looks a domain up, lets what goes on behind the answer go on, and fails the
// test if the answer is another one.
func (x *trial) want(name string, kind Kind, id string) {
	x.t.Helper()
	began := time.Now()
	d := x.lookup(name)
	if took := time.Since(began); d.Kind != kind || d.ID != id {
		x.t.Errorf("%s: decided %s %q (%s) after %s, want %s %q", name, d.Kind, d.ID, d, took, kind, id)
	}
	synctest.Wait()
}

// wantAtOnce is want for an answer that must take no time.
func (x *trial) wantAtOnce(name string, kind Kind, id string) {
	x.t.Helper()
	began := time.Now()
	x.want(name, kind, id)
	if took := time.Since(began); took > 0 {
		x.t.Errorf("%s: the answer took %s", name, took)
	}
}

// wantAsked fails the test if a domain was asked for another number of records and
// policies since the last time.
func (x *trial) wantAsked(name string, records, policies int) {
	x.t.Helper()
	if err := x.net.of(name).asked([]string{fmt.Sprint(records), fmt.Sprint(policies)}); err != nil {
		x.t.Errorf("%s: %v, want %d and %d", name, err, records, policies)
	}
}

// stored returns the entry that the store has, and the zero Entry if it has none.
func (x *trial) stored(name string) cache.Entry {
	x.t.Helper()
	e, err := x.store.Memory.Get(context.Background(), name)
	if err != nil && !errors.Is(err, cache.ErrNotFound) {
		x.t.Fatal(err)
	}
	return e
}

// put stores an entry as another process does.
func (x *trial) put(e cache.Entry) {
	x.t.Helper()
	if err := x.store.Memory.Put(context.Background(), e); err != nil {
		x.t.Fatal(err)
	}
}

// count returns how many events of a kind there were, and forgets all events of
// that kind.
func (x *trial) count(kind EventKind) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	before := len(x.events)
	x.events = slices.DeleteFunc(x.events, func(ev Event) bool { return ev.Kind == kind })
	return before - len(x.events)
}

// overrideTo sets an override of one domain.
func (x *trial) overrideTo(name, action string) {
	x.t.Helper()
	table, err := override.Parse(fmt.Sprintf("[[override]]\ndomain = %q\naction = %q\n", name, action), func(string) error { return nil })
	if err != nil {
		x.t.Fatal(err)
	}
	x.Override(table)
}

// storedPolicy returns an entry as it is stored after a download at that time.
func storedPolicy(name, id, mode string, fetched time.Time, age time.Duration) cache.Entry {
	return cache.Entry{
		Domain: name, ID: id, Policy: fmt.Sprintf("version: STSv1\nmode: %s\nmx: mx.example.com\nmax_age: %d\n", mode, int(age.Seconds())),
		Fetched: fetched, Expires: fetched.Add(age), Checked: fetched, Recheck: fetched.Add(5 * time.Minute),
		Refresh: fetched.Add(min(age/2, 24*time.Hour)), Used: fetched.Truncate(time.Hour),
	}
}
