package bench

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"stsmap/config"
	"stsmap/dane"
	"stsmap/resolver"
	"stsmap/stsfetch"
)

// clients is how many ask at once, as many as smtp(8) processes of a busy machine.
const clients = 32

// BenchmarkCold measures first contacts, beside a client that only fetches.
func BenchmarkCold(b *testing.B) {
	l := newLab(b)
	d := l.daemon(b)
	l.each(b, d.tcp, clients, l.fresh(policySlow, 200)) // for the heap to get its size
	b.Run("policy", func(b *testing.B) {
		n := quick(2000)
		report(b, figure{l.medianRate(b, d, policySlow, n), "domains/s", "32 at once, policy (max 533)", ">= 500", "434"},
			figure{l.bare(b, policySlow, clients, n, false).perSecond(), "bare-domains/s", "  (a bare client)", "", ""})
	})
	b.Run("no-record", func(b *testing.B) {
		n, rate := quick(6000), 0.0
		queries := l.queriesPerDomain(3*n, func() { rate = l.medianRate(b, d, noneSlow, n) })
		report(b, figure{rate, "domains/s", "32 at once, no record (max 1600)", ">= 1550", "1443"},
			figure{l.bare(b, noneSlow, clients, n, false).perSecond(), "bare-domains/s", "  (a bare client)", "", ""},
			figure{queries, "queries/domain", "DNS queries per domain, no record", "1", ""})
	})
	b.Run("one-client", func(b *testing.B) {
		n := quick(100)
		report(b,
			figure{millis(l.each(b, d.tcp, 1, l.fresh(policySlow, n)).Median), "ms-median", "1 client, policy (60 ms of delays)", "<= 63 ms", "65 ms"},
			figure{millis(l.bare(b, policySlow, 1, n, false).Median), "ms-bare", "  (a bare client)", "", ""})
	})
	b.Run("no-delay", func(b *testing.B) {
		n := quick(2000)
		var costs []time.Duration
		for range 3 {
			before := d.cpu(b)
			l.each(b, d.tcp, clients, l.fresh(policyNow, n))
			costs = append(costs, (d.cpu(b)-before)/time.Duration(n))
		}
		report(b, figure{millis(median(costs)), "ms-CPU/domain", "daemon's CPU per domain, policy", "<= 0.8 ms", "1.23 ms"})
	})
}

// medianRate is how many domains a second the daemon answers, in the middle one of three runs.
func (l *lab) medianRate(b *testing.B, d *daemon, pattern string, n int) float64 {
	var rates []float64
	for range 3 {
		rates = append(rates, l.each(b, d.tcp, clients, l.fresh(pattern, n)).perSecond())
	}
	return median(rates)
}

// bare fetches for fresh domains without a daemon, or checks them for DANE.
func (l *lab) bare(b *testing.B, pattern string, conns, n int, dane bool) Counts {
	b.Helper()
	keys := l.fresh(pattern, n)
	c := l.load.run(b, "Bare", Job{Addr: l.dir + "/ca.pem", Conns: conns, Keys: keys, DANE: dane})
	c.check(b, keys)
	return c
}

// Bare fetches for each domain what the daemon does, and nothing else: no sockets, no store, no decision. What it takes is
// the delays, the timers of the machine, which are never early, and the network's own work.
func (*Worker) Bare(j Job, c *Counts) error {
	cfg := config.Default()
	resolve, err := resolver.New(resolver.Config{Servers: []string{dnsAddr}, Timeout: cfg.DNS.Timeout, TrustAD: cfg.DNS.TrustAD})
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(j.Addr)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	fetch, err := stsfetch.New(stsfetch.Config{Resolver: resolve, Roots: roots, Timeout: cfg.Fetch.Timeout, MaxSize: cfg.Fetch.MaxSize,
		AllowPrivate: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if err != nil {
		return err
	}
	ctx := context.Background()
	*c, err = lookups(j.Keys, j.Conns, func(_, i int) (byte, error) {
		domain := j.Keys.domain(i)
		record, err := fetch.Record(ctx, domain)
		switch {
		case err != nil || record.ID == "":
			return 'N', err
		case j.DANE:
			_, err = dane.Check(ctx, resolve, dane.NextHop{Domain: domain})
		default:
			_, _, err = fetch.Policy(ctx, domain)
		}
		return 'O', err
	})
	return err
}

// BenchmarkDANE measures what DANE costs: nothing where there is no policy, and otherwise no more than the slower of
// the two lookups.
func BenchmarkDANE(b *testing.B) {
	l := newLab(b)
	d := l.daemon(b, "STSMAP_POSTFIX_DNSSEC=yes")
	for _, c := range []struct{ name, pattern string }{{"DANE", daneSlow}, {"policy", daneHeavy}} {
		b.Run(c.name+"-slower", func(b *testing.B) {
			n := quick(300)
			both := l.each(b, d.tcp, 1, l.fresh(c.pattern, n)).Median
			policy := l.bare(b, c.pattern, 1, n, false).Median
			tlsa := l.bare(b, c.pattern, 1, n, true).Median
			report(b,
				figure{millis(both - max(policy, tlsa)), "ms-beyond", fmt.Sprintf("both, beyond the slower (%s)", c.name), "<= 10 ms", ""},
				figure{millis(policy), "ms-policy", "  (policy alone)", "", ""},
				figure{millis(tlsa), "ms-DANE", "  (DANE alone)", "", ""})
		})
	}
	b.Run("no-record", func(b *testing.B) {
		n := quick(1000)
		queries := l.queriesPerDomain(n, func() { l.each(b, d.tcp, clients, l.fresh(noneSlow, n)) })
		report(b, figure{queries, "queries/domain", "DNS queries per domain, no record", "1", ""})
	})
}
