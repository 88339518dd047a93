package bench

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"stsmap/cache"
)

// BenchmarkStarve compares the first contacts of a daemon before and while attackers have a thousand lookups hang, and
// counts the refreshes that came due meanwhile.
func BenchmarkStarve(b *testing.B) {
	l := newLab(b)
	for _, c := range []struct{ name, hostile, honest string }{
		{"one-owner", hostileOne, policySlow},
		{"100-owners", hostileMany, policySlow},
		{"same-network", hostileOne, neighbour}, // the /24 of the attackers' policy hosts
	} {
		b.Run(c.name, func(b *testing.B) { l.starve(b, c.hostile, c.honest) })
	}
}

func (l *lab) starve(b *testing.B, hostile, honest string) {
	const tick = 10 * time.Second // of the daemon looking for what is due
	began := time.Now()
	due := l.fresh(policyNow, 200)
	store := l.newFile(b)
	fill(b, store, due, func(e *cache.Entry) {
		e.Fetched, e.Refresh = began.Add(-24*time.Hour), began.Add(3*time.Second)
	})
	d := l.daemon(b, "STSMAP_CACHE_STORE="+store, "STSMAP_POSTFIX_DNSSEC=yes")
	contact := func() Counts { return l.each(b, d.tcp, 1, l.fresh(honest, 30)) }
	contact() // for the heap to get its size
	alone := contact()
	end := spawn(b).start(b, "Hang", Job{Addr: d.tcp, Keys: Series{hostile, 0, hostileCount}})
	time.Sleep(1500 * time.Millisecond) // until all have asked
	var medians, slowest []time.Duration
	for range 2 {
		c := contact()
		medians, slowest = append(medians, c.Median), append(slowest, c.Slowest)
	}
	hung := end(true)
	time.Sleep(time.Until(began.Add(tick + 3*time.Second)))
	d.kill() // what was refreshed is in the file by then

	refreshed := 0
	_, parent, _ := strings.Cut(due.domain(0), ".")
	opened, err := openStore(store, due.N)
	check(b, err)
	for entry, err := range opened.All(b.Context()) {
		check(b, err)
		if strings.HasSuffix(entry.Domain, parent) && entry.Fetched.After(began) {
			refreshed++
		}
	}
	check(b, opened.Close())
	report(b,
		figure{100 * median(medians).Seconds() / alone.Median.Seconds(), "%undisturbed", "first contact while 1,000 hang", "<= 120 %", ""},
		figure{millis(median(medians)), "ms-median", "  median", "", ""},
		figure{millis(slices.Max(slowest)), "ms-slowest", "  slowest", "", ""},
		figure{millis(alone.Median), "ms-alone", "  median, undisturbed", "", ""},
		figure{millis(alone.Slowest), "ms-alone-slowest", "  slowest, undisturbed", "", ""},
		figure{float64(hostileCount - hung.Answers), "hanging", fmt.Sprintf("  hanging after %s", hung.Took.Round(time.Second/10)), "", ""},
		figure{float64(refreshed), "refreshed", "refreshed meanwhile, of 200 due", "200", ""})
}
