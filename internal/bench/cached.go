package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
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
	daemon, echo struct {
		addr string
		pid  int
	}
	conns int
	keys  series
}

// A result is how the daemon did, as a share of what the echo server did.
type result struct {
	rate float64
	cpu  float64 // per answer
	load float64 // the load generator's share of all CPU time, beside the daemon
}

// cached measures answers that the daemon has at hand.
func (b *bench) cached() error {
	keys := series{policyNow, 100000, 10000}
	path := filepath.Join(b.dir, "cached.db")
	if err := fill(path, keys); err != nil {
		return err
	}
	d, err := b.daemon("cached", setup{store: path})
	if err != nil {
		return err
	}
	err = b.cachedBy(d, keys)
	if err := errors.Join(err, d.stop()); err != nil {
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

	var shares []float64
	for _, on := range []struct{ name, daemon, echo string }{{"TCP", d.tcp, echoTCP}, {"Unix", d.unix, echoUnix}} {
		for _, conns := range []int{1, 8, 64} {
			c := contest{conns: conns, keys: keys}
			c.daemon.addr, c.daemon.pid = on.daemon, d.cmd.Process.Pid
			c.echo.addr, c.echo.pid = on.echo, echo.cmd.Process.Pid
			many, err := b.compare(c)
			if err != nil {
				return err
			}
			c.keys.N = 1
			one, err := b.compare(c)
			if err != nil {
				return err
			}
			what := fmt.Sprintf("cached, %s, %d conns: 1 key / %d keys,", on.name, conns, keys.N)
			b.table.row(what, "", "", "")
			b.table.row("  rate relative to echo server", fmt.Sprintf("%.1f/%.1f %%", 100*one.rate, 100*many.rate), ">= 97 %", "")
			b.table.row("  CPU per answer relative to it", fmt.Sprintf("%+.1f/%+.1f %%", 100*(one.cpu-1), 100*(many.cpu-1)), "<= +10 %", "")
			shares = append(shares, one.load, many.load)
		}
	}
	b.table.row("cached: load generator's share of CPU (median)", percent(median(shares)), "", "")
	return nil
}

// compare gives the two their turns.
func (b *bench) compare(c contest) (result, error) {
	rounds, length := 9, 250*time.Millisecond
	if b.quick {
		rounds, length = 3, 150*time.Millisecond
	}
	var ratios []float64
	var cpu, answers, generator [2]float64
	for round := range rounds {
		var rates [2]float64
		for turn := range 2 {
			// Who goes first changes, lest a machine that grows slower favours one of them.
			side := (round + turn) % 2
			server := []struct {
				addr string
				pid  int
			}{c.daemon, c.echo}[side]
			before, err := cpuTime(server.pid)
			if err != nil {
				return result{}, err
			}
			t, err := call[tally](b.load, job{What: "rate", Addr: server.addr, Conns: c.conns, Keys: c.keys, Time: length})
			if err != nil {
				return result{}, err
			}
			if t.Found != t.Answers {
				return result{}, fmt.Errorf("%d of %d answers without a policy", t.Answers-t.Found, t.Answers)
			}
			after, err := cpuTime(server.pid)
			if err != nil {
				return result{}, err
			}
			rates[side] = t.perSecond()
			cpu[side] += (after - before).Seconds()
			answers[side] += float64(t.Answers)
			generator[side] += t.CPU.Seconds()
		}
		ratios = append(ratios, rates[0]/rates[1])
	}
	return result{
		rate: median(ratios),
		cpu:  cpu[0] / answers[0] / (cpu[1] / answers[1]),
		load: generator[0] / (generator[0] + cpu[0]),
	}, nil
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
	engine := policy.New(policy.Config{Store: store, Fetch: nobody{}, Observe: monitor.Observe, Ready: ready(keys.N * 10)})
	defer engine.Close()
	l, err := net.Listen("unix", socket)
	if err != nil {
		return 0, err
	}
	server := &socketmap.Server{Handler: &postfix.Handler{Engine: engine, Bracketed: true}}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		_ = server.Shutdown(context.Background())
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

// nobody is a fetcher for an engine that need not fetch.
type nobody struct{}

func (nobody) Record(context.Context, string) (stsfetch.Record, error) {
	return stsfetch.Record{}, errors.New("no network")
}

func (nobody) Policy(context.Context, string) (string, *sts.Policy, error) {
	return "", nil, errors.New("no network")
}
