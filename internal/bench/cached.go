package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"stsmap/admin"
	"stsmap/cache"
	"stsmap/policy"
	"stsmap/postfix"
	"stsmap/socketmap"
	"stsmap/sts"
	"stsmap/stsfetch"
)

// A contest is the same load on two servers, in turns.
type contest struct {
	daemon, echo server
	conns        int
	keys         series
}

// A server is a process that answers at an address.
type server struct {
	addr string
	pid  int
}

// A result is how the daemon did, as a share of what the echo server did.
type result struct {
	rate float64
	cpu  float64 // per answer
	load float64 // the load generator's share of all CPU time, beside the daemon
}

// cached measures answers that the daemon has in memory.
func (b *bench) cached() error {
	keys := series{policyNow, 100000, 10000}
	if err := b.fill(b.file("cached"), keys); err != nil {
		return err
	}
	d, err := b.daemon("cached", setup{})
	if err != nil {
		return err
	}
	err = b.cachedBy(d, keys)
	if err := errors.Join(err, d.stop()); err != nil {
		return err
	}
	if err := b.onceEach(); err != nil {
		return err
	}
	allocs, err := allocations(filepath.Join(b.dir, "allocs.sock"), keys, b.some(100000))
	if err != nil {
		return err
	}
	b.table.row("cached: allocations per lookup", fmt.Sprintf("%.3f", allocs), "0", "")
	return nil
}

func (b *bench) cachedBy(d *daemon, keys series) error {
	_, size, err := d.ask(keys.domain(0))
	if err != nil {
		return err
	}
	t, err := call[tally](b.load, job{What: "each", Addr: d.tcp, Conns: 8, Keys: keys})
	if err != nil {
		return err
	}
	if t.Found != keys.N {
		return fmt.Errorf("%d of %d domains have a policy", t.Found, keys.N)
	}
	echo, err := b.spawn("echo")
	if err != nil {
		return err
	}
	defer echo.end()
	echoTCP, echoUnix := "127.0.0.1:8462", "unix:"+filepath.Join(b.dir, "echo.sock")
	if _, err := call[struct{}](echo, echoCall{[]string{echoTCP, echoUnix}, size}); err != nil {
		return err
	}

	b.table.row("(relative to an echo server:)", "", "", "")
	var shares []float64
	for _, on := range []struct{ name, daemon, echo string }{{"TCP", d.tcp, echoTCP}, {"Unix", d.unix, echoUnix}} {
		for _, conns := range []int{1, 8, 64} {
			c := contest{server{on.daemon, d.cmd.Process.Pid}, server{on.echo, echo.cmd.Process.Pid}, conns, keys}
			many, err := b.compare(c)
			if err != nil {
				return err
			}
			c.keys.N = 1
			one, err := b.compare(c)
			if err != nil {
				return err
			}
			what := fmt.Sprintf("cached, %s, %d at once, 1/%d keys: ", on.name, conns, keys.N)
			b.table.row(what+"rate", fmt.Sprintf("%.1f/%.1f %%", 100*one.rate, 100*many.rate), ">= 97/95 %", "")
			b.table.row("  CPU per answer", fmt.Sprintf("%+.1f/%+.1f %%", 100*(one.cpu-1), 100*(many.cpu-1)), "<= +10 %", "")
			shares = append(shares, one.load, many.load)
		}
	}
	b.table.row("cached: load generator's share of CPU", percent(median(shares)), "", "")
	return nil
}

// onceEach compares a daemon that is asked once for each of 50,000 domains in its memory to the same daemon that is
// asked as often for one of them. There are as many with -quick: a tenth of them would fit into the processor's cache.
func (b *bench) onceEach() error {
	keys := series{policyNow, 100000, 50000}
	if err := b.fill(b.file("once"), keys); err != nil {
		return err
	}
	d, err := b.daemon("once", setup{})
	if err != nil {
		return err
	}
	hot := series{keys.domain(0), 0, keys.N}
	var once, same []float64
	for round := range 1 + max(b.some(20), 5) {
		for turn := range 2 {
			many := (round+turn)%2 == 0
			j := job{What: "each", Addr: d.tcp, Conns: 8, Keys: hot, Mixed: true}
			if many {
				j.Keys = keys
			}
			t, err := call[tally](b.load, j)
			if err == nil && t.Found != t.Answers {
				err = fmt.Errorf("%d of %d domains have no policy", t.Answers-t.Found, t.Answers)
			}
			switch {
			case err != nil:
				return errors.Join(err, d.kill())
			case round == 0: // it fills the memory
			case many:
				once = append(once, t.perSecond())
			default:
				same = append(same, t.perSecond())
			}
		}
	}
	higher := func(a, b float64) int { return cmp.Compare(b, a) }
	b.table.row(fmt.Sprintf("cached, %d domains once each, of the hot rate", keys.N), percent(best(once, higher)/best(same, higher)), ">= 90 %", "108 %")
	return d.stop()
}

