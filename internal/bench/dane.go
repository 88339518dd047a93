package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// dane measures what DANE costs: nothing where no policy is at stake, and otherwise no more than the slower of the two
// ways to go.
func (b *bench) dane() error {
	d, err := b.daemon("dane", setup{dane: true})
	if err != nil {
		return err
	}
	return errors.Join(b.daneBy(d), d.stop())
}

func (b *bench) daneBy(d *daemon) error {
	low := 100000
	keys := func(pattern string, n int) series {
		low += n
		return series{pattern, low - n, n}
	}
	n := b.some(300)
	ask := func(pattern string) (time.Duration, error) {
		t, err := call[tally](b.load, job{What: "each", Addr: d.tcp, Conns: 1, Keys: keys(pattern, n)})
		if err == nil && t.Found != n {
			err = fmt.Errorf("%d of %d answers about %s are wrong", n-t.Found, n, pattern)
		}
		return t.Median, err
	}
	alone := func(what, pattern string) (time.Duration, error) {
		t, err := call[tally](b.load, job{What: what, Addr: filepath.Join(b.dir, "ca.pem"), Conns: 1, Keys: keys(pattern, n)})
		return t.Median, err
	}
	for _, c := range []struct{ pattern, slower string }{{daneSlow, "DANE"}, {daneHeavy, "policy"}} {
		both, err := ask(c.pattern)
		if err != nil {
			return err
		}
		sts, err := alone("bare", c.pattern)
		if err != nil {
			return err
		}
		tlsa, err := alone("bare-dane", c.pattern)
		if err != nil {
			return err
		}
		b.table.row(fmt.Sprintf("cold, policy and DANE, %s slower: beyond it", c.slower), millis(both-max(sts, tlsa)), "<= 10 ms", "")
		b.table.row("  (policy alone, DANE alone)", millis(sts)+", "+millis(tlsa), "", "")
	}
	return b.daneCost(d, keys(noneSlow, b.some(1000)))
}

// daneCost counts the questions about domains without a policy.
func (b *bench) daneCost(d *daemon, keys series) error {
	before, err := b.count(networkCall{Query: "."})
	if err != nil {
		return err
	}
	if _, err := call[tally](b.load, job{What: "each", Addr: d.tcp, Conns: askers, Keys: keys}); err != nil {
		return err
	}
	after, err := b.count(networkCall{Query: "."})
	if err != nil {
		return err
	}
	b.table.row("cold, no record, DANE on: DNS queries per domain", fmt.Sprintf("%.3f", float64(after-before)/float64(keys.N)), "1", "")
	return nil
}
