package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// askers is how many ask at once, as many as smtp(8) processes of a busy machine.
const askers = 32

// cold measures domains about which nothing is known yet.
func (b *bench) cold() error {
	d, err := b.daemon("cold", setup{})
	if err != nil {
		return err
	}
	return errors.Join(b.coldBy(d), d.stop())
}

func (b *bench) coldBy(d *daemon) error {
	low := 100000 // the first domain that has not been asked for, of any kind
	ask := func(pattern string, conns, n int) (tally, error) {
		t, err := call[tally](b.load, job{What: "each", Addr: d.tcp, Conns: conns, Keys: series{pattern, low, n}})
		low += n
		want := t.Found
		if pattern == noneSlow || pattern == noneNow {
			want = t.Absent
		}
		if err == nil && want != n {
			err = fmt.Errorf("%d of %d answers about %s are wrong", n-want, n, pattern)
		}
		return t, err
	}
	// medianRate is the middle of three runs.
	medianRate := func(pattern string, n int) (float64, error) {
		var rates []float64
		for range 3 {
			t, err := ask(pattern, askers, n)
			if err != nil {
				return 0, err
			}
			rates = append(rates, t.perSecond())
		}
		return median(rates), nil
	}

	// alone is the same without a daemon.
	alone := func(pattern string, conns, n int) (tally, error) {
		j := job{What: "bare", Addr: filepath.Join(b.dir, "ca.pem"), Conns: conns, Keys: series{pattern, low, n}}
		low += n
		return call[tally](b.load, j)
	}
	bareRow := func(pattern string, n int) error {
		t, err := alone(pattern, askers, n)
		b.table.row("  (a bare client)", fmt.Sprintf("%.0f", t.perSecond()), "", "")
		return err
	}

	if _, err := ask(policySlow, askers, 200); err != nil { // for the heap to get its size
		return err
	}
	rate, err := medianRate(policySlow, b.some(2000))
	if err != nil {
		return err
	}
	b.table.row("cold, 32 askers, policies: domains/s (max 533)", fmt.Sprintf("%.0f", rate), ">= 500", "434")
	if err := bareRow(policySlow, b.some(2000)); err != nil {
		return err
	}
	before, err := b.count(networkCall{Query: "."})
	if err != nil {
		return err
	}
	n := b.some(6000)
	if rate, err = medianRate(noneSlow, n); err != nil {
		return err
	}
	b.table.row("cold, 32 askers, no record: (max 1600)", fmt.Sprintf("%.0f", rate), ">= 1550", "1443")
	after, err := b.count(networkCall{Query: "."})
	if err != nil {
		return err
	}
	if err := bareRow(noneSlow, n); err != nil {
		return err
	}
	b.table.row("cold, no record: DNS queries per domain", fmt.Sprintf("%.3f", float64(after-before)/float64(3*n)), "1", "")

	t, err := ask(policySlow, 1, b.some(100))
	if err != nil {
		return err
	}
	b.table.row("cold, 1 asker, policy: median (delays 60 ms)", millis(t.Median), "<= 63 ms", "65 ms")
	if t, err = alone(policySlow, 1, b.some(100)); err != nil {
		return err
	}
	b.table.row("  (a bare client)", millis(t.Median), "", "")
	return b.coldCPU(d, ask)
}

// coldCPU measures what a cold domain costs the daemon alone, where nobody has to wait.
func (b *bench) coldCPU(d *daemon, ask func(pattern string, conns, n int) (tally, error)) error {
	var costs []time.Duration
	n := b.some(2000)
	for range 3 {
		before, err := d.cpu()
		if err != nil {
			return err
		}
		if _, err := ask(policyNow, askers, n); err != nil {
			return err
		}
		after, err := d.cpu()
		if err != nil {
			return err
		}
		costs = append(costs, (after-before)/time.Duration(n))
	}
	b.table.row("cold, policy, no delays: daemon's CPU per domain", fmt.Sprintf("%.3f ms", median(costs).Seconds()*1e3), "<= 0.8 ms", "1.23 ms")
	return nil
}
