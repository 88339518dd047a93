package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"testing"
	"time"

	"stsmap/admin"
	"stsmap/cache"
	"stsmap/policy"
	"stsmap/postfix"
	"stsmap/socketmap"
	"stsmap/sts"
	"stsmap/stsfetch"
)

// BenchmarkCached compares cached answers with those of an echo server.
func BenchmarkCached(b *testing.B) {
	l := newLab(b)
	keys := Series{policyNow, 100000, 10000}
	d := l.daemon(b, l.filled(b, keys))
	l.each(b, d.tcp, 8, keys)
	echo := spawn(b)
	addrs := []string{"127.0.0.1:8462", "unix:" + l.dir + "/echo.sock"}
	echo.call(b, "Echo", EchoServer{addrs, d.ask(b, keys.domain(0))}, nil)
	for i, on := range []string{"tcp", "unix"} {
		x, y := server{[]string{d.tcp, d.unix}[i], d.cmd.Process.Pid}, server{addrs[i], echo.pid}
		for _, conns := range []int{1, 8, 64} {
			for _, keys := range []Series{{policyNow, 100000, 1}, keys} {
				b.Run(fmt.Sprintf("%s/conns=%d/keys=%d", on, conns, keys.N), func(b *testing.B) {
					r := compare(b, l.load, x, y, conns, keys)
					goal := ">= 95 %"
					if keys.N == 1 {
						goal = ">= 97 %"
					}
					report(b, figure{100 * r.rate, "%echo", "rate, of the echo server's", goal, ""},
						figure{100 * r.cpu, "%echo-CPU", "CPU per answer, likewise", "<= 110 %", ""},
						figure{100 * r.load, "%load", "load generator's share of CPU", "", ""})
				})
			}
		}
	}
}

// BenchmarkCachedOnce compares lookups of 50,000 cached domains, one each, with as many lookups of one of them. There
// are as many with -short: a tenth of them would fit into the processor's cache.
func BenchmarkCachedOnce(b *testing.B) {
	l := newLab(b)
	keys := Series{policyNow, 100000, 50000}
	d := l.daemon(b, l.filled(b, keys))
	l.each(b, d.tcp, 8, keys) // from the store into memory
	sides := []Series{keys, {keys.domain(0), 0, keys.N}}
	var rates [2][]float64
	for round := range max(quick(20), 5) {
		for turn := range 2 {
			side := (round + turn) % 2
			rates[side] = append(rates[side], l.each(b, d.tcp, 8, sides[side]).perSecond())
		}
	}
	report(b, figure{100 * highest(rates[0]) / highest(rates[1]), "%hot", "rate, 50,000 once, of that of one", ">= 90 %", "108 %"})
}

// BenchmarkCachedAllocs counts what a cached lookup allocates between the read and the write of the server. The client,
// in the same process, allocates nothing.
func BenchmarkCachedAllocs(b *testing.B) {
	addr, keys, n := "unix:"+b.TempDir()+"/socket", Series{policyNow, 100000, 10000}, quick(100000)
	stop, err := Answerer{addr, keys, true}.start()
	check(b, err)
	defer stop()
	c, err := dial(addr)
	check(b, err)
	defer c.Close()
	requests := keys.requests()
	var before, after runtime.MemStats
	for i := range len(requests) + n {
		if i == len(requests) { // the first time is no cached answer
			runtime.ReadMemStats(&before)
		}
		_, err := c.ask(requests[i%len(requests)])
		check(b, err)
	}
	runtime.ReadMemStats(&after)
	report(b, figure{float64(after.Mallocs-before.Mallocs) / float64(n), "allocs", "allocations per cached lookup", "0", ""})
}

// BenchmarkMetrics measures what counting costs a cached answer: the same daemon as far as answers go, with and
// without, each in a process of its own, in turns. What is scraped meanwhile is not part of it; that happens four times
// a minute.
func BenchmarkMetrics(b *testing.B) {
	load, dir, keys := spawn(b), b.TempDir(), Series{policyNow, 100000, 1000}
	var sides [2]server
	for i, addr := range []string{"unix:" + dir + "/counted", "unix:" + dir + "/bare"} {
		p := spawn(b)
		p.call(b, "Answer", Answerer{addr, keys, i == 0}, nil)
		load.run(b, "Each", Job{Addr: addr, Conns: 8, Keys: keys})
		sides[i] = server{addr, p.pid}
	}
	for _, conns := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("unix/conns=%d", conns), func(b *testing.B) {
			r := compare(b, load, sides[0], sides[1], conns, keys)
			report(b, figure{100 * r.rate, "%uncounted", "rate with metrics, of that without", ">= 98 %", ""},
				figure{100 * r.cpu, "%uncounted-CPU", "CPU per answer, likewise", "<= 103 %", ""})
		})
	}
}

// An Answerer is the part of a daemon that answers from memory.
type Answerer struct {
	Addr    string // where it listens
	Keys    Series // whose policies it has
	Counted bool   // whether answers are counted
}

// Answer starts an Answerer. It runs until the process ends.
func (*Worker) Answer(a Answerer, _ *struct{}) error {
	_, err := a.start()
	return err
}

func (a Answerer) start() (stop func(), err error) {
	store, now := cache.NewMemory(a.Keys.N), time.Now()
	for i := range a.Keys.N {
		if err := store.Put(context.Background(), a.Keys.entry(i, now)); err != nil {
			return nil, err
		}
	}
	c := policy.Config{Store: store, Fetch: noFetcher{}, Render: postfix.Render, CacheSize: a.Keys.N * 10}
	var m postfix.Map
	if a.Counted {
		monitor := admin.NewMonitor(slog.New(slog.DiscardHandler), "none")
		zone := admin.NewMetrics(monitor, "", "", func() admin.Status { return admin.Status{} }).Zone("postfix")
		c.Observe = monitor.Observe
		m.Observe = func(a postfix.Answered) { zone.Count(a.Decision, a.Miss, a.Took, a.SampleWeight) }
	}
	l, err := net.Listen(networkOf(a.Addr))
	if err != nil {
		return nil, err
	}
	engine := policy.New(c)
	srv := &socketmap.Server{Handler: &postfix.Handler{Engine: engine, Bracketed: true, Maps: map[string]postfix.Map{"postfix": m}}}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	return func() {
		_ = srv.Shutdown(context.Background())
		<-served
		engine.Close()
		store.Close()
	}, nil
}

// noFetcher is for an engine that need not fetch.
type noFetcher struct{}

func (noFetcher) Record(context.Context, string) (stsfetch.Record, error) {
	return stsfetch.Record{}, errors.New("no network")
}

func (noFetcher) Policy(context.Context, string) (string, *sts.Policy, error) {
	return "", nil, errors.New("no network")
}
