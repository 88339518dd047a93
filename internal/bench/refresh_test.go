package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/cache"
	"stsmap/policy"
	"stsmap/sts"
	"stsmap/stsfetch"
)

// refreshVariable makes TestRefresh simulate what a benchmark wants: how many policies are due, and how many of 100
// policy hosts hang.
const refreshVariable = "BENCH_REFRESH"

// BenchmarkRefresh measures how many policies an engine refreshes in an hour while some policy hosts hang. It takes no
// hour: the engine runs on the clock of testing/synctest, with a network that is made of delays.
func BenchmarkRefresh(b *testing.B) {
	due := 20000
	if testing.Short() {
		due = 5000
	}
	all := simulate(b, due, 0)
	b.Run("hanging=0", func(b *testing.B) {
		report(b,
			figure{float64(all.refreshed), "refreshed", fmt.Sprintf("refreshed in an hour, of %d due", due), "", ""}, all.figure())
	})
	for _, hanging := range []int{5, 10} {
		b.Run(fmt.Sprintf("hanging=%d", hanging), func(b *testing.B) {
			r := simulate(b, due, hanging)
			// Of the domains whose hosts work there are fewer.
			share := float64(r.refreshed) / float64(all.refreshed) / float64(r.working) * float64(all.working)
			report(b, figure{100 * share, "%undisturbed", "refreshed in an hour, others hang", ">= 95 %", ""}, r.figure())
		})
	}
}

// refreshes are what came of an hour.
type refreshes struct {
	working   int           // domains whose policy hosts answer
	refreshed int           // downloads
	most      time.Duration // until 95 % of working were
}

func (r refreshes) figure() figure {
	return figure{r.most.Seconds(), "s-95%", "until 95 % of those that can are", "", ""}
}

// simulate runs TestRefresh in a process of its own: only a test may use synctest.
func simulate(b *testing.B, due, hanging int) (r refreshes) {
	self, err := os.Executable()
	check(b, err)
	cmd := exec.Command(self, "-test.run=^TestRefresh$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", refreshVariable, due, hanging))
	out, err := cmd.CombinedOutput()
	if _, scan := fmt.Sscan(string(out), &r.working, &r.refreshed, &r.most); err != nil || scan != nil {
		b.Fatalf("%v, %v: %s", err, scan, out)
	}
	return r
}

// The engine refreshes each policy whose host works, and no other. A benchmark reads from the output how fast.
func TestRefresh(t *testing.T) {
	due, hanging := 500, 10
	wanted := os.Getenv(refreshVariable)
	if _, err := fmt.Sscan(wanted, &due, &hanging); err != nil && wanted != "" {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		r := refreshHour(t, due, hanging)
		if r.working != due-due*hanging/100 || wanted == "" && r.refreshed != r.working || r.most <= 0 || r.most > time.Hour {
			t.Errorf("%d due, %d %% hang: %+v", due, hanging, r)
		}
		if wanted != "" {
			fmt.Println(r.working, r.refreshed, int64(r.most))
		}
	})
}

// refreshHour is called with a clock that goes on when all goroutines wait.
func refreshHour(t *testing.T, due, hanging int) refreshes {
	store, began := cache.NewMemory(due), time.Now()
	defer store.Close()
	keys := Series{"r%d.example", 100000, due} // each of an owner of its own
	for i := range keys.N {
		entry := keys.entry(i, began.Add(-24*time.Hour))
		entry.Refresh, entry.Used = began, began.Truncate(time.Hour)
		if err := store.Put(t.Context(), entry); err != nil {
			t.Fatal(err)
		}
	}
	hosts := &slowHosts{hanging: hanging, working: due - due*hanging/100, began: began}
	engine := policy.New(policy.Config{Store: store, Fetch: hosts, CacheSize: 2 * due})
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	engine.Run(ctx)
	refreshed := int(hosts.answered.Load())
	engine.Close()
	return refreshes{hosts.working, refreshed, time.Duration(hosts.most.Load())}
}

// slowHosts answer like those of the internet, or never.
type slowHosts struct {
	hanging  int // of 100
	working  int
	began    time.Time
	answered atomic.Int64
	most     atomic.Int64 // when 95 of 100 of those that work had been asked, since began
}

// Record takes as long as a question to DNS.
func (*slowHosts) Record(context.Context, string) (stsfetch.Record, error) {
	time.Sleep(20 * time.Millisecond)
	return stsfetch.Record{ID: "1"}, nil
}

// Policy takes as long as a few round trips, or all the time that there is.
func (h *slowHosts) Policy(ctx context.Context, domain string) (string, *sts.Policy, error) {
	n, err := strconv.Atoi(domain[1:7])
	if err != nil {
		return "", nil, err
	}
	if n%100 < h.hanging {
		<-ctx.Done()
		return "", nil, context.Cause(ctx)
	}
	time.Sleep(200 * time.Millisecond)
	if h.answered.Add(1) == int64(h.working*95/100) {
		h.most.Store(int64(time.Since(h.began)))
	}
	text := Series{domain, n, 1}.entry(0, h.began).Policy
	p, err := sts.ParsePolicy([]byte(text))
	return text, p, err
}
