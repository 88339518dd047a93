package bench

import (
	"testing"
	"time"
)

// BenchmarkCrowd measures many lookups that wait at once: for one domain, and for policy hosts that never answer.
func BenchmarkCrowd(b *testing.B) {
	l := newLab(b)
	// Not the usual 30 s, so that there is time for several rounds.
	d := l.daemon(b, "STSMAP_DNS_TIMEOUT=1s", "STSMAP_FETCH_TIMEOUT=3s")
	b.Run("one-domain", func(b *testing.B) {
		const conns = 64
		domain := l.fresh(policySlow, 1).domain(0)
		l.each(b, d.tcp, conns, Series{domain, 0, conns})
		report(b, figure{float64(l.net.Queries("_mta-sts."+domain, "TXT")), "queries", "64 clients: TXT queries", "1", ""},
			figure{float64(l.net.Handshakes("mta-sts." + domain)), "handshakes", "64 clients: TLS handshakes", "1", ""})
	})
	// The rate of cached answers while 400 lookups wait in vain, compared with the rates before and after.
	b.Run("silent-hosts", func(b *testing.B) {
		const waiting = 400
		rounds, length := 5, time.Second
		if testing.Short() {
			rounds, length = 2, 300*time.Millisecond
		}
		load2, hot := spawn(b), l.fresh(policyNow, 1)
		l.each(b, d.tcp, 1, hot) // the first is not cached
		rate := func() float64 {
			return l.load.run(b, "Rate", Job{Addr: d.tcp, Conns: 8, Keys: hot, Time: length}).perSecond()
		}
		before := rate()
		var shares []float64
		for range rounds {
			end := load2.start(b, "Each", Job{Addr: d.tcp, Conns: waiting, Keys: l.fresh(policySilent, waiting)})
			time.Sleep(500 * time.Millisecond) // until all have asked
			beside := rate()
			if c := end(false); c.Median < 2*time.Second {
				b.Fatalf("lookups of silent hosts are answered after %v: none was waiting", c.Median)
			}
			after := rate()
			shares = append(shares, beside/((before+after)/2))
			before = after
		}
		report(b, figure{100 * median(shares), "%undisturbed", "cached rate beside 400 that wait", ">= 95 %", "64 %"})
	})
}
