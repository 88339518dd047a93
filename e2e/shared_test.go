package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"stsmap/e2e/site"
	"stsmap/socketmap"
)

// sharedWorld is many domains with a policy to be enforced, all with one MX host, and one whose policy host says
// nothing.
const sharedWorld = `
-- dns --
. NS ns.example.
mx.shared.example. A 127.0.0.11
slow.example. MX 10 mx.shared.example.
_mta-sts.slow.example. TXT "v=STSv1; id=A;"
mta-sts.slow.example. A 127.0.0.3
-- bulk --
policy d%d.example 1..20000 addr=127.0.0.2 mx=mx.shared.example
-- https --
mta-sts.slow.example addr=127.0.0.3 policy=slow SLOW
-- policy/slow --
version: STSv1
mode: enforce
mx: mx.shared.example
max_age: 604800
-- smtp --
mx.shared.example addr=127.0.0.11
`

// enforced is the reply for each of them.
const enforced = "OK secure match=mx.shared.example servername=hostname"

// A cluster is three mail servers whose daemons have one store.
type cluster struct {
	*site.Site
	t     *testing.T
	hosts []*site.Host
	next  int // the number of the next domain without a lookup so far

	wrong   atomic.Int64 // replies that were not as they should be
	replies atomic.Int64
	load    sync.WaitGroup
	quit    context.CancelFunc

	mu    sync.Mutex
	first string   // of the wrong replies
	met   []string // domains that were new under load
}

// TestSharedStore: three hosts with one store, which is killed, started again and fails over while mail flows.
func TestSharedStore(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*hang)
	defer cancel()
	binary, err := site.Build(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("redis", func(t *testing.T) {
		server, err := site.NewRedis(filepath.Join(site.Dir(), "redis"), 6400)
		playShared(t, ctx, binary, server, err)
	})
	t.Run("postgres", func(t *testing.T) {
		server, err := site.NewPostgres(ctx, filepath.Join(site.Dir(), "pg"))
		playShared(t, ctx, binary, server, err)
	})
	t.Run("sentinel", func(t *testing.T) { playFailover(t, ctx, binary) })
}

