package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"time"
)

// memory measures how much memory a cached domain takes, and answers while memory is full.
func (b *bench) memory() error {
	if err := b.memoryOfStored(); err != nil {
		return err
	}
	if err := b.memoryOfFetched(); err != nil {
		return err
	}
	d, err := b.daemon("full", setup{entries: b.some(10000)})
	if err != nil {
		return err
	}
	return errors.Join(b.beyond(d), d.stop())
}

// memoryDomains is how many domains memory is filled with: as many as a daemon keeps by default.
const memoryDomains = 100000

// memoryOfStored measures domains that a daemon reads from its store. There are as many with -quick: a tenth of them
// would be lost in what the work itself takes.
func (b *bench) memoryOfStored() error {
	keys := series{policyNow, 100000, memoryDomains}
	if err := b.fill(b.file("stored"), keys); err != nil {
		return err
	}
	return b.growth("stored", keys)
}

// memoryOfFetched measures domains that a daemon downloads and puts into its store.
func (b *bench) memoryOfFetched() error {
	n := memoryDomains
	if b.quick {
		n /= 5
	}
	return b.growth("fetched", series{policyNow, 100000, n})
}

// rest is how long a daemon is left alone after it has learned and answered, before what it takes then is measured: it
// gives memory back every ten seconds.
const rest = 25 * time.Second

// A mark says how many domains were known at a time.
type mark struct {
	at      time.Duration // since the daemon was started
	domains int
	footprint
	cpu time.Duration
}

// growth has a daemon, whose store has the given name, learn the domains in steps, and then answer about them.
func (b *bench) growth(name string, keys series) error {
	began := time.Now()
	d, err := b.daemon(name, setup{gctrace: true})
	if err != nil {
		return err
	}
	marks, err := b.fillMemory(d, began, keys)
	if err != nil {
		return errors.Join(err, d.kill())
	}
	t, err := call[tally](b.load, job{What: "rate", Addr: d.tcp, Conns: askers, Keys: keys, Time: 3 * time.Second})
	if err == nil && t.Found != t.Answers {
		err = fmt.Errorf("%d of %d answers have no policy", t.Answers-t.Found, t.Answers)
	}
	end := mark{at: time.Since(began), domains: keys.N}
	if err == nil {
		end.cpu, err = d.cpu()
	}
	if time.Sleep(rest); err == nil {
		end.footprint, err = d.footprint()
	}
	if err != nil {
		return errors.Join(err, d.kill())
	}
	if err := d.stop(); err != nil {
		return err
	}
	return b.growthRows(d, name, append(marks, end))
}

// fillMemory asks for each domain once, in steps.
func (b *bench) fillMemory(d *daemon, began time.Time, keys series) (marks []mark, err error) {
	const steps = 40
	step := keys.N / steps
	for i := range steps + 1 {
		if i > 0 {
			t, err := call[tally](b.load, job{What: "each", Addr: d.tcp, Conns: askers, Keys: series{keys.Pattern, keys.Low + (i-1)*step, step}})
			if err != nil {
				return nil, err
			}
			if t.Found != step {
				return nil, fmt.Errorf("%d of %d domains have no policy", step-t.Found, step)
			}
		}
		m := mark{domains: i * step}
		if m.footprint, err = d.footprint(); err != nil {
			return nil, err
		}
		if m.cpu, err = d.cpu(); err != nil {
			return nil, err
		}
		m.at = time.Since(began)
		marks = append(marks, m)
	}
	return marks, nil
}

