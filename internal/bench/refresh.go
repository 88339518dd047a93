package main

import (
	"context"
	"flag"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/cache"
	"stsmap/policy"
	"stsmap/sts"
	"stsmap/stsfetch"
)

// refreshes measures how many policies an engine refreshes in an hour while some policy hosts hang. It takes no hour:
// the engine runs on the clock of testing/synctest, with a network that is made of delays.
func (b *bench) refreshes() error {
	due := 20000
	if b.quick {
		due = 5000
	}
	var none refreshTally
	for _, hanging := range []int{0, 5, 10} {
		p, err := b.spawn("refresh")
		if err != nil {
			return err
		}
		t, err := call[refreshTally](p, refreshCall{Due: due, Hanging: hanging})
		p.end()
		if err != nil {
			return err
		}
		what := fmt.Sprintf("refresh, %d due, %d %% of hosts hang: in an hour", due, hanging)
		if hanging == 0 {
			none = t
			b.table.row(what, fmt.Sprint(t.Refreshed), "", "")
		} else {
			// Of the domains whose hosts work there are fewer.
			share := float64(t.Refreshed) / float64(none.Refreshed) / float64(t.Working) * float64(none.Working)
			b.table.row(what, percent(share), ">= 95 %", "")
		}
		b.table.row("  until 95 % of the working hosts' are refreshed", t.Most.Round(time.Second).String(), "", "")
	}
	return nil
}

// A refreshCall has an engine refresh policies for an hour.
type refreshCall struct {
	Due     int // how many are due at its beginning
	Hanging int // how many of 100 policy hosts never answer
}

// A refreshTally is what came of it.
type refreshTally struct {
	Working   int           // domains whose policy hosts answer
	Refreshed int           // downloads in an hour
	Most      time.Duration // until 95 % of Working were refreshed
}

// serveRefreshes is the role of the process that refreshes. All of it is a test, since synctest wants one.
func serveRefreshes() error {
	testing.Init()
	if err := flag.CommandLine.Parse(nil); err != nil {
		return err
	}
	refresh := func(t *testing.T) {
		err := answerCalls(func(q refreshCall, _ <-chan refreshCall) (tally refreshTally, err error) {
			synctest.Test(t, func(*testing.T) { tally, err = q.run() })
			return tally, err
		})
		if err != nil {
			t.Error(err)
		}
	}
	all := func(string, string) (bool, error) { return true, nil }
	testing.Main(all, []testing.InternalTest{{Name: "refresh", F: refresh}}, nil, nil) // which exits
	return nil
}

// run is called with a clock that goes on when all goroutines wait.
func (q refreshCall) run() (refreshTally, error) {
	store, began := cache.NewMemory(q.Due), time.Now()
	defer store.Close()
	keys := series{"r%d.example", 100000, q.Due} // each of an owner of its own
	for i := range keys.N {
		entry := keys.entry(i, began.Add(-24*time.Hour))
		entry.Refresh = began
		entry.Used = began.Truncate(time.Hour)
		if err := store.Put(context.Background(), entry); err != nil {
			return refreshTally{}, err
		}
	}
	hosts := &slowHosts{hanging: q.Hanging, began: began}
	hosts.working = q.Due - q.Due*q.Hanging/100
	engine := policy.New(policy.Config{Store: store, Fetch: hosts, CacheSize: 2 * q.Due})
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	engine.Run(ctx)
	refreshed := int(hosts.answered.Load())
	engine.Close()
	return refreshTally{Working: hosts.working, Refreshed: refreshed, Most: time.Duration(hosts.most.Load())}, nil
}

// slowHosts answer like those of the internet, or never.
type slowHosts struct {
	hanging int // of 100
	working int
	began   time.Time

	answered atomic.Int64
	most     atomic.Int64 // when 95 of 100 of those that work had been asked, since began
}

// Record takes as long as a question to DNS.
func (*slowHosts) Record(context.Context, string) (stsfetch.Record, error) {
	time.Sleep(20 * time.Millisecond)
	return stsfetch.Record{ID: "1"}, nil
}

// Policy takes as long as a few round trips, or all the time that there is.
func (h *slowHosts) Policy(ctx context.Context, domain string) (string, *sts.Policy, error) {
	n, err := strconv.Atoi(domain[1:7])
	if err != nil {
		return "", nil, err
	}
	if n%100 < h.hanging {
		<-ctx.Done()
		return "", nil, context.Cause(ctx)
	}
	time.Sleep(200 * time.Millisecond)
	if h.answered.Add(1) == int64(h.working*95/100) {
		h.most.Store(int64(time.Since(h.began)))
	}
	text := series{domain, n, 1}.entry(0, h.began).Policy
	p, err := sts.ParsePolicy([]byte(text))
	return text, p, err
}