// compare gives the two their turns: many and short ones, for how the scheduler happens to place two processes that
// wait for each other makes more of a difference than what they do, and lasts for a while.
func (b *bench) compare(c contest) (result, error) {
	const length = 60 * time.Millisecond
	var sides [2]side
	sides[0].server, sides[1].server = c.daemon, c.echo
	for round := range b.some(40) {
		for turn := range 2 {
			// Who goes first changes, lest a machine that grows slower favours one of them.
			s := &sides[(round+turn)%2]
			j := job{What: "rate", Addr: s.server.addr, Conns: c.conns, Keys: c.keys, Time: length}
			if err := s.turn(b.load, j); err != nil {
				return result{}, err
			}
		}
	}
	d, e := &sides[0], &sides[1]
	lower := cmp.Compare[float64]
	higher := func(a, b float64) int { return cmp.Compare(b, a) }
	return result{
		rate: best(d.rates, higher) / best(e.rates, higher),
		cpu:  best(d.costs, lower) / best(e.costs, lower),
		load: d.load.Seconds() / (d.load + d.cpu).Seconds(),
	}, nil
}

// A side is one of the two in a contest.
type side struct {
	server
	rates, costs []float64 // of each turn: answers per second, and seconds of CPU per answer
	cpu, load    time.Duration
}

// turn has the server answer once for as long as j says.
func (s *side) turn(load *process, j job) error {
	before, err := cpuTime(s.pid)
	if err != nil {
		return err
	}
	t, err := call[tally](load, j)
	if err != nil {
		return err
	}
	if t.Found != t.Answers || t.Answers == 0 {
		return fmt.Errorf("%d of %d answers have no policy", t.Answers-t.Found, t.Answers)
	}
	after, err := cpuTime(s.pid)
	if err != nil {
		return err
	}
	s.rates = append(s.rates, t.perSecond())
	s.costs = append(s.costs, (after-before).Seconds()/float64(t.Answers))
	s.cpu += after - before
	s.load += t.CPU
	return nil
}

// best is the mean of the best quarter: of the turns that nothing else disturbed, where the scheduler left the two ends
// of a connection where they were. On a quiet machine it is a little above the median, on both sides alike.
func best(all []float64, better func(a, b float64) int) float64 {
	sorted := slices.SortedFunc(slices.Values(all), better)
	sorted = sorted[:(len(sorted)+3)/4]
	sum := 0.0
	for _, v := range sorted {
		sum += v
	}
	return sum / float64(len(sorted))
}

// allocations counts what a cached lookup allocates between the read and the write of the server. The asker, in the
// same process, allocates nothing.
func allocations(socket string, keys series, n int) (float64, error) {
	store := cache.NewMemory(keys.N)
	defer store.Close()
	now := time.Now()
	for i := range keys.N {
		if err := store.Put(context.Background(), keys.entry(i, now)); err != nil {
			return 0, err
		}
	}
	monitor := admin.NewMonitor(slog.New(slog.NewTextHandler(io.Discard, nil)), "changes")
	engine := policy.New(policy.Config{Store: store, Fetch: noNetwork{}, Observe: monitor.Observe, Render: postfix.Render, CacheSize: keys.N * 10})
	defer engine.Close()
	l, err := net.Listen("unix", socket)
	if err != nil {
		return 0, err
	}
	zone := admin.NewMetrics(monitor, "", "", func() admin.Status { return admin.Status{} }).Zone("postfix")
	counted := postfix.Map{Observe: func(a postfix.Answered) { zone.Count(a.Decision, a.Miss, a.Took, a.SampleWeight) }}
	srv := &socketmap.Server{Handler: &postfix.Handler{Engine: engine, Bracketed: true, Maps: map[string]postfix.Map{"postfix": counted}}}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	defer func() {
		_ = srv.Shutdown(context.Background())
		<-served
	}()
	a, err := dial("unix:" + socket)
	if err != nil {
		return 0, err
	}
	defer a.nc.Close()
	requests := keys.requests()
	for _, r := range requests { // the first time is no cached answer
		if _, err := a.ask(r); err != nil {
			return 0, err
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range n {
		if _, err := a.ask(requests[i%len(requests)]); err != nil {
			return 0, err
		}
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(n), nil
}

// noNetwork is a fetcher for an engine that need not fetch.
type noNetwork struct{}

func (noNetwork) Record(context.Context, string) (stsfetch.Record, error) {
	return stsfetch.Record{}, errors.New("no network")
}

func (noNetwork) Policy(context.Context, string) (string, *sts.Policy, error) {
	return "", nil, errors.New("no network")
}