// growthRows prints what the marks say: those of the steps, and a last one after a while of cached answers. What the
// work itself takes, whatever it is for, is there at the first step.
func (b *bench) growthRows(d *daemon, name string, marks []mark) error {
	log, err := os.ReadFile(d.log.Name())
	if err != nil {
		return err
	}
	cycles, err := readCollections(string(log))
	if err != nil {
		return err
	}
	full, end := len(marks)-2, marks[len(marks)-1]
	first := marks[1]
	for _, m := range []mark{marks[full/2], marks[full]} {
		n := int64(m.domains - first.domains)
		what := fmt.Sprintf("memory, %s, %d domains: ", name, m.domains)
		b.table.row(what+"RSS", fmt.Sprintf("%d bytes", (m.rss-first.rss)/n), "<= 1400", "1690")
		b.table.row("  anonymous part", fmt.Sprintf("%d bytes", (m.anon-first.anon)/n), "<= 1000", "")
		live, err := newHeapCurve(cycles, marks).perDomain(float64(first.domains), float64(m.domains))
		if err != nil {
			return err
		}
		b.table.row("  live heap", fmt.Sprintf("%.0f bytes", live), "", "")
	}
	n := int64(end.domains - first.domains)
	b.table.row("  RSS at rest", fmt.Sprintf("%d bytes", (end.rss-first.rss)/n), "<= 1400", "1690")
	b.table.row("  anonymous part at rest", fmt.Sprintf("%d bytes", (end.anon-first.anon)/n), "<= 1000", "")
	// Nothing but what is new to the daemon allocates, and no daemon is met with that many new domains a second.
	for _, p := range []struct {
		name     string
		from, to mark
		target   string
	}{{"learning", marks[0], marks[full], ""}, {"answering", marks[full], end, "<= 3 %"}} {
		share := cycles.cpu(p.from.at, p.to.at).Seconds() / (p.to.cpu - p.from.cpu).Seconds()
		b.table.row("  collections' share of CPU, "+p.name, percent(share), p.target, "")
	}
	return nil
}

// A collection is one cycle of the garbage collector.
type collection struct {
	at   time.Duration // since the process was started
	live float64       // bytes in use after it
	cpu  time.Duration // without the time of processors that were idle
}

type collections []collection

// readCollections finds the lines of GODEBUG=gctrace=1 in a log:
//
//	gc 7 @0.521s 2%: 0.1+1.2+0.3 ms clock, 0.2+0.1/1.0/0.5+0.6 ms cpu, 7->8->4 MB, 9 MB goal, …
//
// The CPU times are those of the pause before, assists, background workers, idle workers and the pause after.
func readCollections(log string) (all collections, err error) {
	line := regexp.MustCompile(`(?m)^gc \d+ @([\d.]+)s .* ms clock, ([\d.]+)\+([\d.]+)/([\d.]+)/[\d.]+\+([\d.]+) ms cpu, \d+->\d+->(\d+) MB`)
	for _, m := range line.FindAllStringSubmatch(log, -1) {
		var v [6]float64
		for i := range v {
			if v[i], err = strconv.ParseFloat(m[i+1], 64); err != nil {
				return nil, err
			}
		}
		all = append(all, collection{
			at:   time.Duration(v[0] * 1e9),
			cpu:  time.Duration((v[1] + v[2] + v[3] + v[4]) * 1e6),
			live: v[5] * (1 << 20),
		})
	}
	return all, nil
}

// cpu is how much time collections took that began between two times.
func (c collections) cpu(from, to time.Duration) (sum time.Duration) {
	for _, one := range c {
		if from <= one.at && one.at < to {
			sum += one.cpu
		}
	}
	return sum
}

// A heapCurve is what the garbage collector found to be in use, whenever it ran, by the number of domains known then.
// The resident size has the garbage in it, too.
type heapCurve []struct{ domains, bytes float64 }

func newHeapCurve(cycles collections, marks []mark) (curve heapCurve) {
	for _, c := range cycles {
		if domains, ok := domainsAt(marks, c.at); ok {
			curve = append(curve, struct{ domains, bytes float64 }{domains, c.live})
		}
	}
	return curve
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
	before, err := d.footprint()
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
	after, err := d.footprint()
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%d domains, cache.entries %d: ", n, b.some(10000))
	b.table.row(what+"growth", fmt.Sprintf("%.1f MB", float64(after.anon-before.anon)/(1<<20)), "", "")
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
