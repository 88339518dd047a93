package bench

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// BenchmarkMemory measures how much memory a cached domain takes, and answers while memory is full. There are as many
// domains as a daemon keeps by default, also with -short: a tenth of them would be lost in what the work itself takes.
func BenchmarkMemory(b *testing.B) {
	l := newLab(b)
	b.Run("stored", func(b *testing.B) { // domains that a daemon reads from its store
		keys := Series{policyNow, 100000, 100000}
		l.growth(b, keys, l.filled(b, keys))
	})
	b.Run("fetched", func(b *testing.B) { // domains that a daemon downloads and puts into its store
		n := 100000
		if testing.Short() {
			n /= 5
		}
		l.growth(b, Series{policyNow, 100000, n})
	})
	b.Run("full", func(b *testing.B) { l.beyond(b) })
}

// A mark says how many domains were cached at a time, and what the daemon used.
type mark struct {
	at        time.Duration // since the daemon was started
	domains   float64
	rss, anon float64 // bytes
	cpu       time.Duration
}

// growth has a daemon with those variables cache the domains in steps, then answer, and then rest.
func (l *lab) growth(b *testing.B, keys Series, variables ...string) {
	const (
		steps = 40
		rest  = 25 * time.Second // the daemon gives memory back every ten seconds
	)
	began := time.Now()
	d := l.daemon(b, append(variables, "GODEBUG=gctrace=1")...)
	now := func(domains int) mark {
		rss, anon := d.memory(b)
		return mark{time.Since(began), float64(domains), rss, anon, d.cpu(b)}
	}
	marks, step := []mark{now(0)}, keys.N/steps
	for i := range steps {
		l.each(b, d.tcp, clients, Series{keys.Pattern, keys.Low + i*step, step})
		marks = append(marks, now((i+1)*step))
	}
	l.load.run(b, "Rate", Job{Addr: d.tcp, Conns: clients, Keys: keys, Time: 3 * time.Second}).check(b, keys)
	answered := now(keys.N)
	time.Sleep(rest)
	rested := now(keys.N)
	d.stop(b)
	log, err := os.ReadFile(d.log)
	check(b, err)
	cycles, err := readCollections(string(log))
	check(b, err)

	// What the work itself takes, whatever it is for, is there at the first step.
	perDomain := func(m mark) (rss, anon, live float64) {
		n := m.domains - marks[1].domains
		live, err := cycles.growth(marks, marks[1].domains, m.domains)
		check(b, err)
		return (m.rss - marks[1].rss) / n, (m.anon - marks[1].anon) / n, live
	}
	share := func(from, to mark) float64 {
		return 100 * cycles.cpu(from.at, to.at).Seconds() / (to.cpu - from.cpu).Seconds()
	}
	half, full := marks[steps/2], marks[steps]
	halfRSS, halfAnon, halfLive := perDomain(half)
	rss, anon, live := perDomain(full)
	restRSS, restAnon, _ := perDomain(rested)
	report(b,
		figure{halfRSS, "B/domain-half", fmt.Sprintf("RSS a domain, %.0f domains", half.domains), "<= 1400", "1690"},
		figure{halfAnon, "B/dom-half-anon", "  anonymous part", "<= 1000", ""},
		figure{halfLive, "B/dom-half-live", "  live heap", "", ""},
		figure{rss, "B/domain", fmt.Sprintf("RSS a domain, %.0f domains", full.domains), "<= 1400", "1690"},
		figure{anon, "B/domain-anon", "  anonymous part", "<= 1000", ""},
		figure{live, "B/domain-live", "  live heap", "", ""},
		figure{restRSS, "B/domain-rest", "  RSS after 25 s of rest", "<= 1400", "1690"},
		figure{restAnon, "B/dom-rest-anon", "  anonymous part after 25 s of rest", "<= 1000", ""},
		// Only a first contact allocates, and no daemon has that many of them a second.
		figure{share(marks[0], full), "%GC-filling", "GC's share of CPU, filling", "", ""},
		figure{share(full, answered), "%GC-answering", "GC's share of CPU, answering", "<= 3 %", ""})
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

// growth is by how many bytes the live heap grew for each domain, from the last collection while there were at most low
// domains to the last while there were at most high. The resident size has the garbage in it, too.
func (c collections) growth(marks []mark, low, high float64) (float64, error) {
	var first, last struct{ domains, live float64 }
	for _, one := range c {
		n, ok := domainsAt(marks, one.at)
		if ok && n <= low {
			first.domains, first.live = n, one.live
		}
		if ok && n <= high {
			last.domains, last.live = n, one.live
		}
	}
	if first.live == 0 || last.domains <= first.domains {
		return 0, fmt.Errorf("%d collections are too few to tell what %v domains take", len(c), high)
	}
	return (last.live - first.live) / (last.domains - first.domains), nil
}

// domainsAt is how many domains were cached at a time, between two marks in proportion.
func domainsAt(marks []mark, at time.Duration) (float64, bool) {
	for i := 1; i < len(marks); i++ {
		a, b := marks[i-1], marks[i]
		if a.at <= at && at <= b.at {
			return a.domains + (b.domains-a.domains)*float64(at-a.at)/float64(b.at-a.at), true
		}
	}
	return 0, false
}

// beyond has a daemon fetch six times as many policies as it may keep in memory, and measures how long other answers take
// meanwhile. Only four clients ask, so that they do not wait for each other.
func (l *lab) beyond(b *testing.B) {
	d := l.daemon(b, fmt.Sprint("STSMAP_CACHE_ENTRIES=", quick(10000)))
	hot, keys := l.fresh(policyNow, 1), l.fresh(policyNow, quick(60000))
	reply := d.ask(b, hot.domain(0))
	_, before := d.memory(b)
	const echoAddr = "127.0.0.1:8462"
	spawn(b).call(b, "Echo", EchoServer{[]string{echoAddr}, reply}, nil)
	probe := func(addr string, keys Series) (end func(bool) Counts) {
		return spawn(b).start(b, "Probe", Job{Addr: addr, Keys: keys, Pace: 2 * time.Millisecond})
	}
	cached, none, echo := probe(d.tcp, hot), probe(d.tcp, Series{noneNow, 300000, 600000}), probe(echoAddr, hot)
	filled := l.each(b, d.tcp, 4, keys)
	_, after := d.memory(b)
	report(b,
		figure{(after - before) / (1 << 20), "MB-growth", fmt.Sprintf("growth, %d in %d entries", keys.N, quick(10000)), "", ""},
		figure{millis(cached(true).Slowest), "ms-cached", "slowest beside: cached", "< 20 ms", "2.1 s"},
		figure{millis(none(true).Slowest), "ms-no-record", "slowest beside: no record", "< 20 ms", "2.1 s"},
		figure{millis(echo(true).Slowest), "ms-echo", "  (the echo server: the machine)", "", ""},
		figure{millis(filled.Slowest), "ms-filling", "slowest of the filling itself", "", ""})
}

// The share of collections is theirs alone: neither the lines around them nor processors that were idle count. The live
// heap grows from the collection before the first domains to the last one.
func TestReadCollections(t *testing.T) {
	const log = `level=INFO msg=serving
gc 7 @1.500s 2%: 0.10+1.2+0.30 ms clock, 0.20+0.10/1.0/0.50+0.60 ms cpu, 7->8->4 MB, 9 MB goal, 0 MB stacks, 0 MB globals, 2 P
gc 8 @2.000s 2%: 1.0+1.2+0.30 ms clock, 2+0/3/100+5 ms cpu, 7->8->6 MB, 9 MB goal, 0 MB stacks, 0 MB globals, 2 P (forced)
`
	cycles, err := readCollections(log)
	if err != nil || len(cycles) != 2 {
		t.Fatalf("%d collections, %v", len(cycles), err)
	}
	if got := cycles.cpu(time.Second, 2*time.Second); got != 1900*time.Microsecond {
		t.Errorf("the first took %v, not 1.9 ms", got)
	}
	if got := cycles.cpu(0, time.Minute); got != 11900*time.Microsecond {
		t.Errorf("both took %v, not 11.9 ms", got)
	}
	marks := []mark{{at: time.Second}, {at: 2 * time.Second, domains: 1000}, {at: 3 * time.Second, domains: 5000}}
	if got, err := cycles.growth(marks, 500, 1000); err != nil || got != 2<<20/500.0 {
		t.Errorf("%v bytes a domain, %v; not 2 MB for 500", got, err)
	}
	if got, err := cycles.growth(marks, 100, 1000); err == nil {
		t.Errorf("%v bytes a domain with no collection before the first 100", got)
	}
}
