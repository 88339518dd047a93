package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"time"
)

// memory measures what a cached domain takes, and what it is to be full.
func (b *bench) memory() error {
	began := time.Now()
	d, err := b.daemon("memory", setup{gctrace: true})
	if err != nil {
		return err
	}
	if err := errors.Join(b.growth(d, began), d.stop()); err != nil {
		return err
	}
	if d, err = b.daemon("full", setup{entries: b.some(10000)}); err != nil {
		return err
	}
	return errors.Join(b.beyond(d), d.stop())
}

// A mark says how many domains were known at a time.
type mark struct {
	at      time.Duration // since the daemon was started
	domains int
}

// growth has the daemon learn 100,000 domains, in steps.
func (b *bench) growth(d *daemon, began time.Time) error {
	const low, steps = 100000, 40
	step := b.some(100000) / steps
	var first int64
	marks := []mark{{time.Since(began), 0}}
	for i := range steps {
		t, err := call[tally](b.load, job{What: "each", Addr: d.tcp, Conns: askers, Keys: series{policyNow, low + i*step, step}})
		if err != nil {
			return err
		}
		if t.Found != step {
			return fmt.Errorf("%d of %d domains have no policy", step-t.Found, step)
		}
		marks = append(marks, mark{time.Since(began), (i + 1) * step})
		now, err := d.resident()
		if err != nil {
			return err
		}
		switch i + 1 {
		case 1:
			// What the work itself takes, whatever it is for, is there by now.
			first = now
		case steps / 2, steps:
			n := i * step
			b.table.row(fmt.Sprintf("memory: RSS growth per domain, %d domains", (i+1)*step),
				fmt.Sprintf("%d bytes", (now-first)/int64(n)), "", "")
		}
	}
	live, err := liveHeap(d.log.Name(), marks)
	if err != nil {
		return err
	}
	for _, n := range []int{steps / 2 * step, steps * step} {
		perDomain, err := live.perDomain(float64(step), float64(n))
		if err != nil {
			return err
		}
		b.table.row(fmt.Sprintf("memory: live heap per domain, %d domains", n), fmt.Sprintf("%.0f bytes", perDomain), "<= 600", "1905")
	}
	return nil
}

// A heapCurve is what the garbage collector found to be in use, whenever it ran, by the number of domains known then.
// The resident size has the garbage in it, too.
type heapCurve []struct{ domains, bytes float64 }

// liveHeap reads the curve from the daemon's log.
func liveHeap(log string, marks []mark) (heapCurve, error) {
	text, err := os.ReadFile(log)
	if err != nil {
		return nil, err
	}
	var curve heapCurve
	// gc 7 @0.521s 2%: … ms cpu, 7->8->4 MB, 9 MB goal, …
	for _, m := range regexp.MustCompile(`(?m)^gc \d+ @([\d.]+)s .* ms cpu, \d+->\d+->(\d+) MB`).FindAllSubmatch(text, -1) {
		seconds, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			return nil, err
		}
		mb, err := strconv.ParseFloat(string(m[2]), 64)
		if err != nil {
			return nil, err
		}
		if domains, ok := domainsAt(marks, time.Duration(seconds*1e9)); ok {
			curve = append(curve, struct{ domains, bytes float64 }{domains, mb * (1 << 20)})
		}
	}
	return curve, nil
}

// perDomain is by how much the heap grew from the last time that the collector ran before there were low domains to
// the last time before there were high, for each domain that came between. What was there at the beginning is
// what the work takes, whatever it is for.
func (c heapCurve) perDomain(low, high float64) (float64, error) {
	first, last := -1, -1
	for i, p := range c {
		if p.domains <= low {
			first = i
		}
		if p.domains <= high {
			last = i
		}
	}
	if first < 0 || last <= first {
		return 0, errors.New("the garbage collector did not run often enough")
	}
	return (c[last].bytes - c[first].bytes) / (c[last].domains - c[first].domains), nil
}

// domainsAt is how many domains were known at a time, between two marks in proportion.
func domainsAt(marks []mark, at time.Duration) (float64, bool) {
	for i := 1; i < len(marks); i++ {
		a, b := marks[i-1], marks[i]
		if a.at <= at && at <= b.at {
			return float64(a.domains) + float64(b.domains-a.domains)*float64(at-a.at)/float64(b.at-a.at), true
		}
	}
	return 0, false
}

// beyond has a daemon learn six times as many domains as it may keep in memory, and looks how long answers take
// meanwhile. Few ask, so that it is not each other that they wait for.
func (b *bench) beyond(d *daemon) error {
	const low = 300000
	n := b.some(60000)
	hot := series{policyNow, low - 1, 1}
	if _, _, err := d.ask(hot.domain(0)); err != nil {
		return err
	}
	before, err := d.resident()
	if err != nil {
		return err
	}
	echo, err := b.spawn("echo")
	if err != nil {
		return err
	}
	defer echo.end()
	const echoAddr = "127.0.0.1:8462"
	if _, err := call[struct{}](echo, echoCall{[]string{echoAddr}, 60}); err != nil {
		return err
	}
	probes := []struct {
		name, addr   string
		keys         series
		target, peer string
		p            *process
	}{
		{"cached", d.tcp, hot, "< 20 ms", "2.1 s", nil},
		{"no record", d.tcp, series{noneNow, low, 600000}, "< 20 ms", "2.1 s", nil},
		{"echo server", echoAddr, hot, "", "", nil}, // what the machine is to blame for
	}
	for i := range probes {
		p := &probes[i]
		if p.p, err = b.spawn("load"); err != nil {
			return err
		}
		defer p.p.end()
		if err := p.p.send(job{What: "probe", Addr: p.addr, Keys: p.keys, Pace: 2 * time.Millisecond}); err != nil {
			return err
		}
	}
	filled, err := call[tally](b.load, job{What: "each", Addr: d.tcp, Conns: 4, Keys: series{policyNow, low, n}})
	if err != nil {
		return err
	}
	after, err := d.resident()
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%d domains, cache.entries %d: ", n, b.some(10000))
	b.table.row(what+"RSS growth", fmt.Sprintf("%.1f MB", float64(after-before)/(1<<20)), "", "")
	for _, p := range probes {
		if err := p.p.send(job{}); err != nil {
			return err
		}
		t, err := receive[tally](p.p)
		if err != nil {
			return err
		}
		b.table.row(fmt.Sprintf("  slowest of %d beside: %s", t.Answers, p.name), millis(t.Slowest), p.target, p.peer)
	}
	b.table.row(fmt.Sprintf("  slowest of %d of the filling itself", n), millis(filled.Slowest), "", "")
	return nil
}