// playShared plays everything that can happen to a store that is one server.
func playShared(t *testing.T, ctx context.Context, binary string, server *site.Server, err error) {
	if err == nil {
		t.Cleanup(server.Kill)
		err = server.Start(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, ctx, binary, server.URL)
	c.once(ctx, 30)
	c.begin(ctx)
	for range 2 {
		c.flow(ctx, 20)
		marks := c.marks()
		server.Kill()
		c.logged(ctx, marks, "store is away")
		c.flow(ctx, 20)
		marks = c.marks()
		if err := server.Start(ctx); err != nil {
			t.Fatal(err)
		}
		c.logged(ctx, marks, "store works again")
		c.flow(ctx, 20)
	}
	c.end()
	c.learned(ctx, server.URL)
	c.diesRetrieving(ctx)
}

// playFailover kills the master of two servers.
func playFailover(t *testing.T, ctx context.Context, binary string) {
	dir := filepath.Join(site.Dir(), "sentinel")
	master, masterErr := site.NewRedis(filepath.Join(dir, "a"), 6401)
	replica, replicaErr := site.NewRedis(filepath.Join(dir, "b"), 6402, "--replicaof", "127.0.0.1", "6401")
	sentinel, sentinelErr := site.NewSentinel(filepath.Join(dir, "s"), 6403, 6401)
	for _, err := range []error{masterErr, replicaErr, sentinelErr} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []*site.Server{master, replica, sentinel} {
		t.Cleanup(s.Kill)
		if err := s.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := replica.Linked(ctx); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, ctx, binary, sentinel.URL)
	c.once(ctx, 10)
	c.begin(ctx)
	c.flow(ctx, 20)
	marks := c.marks()
	master.Kill()
	c.logged(ctx, marks, "store is away")
	// What the master had acknowledged a moment before, and not yet passed on, is lost (README says so).
	c.mu.Lock()
	c.met = nil
	c.mu.Unlock()
	c.logged(ctx, marks, "store works again")
	c.flow(ctx, 20)
	c.end()
	c.learned(ctx, sentinel.URL)
}

// newCluster starts the hosts.
func newCluster(t *testing.T, ctx context.Context, binary, url string) *cluster {
	s, err := site.Start(ctx, strings.ReplaceAll(sharedWorld, "SLOW", "stall=headers"), binary, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{Site: s, t: t, next: 1}
	t.Cleanup(func() {
		c.end()
		if t.Failed() {
			for i, h := range c.hosts {
				t.Logf("stsmap %d:\n%s", i+1, strings.Join(h.Daemon.Log.Since(0), "\n"))
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for range 3 {
		c.join(ctx, url)
	}
	return c
}

// join adds a host.
func (c *cluster) join(ctx context.Context, url string) *site.Host {
	c.t.Helper()
	h, err := c.StartHost(ctx, fmt.Sprintf("cache.store = %q\nfetch.timeout = \"9s\"\nlog.lookups = \"none\"\npostfix.release = \"3.7\"\n", url))
	if err != nil {
		c.t.Fatal(err)
	}
	c.hosts = append(c.hosts, h)
	return h
}

// fresh returns a domain that was not looked up before.
func (c *cluster) fresh() string {
	d := fmt.Sprintf("d%d.example", c.next)
	c.next++
	return d
}

// ask looks a domain up at a host.
func (c *cluster) ask(ctx context.Context, h *site.Host, domain string) string {
	client, err := socketmap.Dial(ctx, h.Lookup)
	if err != nil {
		return err.Error()
	}
	defer client.Close()
	reply, err := client.Do(ctx, "postfix", domain)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(reply.Status.String() + " " + reply.Text)
}

// check counts a lookup, and whether its reply was right.
func (c *cluster) check(ctx context.Context, h *site.Host, domain string) {
	got := c.ask(ctx, h, domain)
	if ctx.Err() != nil {
		return
	}
	c.replies.Add(1)
	if got != enforced {
		c.wrong.Add(1)
		c.mu.Lock()
		if c.first == "" {
			c.first = domain + ": " + got
		}
		c.mu.Unlock()
	}
}

// meet looks up a domain that is new.
func (c *cluster) meet(ctx context.Context, h *site.Host, domain string) {
	c.check(ctx, h, domain)
	if ctx.Err() == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.met = append(c.met, domain)
	}
}

// once sends a message to each of n domains from all hosts at the same time: each is delivered, and each domain's policy
// downloaded once.
func (c *cluster) once(ctx context.Context, n int) {
	c.t.Helper()
	for range n {
		domain := c.fresh()
		var all sync.WaitGroup
		for _, h := range c.hosts {
			all.Go(func() {
				m, err := h.Postfix.Send("user@" + domain)
				if err != nil {
					c.t.Error(err)
					return
				}
				if s, err := h.Postfix.Status(ctx, m, 0); err != nil || s.Word != "sent" {
					c.t.Errorf("%s: %s %s (%v)", domain, s.Word, s.Why, err)
				}
			})
		}
		all.Wait()
		if got := c.World.Requests("mta-sts." + domain); got != 1 {
			c.t.Errorf("the policy of %s was downloaded %d times by %d hosts", domain, got, len(c.hosts))
		}
	}
}

// begin has lookups and messages under way at every host until end: of known domains, and of new ones.
func (c *cluster) begin(ctx context.Context) {
	ctx, c.quit = context.WithCancel(ctx)
	for i, h := range c.hosts {
		c.load.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				c.check(ctx, h, fmt.Sprintf("d%d.example", 1+n%10))
				if n%20 == 0 {
					c.meet(ctx, h, fmt.Sprintf("d%d.example", 1000+5000*i+n/20))
				}
			}
		})
		c.load.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				m, err := h.Postfix.Send(fmt.Sprintf("user@d%d.example", 1+n%10))
				if err == nil {
					var s site.Status
					if s, err = h.Postfix.Status(ctx, m, 0); err == nil && s.Word != "sent" {
						err = fmt.Errorf("%s: %s", s.Word, s.Why)
					}
				}
				if err != nil && ctx.Err() == nil {
					c.t.Errorf("host %d, message %d: %v", i+1, n, err)
					return
				}
			}
		})
	}
}

