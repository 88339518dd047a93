package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"stsmap/admin"
	"stsmap/cache"
	"stsmap/policy"
	"stsmap/postfix"
	"stsmap/socketmap"
)

// metrics measures what counting costs a cached answer: the same daemon as far as answers go, with and without, each in a
// process of its own, in turns. What is scraped meanwhile is not part of it; that happens four times a minute.
func (b *bench) metrics() error {
	keys := series{policyNow, 100000, 1000}
	var sides [2]server
	for i, q := range []answererCall{{Counted: true}, {}} {
		p, err := b.spawn("answerer")
		if err != nil {
			return err
		}
		defer p.end()
		q.Addr, q.Keys = "unix:"+filepath.Join(b.dir, fmt.Sprintf("answerer%d.sock", i)), keys
		if _, err := call[struct{}](p, q); err != nil {
			return err
		}
		sides[i] = server{q.Addr, p.cmd.Process.Pid}
		if _, err := call[tally](b.load, job{What: "each", Addr: q.Addr, Conns: 8, Keys: keys}); err != nil {
			return err
		}
	}
	for _, conns := range []int{1, 8, 64} {
		r, err := b.compare(contest{daemon: sides[0], echo: sides[1], conns: conns, keys: keys})
		if err != nil {
			return err
		}
		b.table.row(fmt.Sprintf("metrics: with/without, Unix, %d at once: rate", conns), percent(r.rate), ">= 98 %", "")
		b.table.row("  CPU per answer", fmt.Sprintf("%+.1f %%", 100*(r.cpu-1)), "<= +3 %", "")
	}
	return nil
}

// An answererCall starts an answerer.
type answererCall struct {
	Addr    string // where to listen
	Keys    series // what it knows
	Counted bool   // whether answers are counted
}

// An answerer is the part of a daemon that answers from memory.
type answerer struct{}

func (answerer) call(q answererCall, _ <-chan answererCall) (struct{}, error) {
	store, now := cache.NewMemory(q.Keys.N), time.Now()
	for i := range q.Keys.N {
		if err := store.Put(context.Background(), q.Keys.entry(i, now)); err != nil {
			return struct{}{}, err
		}
	}
	c := policy.Config{Store: store, Fetch: noNetwork{}, Render: postfix.Render, CacheSize: q.Keys.N * 10}
	var m postfix.Map
	if q.Counted {
		monitor := admin.NewMonitor(slog.New(slog.DiscardHandler), "none")
		zone := admin.NewMetrics(monitor, "", "", func() admin.Status { return admin.Status{} }).Zone("postfix")
		c.Observe = monitor.Observe
		m.Observe = func(a postfix.Answered) { zone.Count(a.Decision, a.Miss, a.Took, a.SampleWeight) }
	}
	network, where := networkOf(q.Addr)
	l, err := net.Listen(network, where)
	if err != nil {
		return struct{}{}, err
	}
	handler := &postfix.Handler{Engine: policy.New(c), Bracketed: true, Maps: map[string]postfix.Map{"postfix": m}}
	go func() { _ = (&socketmap.Server{Handler: handler}).Serve(l) }() // until the process ends
	return struct{}{}, nil
}
