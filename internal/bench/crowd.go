package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// crowd measures many lookups that wait at once: for one domain, and for policy hosts that never answer.
func (b *bench) crowd() error {
	const patience = "3s" // and not 30 s, so that there is time for several rounds
	d, err := b.daemon("crowd", setup{timeout: patience})
	if err != nil {
		return err
	}
	return errors.Join(b.oneDomain(d), b.silentHosts(d), d.stop())
}

// oneDomain has 64 askers ask for the same domain at the same time.
func (b *bench) oneDomain(d *daemon) error {
	const conns = 64
	domain := strings.Replace(policySlow, "%d", "900000", 1) // which no other section asks for
	t, err := call[tally](b.load, job{What: "each", Addr: d.tcp, Conns: conns, Keys: series{domain, 0, conns}})
	if err != nil {
		return err
	}
	if t.Found != conns {
		return fmt.Errorf("%d of %d askers were not told the policy", conns-t.Found, conns)
	}
	queries, err := b.count(networkCall{Query: "_mta-sts." + domain, Type: "TXT"})
	if err != nil {
		return err
	}
	handshakes, err := b.count(networkCall{Handshakes: "mta-sts." + domain})
	if err != nil {
		return err
	}
	b.table.row("64 askers, 1 cold domain: TXT queries", fmt.Sprint(queries), "1", "")
	b.table.row("64 askers, 1 cold domain: TLS handshakes", fmt.Sprint(handshakes), "1", "")
	return nil
}

// silentHosts compares the rate of cached answers while 400 lookups wait in vain with the rates before and after.
func (b *bench) silentHosts(d *daemon) error {
	const waiting = 400
	rounds, length := 5, time.Second
	if b.quick {
		rounds, length = 2, 300*time.Millisecond
	}
	hot := series{policyNow, 100000, 1}
	measure := func() (float64, error) {
		t, err := call[tally](b.load, job{What: "rate", Addr: d.tcp, Conns: 8, Keys: hot, Time: length})
		return t.perSecond(), err
	}
	if _, err := measure(); err != nil { // the first is not cached
		return err
	}
	without, err := measure()
	if err != nil {
		return err
	}
	var ratios []float64
	for round := range rounds {
		vain := series{policySilent, 100000 + round*waiting, waiting}
		if err := b.aside.send(job{What: "each", Addr: d.tcp, Conns: waiting, Keys: vain}); err != nil {
			return err
		}
		time.Sleep(500 * time.Millisecond) // until all have asked
		with, err := measure()
		if err != nil {
			return err
		}
		t, err := receive[tally](b.aside)
		if err != nil {
			return err
		}
		if t.Median < 2*time.Second {
			return fmt.Errorf("lookups of silent hosts are answered after %v: nobody was waiting", t.Median)
		}
		after, err := measure()
		if err != nil {
			return err
		}
		ratios = append(ratios, with/((without+after)/2))
		without = after
	}
	b.table.row("cached rate beside 400 that wait for silence", percent(median(ratios)), ">= 95 %", "64 %")
	return nil
}
