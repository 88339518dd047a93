package main

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"stsmap/config"
	"stsmap/dane"
)

// bare asks for each domain as the daemon does, and has nothing to do beside: no sockets, no store, no decision. What
// it takes is the delays, the timers of the machine, which are never early, and the network's own work.
func bare(j job) (tally, error) {
	cfg := config.Default()
	cfg.DNS.Servers = []string{dnsAddr}
	cfg.Fetch.CAFile = j.Addr
	cfg.Fetch.AllowPrivate = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	resolve, fetch, err := newFetcher(&cfg)
	if err != nil {
		return tally{}, err
	}
	ask := func(domain string) error {
		record, err := fetch.Record(context.Background(), domain)
		if err != nil || record.ID == "" {
			return err
		}
		if j.What == "bare-dane" {
			_, err = dane.Check(context.Background(), resolve, dane.NextHop{Domain: domain})
			return err
		}
		_, _, err = fetch.Policy(context.Background(), domain)
		return err
	}
	times := make([]time.Duration, j.Keys.N)
	errs := make([]error, j.Conns)
	var taken atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for i := range j.Conns {
		all.Go(func() {
			for errs[i] == nil {
				k := int(taken.Add(1)) - 1
				if k >= len(times) {
					return
				}
				start := time.Now()
				errs[i] = ask(j.Keys.domain(k))
				times[k] = time.Since(start)
			}
		})
	}
	all.Wait()
	return tally{
		Answers: len(times),
		Took:    time.Since(began),
		Median:  median(times),
		Slowest: slices.Max(times),
	}, errors.Join(errs...)
}
