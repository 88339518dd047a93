package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// start measures how soon a daemon with a full store answers, and what is left of the answers of one that was killed.
func (b *bench) start() error {
	err := b.startWith("start-a", b.some(50000), 9, "<= 50 ms", "250 ms")
	if err == nil && b.million {
		err = b.startWith("start-b", b.some(1000000), 3, "<= 2 s", "")
	}
	if err != nil {
		return err
	}
	return b.killed()
}

// startWith measures the time from the start of the process to the first answer out of a store with n policies. The
// file is in the system's cache by then; reading it from disk would measure the disk.
func (b *bench) startWith(name string, n, times int, target, peer string) error {
	keys := series{policyNow, 100000, n}
	if n > 900000 {
		keys.Pattern = "q%d.now.example" // the network is not asked, and has no numbers of seven digits
	}
	file := b.file(name)
	began := time.Now()
	if err := b.fill(file, keys); err != nil {
		return err
	}
	built := time.Since(began)
	defer os.Remove(strings.TrimPrefix(file, "bolt:"))
	var took []time.Duration
	for i := range times {
		t, err := b.startOnce(fmt.Sprintf("%s%d", name, i), file, keys.domain(n/times*i))
		if err != nil {
			return err
		}
		took = append(took, t)
	}
	b.table.row(fmt.Sprintf("start to first answer, %d policies", n), millis(median(took)), target, peer)
	b.table.row("  (making that store)", fmt.Sprintf("%.1f s", built.Seconds()), "", "")
	return nil
}

func (b *bench) startOnce(name, store, domain string) (time.Duration, error) {
	began := time.Now()
	d, err := b.launch(name, setup{store: store})
	if err != nil {
		return 0, err
	}
	a, err := d.await(d.tcp)
	if err != nil {
		return 0, errors.Join(err, d.kill())
	}
	defer a.nc.Close()
	status, err := a.ask(request(domain))
	took := time.Since(began)
	if err == nil && status != 'O' {
		err = fmt.Errorf("%s is not in the store", domain)
	}
	return took, errors.Join(err, d.stop())
}

// killed has a daemon learn 10,000 domains, kills it when it has given the last answer, takes the network away, and
// counts how many the next daemon knows.
func (b *bench) killed() error {
	keys := series{policyNow, 500000, b.some(10000)}
	d, err := b.daemon("killed", setup{})
	if err != nil {
		return err
	}
	job := job{What: "each", Addr: d.tcp, Conns: askers, Keys: keys}
	t, err := call[tally](b.load, job)
	if err := errors.Join(err, d.kill()); err != nil {
		return err
	}
	if t.Found != keys.N {
		return fmt.Errorf("%d of %d domains have no policy", keys.N-t.Found, keys.N)
	}
	b.networkDown()
	if d, err = b.daemon("revived", setup{store: b.file("killed")}); err != nil {
		return err
	}
	t, err = call[tally](b.load, job)
	if err := errors.Join(err, d.stop()); err != nil {
		return err
	}
	b.table.row(fmt.Sprintf("answers left after kill -9, of %d", keys.N), fmt.Sprint(t.Found), fmt.Sprint(keys.N), "0")
	return nil
}
