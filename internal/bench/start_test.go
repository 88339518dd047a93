package bench

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkStart measures how soon a daemon with a full store answers, and how many of the answers of one that was
// killed the next one has.
func BenchmarkStart(b *testing.B) {
	l := newLab(b)
	b.Run("many", func(b *testing.B) { l.start(b, quick(50000), 9, "<= 50 ms", "250 ms") })
	b.Run("million", func(b *testing.B) { l.start(b, quick(1000000), 3, "<= 2 s", "") })
	b.Run("killed", func(b *testing.B) {
		keys := l.fresh(policyNow, quick(10000))
		store := l.newFile(b)
		d := l.daemon(b, "STSMAP_CACHE_STORE="+store)
		l.each(b, d.tcp, clients, keys)
		d.kill()
		// The next one has no network: queries to an address where nothing is are refused.
		d = l.daemon(b, "STSMAP_CACHE_STORE="+store, "STSMAP_DNS_SERVERS=127.0.0.99:53")
		c := l.load.run(b, "Each", Job{Addr: d.tcp, Conns: clients, Keys: keys})
		report(b, figure{float64(c.Right), "answers-left", fmt.Sprintf("answers after kill -9, of %d", keys.N), fmt.Sprint(keys.N), "0"})
	})
}

// start measures the time from the start of the process to the first answer out of a store with n policies. The file is
// in the system's cache by then; reading it from disk would measure the disk.
func (l *lab) start(b *testing.B, n, times int, goal, peer string) {
	keys := l.newSeries(n) // the network is not asked, and has no numbers of seven digits
	began := time.Now()
	store := l.filled(b, keys)
	made := time.Since(began)
	var took []time.Duration
	for i := range times {
		began := time.Now()
		d := l.launch(b, store)
		c := d.await(b, d.tcp)
		status, err := c.ask(request(keys.domain(n / times * i)))
		took = append(took, time.Since(began))
		c.Close()
		if err != nil || status != 'O' {
			b.Fatalf("%s is not in the store: %q, %v", keys.domain(n/times*i), status, err)
		}
		d.stop(b)
	}
	report(b, figure{millis(median(took)), "ms-start", fmt.Sprintf("first answer with %d policies", n), goal, peer},
		figure{made.Seconds(), "s-filling", "  (making that store)", "", ""})
}