// flow waits for n new domains to have been looked up at each host.
func (c *cluster) flow(ctx context.Context, n int) {
	for target := c.replies.Load() + int64(n*20*len(c.hosts)); c.replies.Load() < target; time.Sleep(5 * time.Millisecond) {
		if ctx.Err() != nil {
			c.t.Fatal("lookups have stopped")
		}
	}
}

// end ends the load, and wants all to have been right.
func (c *cluster) end() {
	if c.quit == nil {
		return
	}
	c.quit()
	c.quit = nil
	c.load.Wait()
	if n := c.wrong.Load(); n > 0 {
		c.t.Errorf("%d of %d lookups failed, first %s", n, c.replies.Load(), c.first)
	}
	c.t.Logf("%d lookups, %d failed", c.replies.Load(), c.wrong.Load())
}

// marks are where the logs of the daemons end now.
func (c *cluster) marks() (all []int64) {
	for _, h := range c.hosts {
		all = append(all, h.Daemon.Log.Mark())
	}
	return all
}

// logged waits until every daemon has a line with text after the marks.
func (c *cluster) logged(ctx context.Context, marks []int64, text string) {
	c.t.Helper()
	for i, h := range c.hosts {
		if _, err := h.Daemon.Log.Wait(ctx, regexp.MustCompile(text), marks[i]); err != nil {
			c.t.Fatalf("host %d: %v", i+1, err)
		}
	}
}

// learned has a further host find in the store what the others have learned while it was away: the domains themselves
// say nothing any more.
func (c *cluster) learned(ctx context.Context, url string) {
	c.t.Helper()
	if err := c.Update(strings.NewReplacer("SLOW", "down", "policy d%d.example 1..20000 addr=127.0.0.2", "none d%d.example 1..20000").Replace(sharedWorld)); err != nil {
		c.t.Fatal(err)
	}
	h := c.join(ctx, url)
	for _, domain := range c.met {
		// After the store is back, each host writes what it cached meanwhile, at once or later.
		for got := c.ask(ctx, h, domain); got != enforced; got = c.ask(ctx, h, domain) {
			if ctx.Err() != nil {
				c.t.Fatalf("%s is not in the store: %s", domain, got)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	c.t.Logf("%d domains met under load are in the store", len(c.met))
}

// diesRetrieving kills a daemon that retrieves a policy for all. The others wait no longer than its lease.
func (c *cluster) diesRetrieving(ctx context.Context) {
	c.t.Helper()
	if err := c.Update(strings.ReplaceAll(sharedWorld, "SLOW", "stall=headers")); err != nil {
		c.t.Fatal(err)
	}
	var dying sync.WaitGroup
	dying.Go(func() { c.ask(ctx, c.hosts[0], "slow.example") })
	for c.World.Handshakes("mta-sts.slow.example") == 0 {
		if ctx.Err() != nil {
			c.t.Fatal("nobody retrieves slow.example")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := c.hosts[0].Daemon.Kill(); err != nil {
		c.t.Fatal(err)
	}
	dying.Wait()
	if err := c.Update(strings.ReplaceAll(sharedWorld, "SLOW", "")); err != nil {
		c.t.Fatal(err)
	}
	var others sync.WaitGroup
	for _, h := range c.hosts[1:] {
		others.Go(func() {
			if got := c.ask(ctx, h, "slow.example"); got != enforced {
				c.t.Errorf("after the death of who retrieved it: %s", got)
			}
		})
	}
	others.Wait()
	if n := c.World.Requests("mta-sts.slow.example"); n > 2 {
		c.t.Errorf("%d requests, of which one died", n)
	}
}
