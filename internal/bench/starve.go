package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"stsmap/cache/bolt"
)

// starve measures how long a first contact takes while attackers have a thousand lookups hang.
func (b *bench) starve() error {
	for i, c := range []struct{ name, hostile, honest string }{
		{"1 owner", hostileOne, policySlow},
		{"100 owners", hostileMany, policySlow},
		{"in the attacker's /24", hostileOne, neighbour},
	} {
		if err := b.starveBy(fmt.Sprintf("starve%d", i), c.name, c.hostile, c.honest); err != nil {
			return err
		}
	}
	return nil
}

// starveBy compares the first contacts of a daemon before and during an attack, and counts the refreshes that came due
// during it.
func (b *bench) starveBy(name, what, hostile, honest string) (err error) {
	due := series{policyNow, 600000, 200}
	store := b.file(name)
	if err := b.fillDue(store, due, time.Now().Add(3*time.Second)); err != nil {
		return err
	}
	began := time.Now()
	d, err := b.daemon(name, setup{store: store, dane: true})
	if err != nil {
		return err
	}
	running := true
	defer func() {
		if running {
			err = errors.Join(err, d.kill())
		}
	}()
	low := 800000 // honest domains that were not asked for
	contact := func() (tally, error) {
		const n = 30
		low += n
		t, err := call[tally](b.load, job{What: "each", Addr: d.tcp, Conns: 1, Keys: series{honest, low - n, n}})
		if err == nil && t.Found != n {
			err = fmt.Errorf("%d of %d first contacts have no policy", n-t.Found, n)
		}
		return t, err
	}
	if _, err := contact(); err != nil { // for the heap to get its size
		return err
	}
	alone, err := contact()
	if err != nil {
		return err
	}
	attacker, err := b.spawn("load")
	if err != nil {
		return err
	}
	defer attacker.end()
	if err := attacker.send(job{What: "hang", Addr: d.tcp, Conns: hostileCount, Keys: series{hostile, 0, hostileCount}}); err != nil {
		return err
	}
	time.Sleep(1500 * time.Millisecond) // until all have asked
	var medians, slowest []time.Duration
	for range 2 {
		t, err := contact()
		if err != nil {
			return fmt.Errorf("beside %d that hang: %w", hostileCount, err)
		}
		medians, slowest = append(medians, t.Median), append(slowest, t.Slowest)
	}
	if err := attacker.send(job{}); err != nil {
		return err
	}
	hung, err := receive[tally](attacker)
	if err != nil {
		return err
	}
	const tick = 10 * time.Second // of the daemon looking for what is due
	time.Sleep(time.Until(began.Add(tick + 3*time.Second)))
	running = false
	if err := d.kill(); err != nil {
		return err
	}
	refreshed, err := countFetched(store, due.domain(0), began)
	if err != nil {
		return err
	}
	b.table.row("1,000 hang, "+what+": first contact, of undisturbed", percent(median(medians).Seconds()/alone.Median.Seconds()), "<= 120 %", "")
	b.table.row("  median, slowest; undisturbed",
		fmt.Sprintf("%s, %s; %s, %s", millis(median(medians)), millis(slices.Max(slowest)), millis(alone.Median), millis(alone.Slowest)), "", "")
	b.table.row(fmt.Sprintf("  hanging after %s", hung.Took.Round(time.Second/10)), fmt.Sprint(hostileCount-hung.Answers), "", "")
	b.table.row(fmt.Sprintf("  refreshed meanwhile, of %d that came due", due.N), fmt.Sprint(refreshed), fmt.Sprint(due.N), "")
	return nil
}

// fillDue puts a policy for each domain into a file, to be refreshed at that time.
func (b *bench) fillDue(name string, s series, at time.Time) error {
	store, err := openStore(name, s.N)
	if err != nil {
		return err
	}
	for i := 0; i < s.N && err == nil; i++ {
		entry := s.entry(i, time.Now().Add(-24*time.Hour))
		entry.Refresh = at
		err = store.Put(context.Background(), entry)
	}
	return errors.Join(err, store.Close())
}

// countFetched counts the domains in a file that were downloaded since some time, of those with the parent of a given
// one.
func countFetched(name, like string, since time.Time) (n int, err error) {
	store, err := bolt.Open(strings.TrimPrefix(name, "bolt:"), bolt.Options{})
	if err != nil {
		return 0, err
	}
	_, parent, _ := strings.Cut(like, ".")
	for entry, err := range store.All(context.Background()) {
		if err != nil {
			return 0, errors.Join(err, store.Close())
		}
		if _, p, _ := strings.Cut(entry.Domain, "."); p == parent && entry.Fetched.After(since) {
			n++
		}
	}
	return n, store.Close()
}
