package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"stsmap/cache"
	"stsmap/cache/cachetest"
)

const (
	stopped = syscall.SIGSTOP
	goesOn  = syscall.SIGCONT
)

// TestKilled: no Put that was acknowledged is lost when the server is killed, if
// it writes to disk before it answers.
func TestKilled(t *testing.T) {
	s := startServer(t, "--appendonly", "yes", "--appendfsync", "always")
	store := mustOpen(t, s.url())
	var mu sync.Mutex
	kept := make(map[string]cache.Entry)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var writing sync.WaitGroup
	for w := range 8 {
		writing.Go(func() {
			for i := w; ctx.Err() == nil; i += 8 {
				once, done := context.WithTimeout(ctx, time.Second)
				e := entry(i)
				if store.Put(once, e) == nil {
					mu.Lock()
					kept[e.Domain] = e
					mu.Unlock()
				}
				done()
			}
		})
	}
	for range 3 {
		mu.Lock()
		before := len(kept)
		mu.Unlock()
		eventually(t, "writing goes on", func() error {
			mu.Lock()
			defer mu.Unlock()
			if len(kept) < before+200 {
				return fmt.Errorf("%d entries are kept", len(kept)-before)
			}
			return nil
		})
		s.kill()
		s.start()
	}
	cancel()
	writing.Wait()
	for _, e := range kept {
		get(t, store, e)
	}
}

// TestUnreachable: a Store is opened without a server, fails with words, and
// works as soon as there is one.
func TestUnreachable(t *testing.T) {
	s := startServer(t)
	s.kill()
	var mu sync.Mutex
	var told []string
	store, err := Open(t.Context(), s.url(), Options{OnError: func(op string, err error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, op)
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	changes := make(chan string, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { store.Watch(ctx, func(domain string, _ bool) { changes <- domain }) })
	for name, call := range calls(t.Context(), store) {
		if err := call(); err == nil || errors.Is(err, cache.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	time.Sleep(2 * retryEvery)
	s.start()
	if <-changes != "" {
		t.Error("Watch does not begin with the empty domain")
	}
	eventually(t, "the server is found", func() error { return store.Put(t.Context(), entry(1)) })
	if domain := <-changes; domain != "1.example" {
		t.Errorf("told %q", domain)
	}
	// And once more while it watches.
	s.kill()
	s.start()
	for domain := range changes {
		if domain == "" {
			break
		}
	}
	cancel()
	watching.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(told) != 2 || told[0] != "watch" {
		t.Errorf("told of failures: %q", told)
	}
}

// TestFull: a server that is full refuses to write, and can be read.
func TestFull(t *testing.T) {
	s := startServer(t)
	store := mustOpen(t, s.url())
	cachetest.Put(t, store, entry(1))
	s.cli("CONFIG", "SET", "maxmemory", "1")
	for name, call := range map[string]func() error{
		"Put":   func() error { return store.Put(t.Context(), entry(2)) },
		"Claim": func() error { _, err := store.Claim(t.Context(), "3.example", time.Minute); return err },
	} {
		if err := call(); err == nil {
			t.Errorf("%s succeeded", name)
		}
	}
	get(t, store, entry(1))
	if _, err := store.Get(t.Context(), "2.example"); !errors.Is(err, cache.ErrNotFound) {
		t.Error(err)
	}
	s.cli("CONFIG", "SET", "maxmemory", "0")
	cachetest.Put(t, store, entry(2))
}

// TestCluster: a Cluster is a store like any other if all keys are in one slot.
// The slot is on one of its three nodes, not the one that is queried first, and
// moves to another node while the Store is in use.
func TestCluster(t *testing.T) {
	nodes, owner := startCluster(t)
	first := nodes[(owner+1)%len(nodes)]
	store := mustOpen(t, "redis+cluster://127.0.0.1:"+first.port+"?prefix="+clusterPrefix)
	for i := range 300 {
		cachetest.Put(t, store, entry(i))
	}
	if n := nodes[owner].cli("DBSIZE"); n == "0" {
		t.Error("the owner of the slot has nothing")
	}
	n := 0
	for _, err := range store.All(t.Context()) {
		if n++; err != nil {
			t.Fatal(err)
		}
	}
	expired := entry(0)
	expired.Domain, expired.Refresh = "00.example", time.Time{}
	cachetest.Put(t, store, expired)
	nodes[owner].cli("DEL", "{"+clusterPrefix+"}:e:00.example")
	if due, err := store.Due(t.Context(), time.Now().Add(48*time.Hour), time.Hour, 1000); n != 300 || len(due) != 300 || err != nil {
		t.Errorf("%d entries, %d due, %v", n, len(due), err)
	}
	if rows := nodes[owner].cli("ZCARD", "{"+clusterPrefix+"}:domains"); rows != "300" {
		t.Errorf("%s rows are left by a sweep, want 300", rows)
	}
	ctx, cancel := context.WithCancel(t.Context())
	heard := make(chan string, 10000)
	var watching sync.WaitGroup
	watching.Go(func() { store.Watch(ctx, func(domain string, _ bool) { heard <- domain }) })
	<-heard
	cachetest.Put(t, store, entry(7))
	if domain := <-heard; domain != "7.example" {
		t.Errorf("told %q", domain)
	}
	moveSlot(t, nodes, owner, first)
	eventually(t, "the store follows its slot", func() error { return store.Put(t.Context(), entry(301)) })
	get(t, store, entry(7))
	get(t, store, entry(301))
	if n := first.cli("EXISTS", "{"+clusterPrefix+"}:e:301.example"); n != "1" {
		t.Errorf("the new owner of the slot says %q", n)
	}
	// Nodes pass on what is published at others.
	cachetest.Put(t, store, entry(302))
	for domain := range heard {
		if domain == "302.example" {
			break
		}
	}
	cancel()
	watching.Wait()
}

const clusterPrefix = "p"

// startCluster starts three nodes, and returns them with the number of the one
// that has our slot.
func startCluster(t *testing.T) (nodes []*server, owner int) {
	t.Helper()
	addrs := []string{"--cluster", "create"}
	for range 3 {
		s := startServer(t, "--cluster-enabled", "yes", "--cluster-port", freePort(t))
		nodes = append(nodes, s)
		addrs = append(addrs, "127.0.0.1:"+s.port)
	}
	if out := nodes[0].cliWithin(2*soon, append(addrs, "--cluster-yes")...); !strings.Contains(out, "All 16384 slots covered") {
		t.Fatal(out)
	}
	for i, s := range nodes {
		eventually(t, "the cluster is up", func() error {
			if out := s.cli("CLUSTER", "INFO"); !strings.Contains(out, "cluster_state:ok") {
				return errors.New(out)
			}
			return nil
		})
		if !strings.HasPrefix(s.cli("EXISTS", "{"+clusterPrefix+"}"), "MOVED") {
			owner = i
		}
	}
	return nodes, owner
}

// moveSlot moves our slot from the node that has it.
func moveSlot(t *testing.T, nodes []*server, owner int, to *server) {
	t.Helper()
	from := nodes[owner]
	slot := from.cli("CLUSTER", "KEYSLOT", "{"+clusterPrefix+"}")
	fromID, toID := from.cli("CLUSTER", "MYID"), to.cli("CLUSTER", "MYID")
	from.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", toID)
	to.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", fromID)
	for {
		keys := from.cli("CLUSTER", "GETKEYSINSLOT", slot, "100")
		if keys == "" {
			break
		}
		args := append([]string{"MIGRATE", "127.0.0.1", to.port, "", "0", "5000", "KEYS"}, strings.Fields(keys)...)
		if out := from.cli(args...); out != "OK" {
			t.Fatal(out)
		}
	}
	for _, s := range append([]*server{to}, nodes...) {
		if out := s.cli("CLUSTER", "SETSLOT", slot, "NODE", toID); out != "OK" {
			t.Fatal(out)
		}
	}
}

// TestSentinel: when the master dies the other one takes over, and the Store
// goes on with that.
func TestSentinel(t *testing.T) {
	master := startServer(t)
	replica := startServer(t, "--replicaof", "127.0.0.1 "+master.port)
	sentinel := &server{t: t, dir: t.TempDir(), port: freePort(t)}
	conf := sentinel.write("sentinel.conf", "port "+sentinel.port+"\nbind 127.0.0.1\ndir "+sentinel.dir+
		"\nsentinel monitor site 127.0.0.1 "+master.port+" 1\nsentinel down-after-milliseconds site 2000\nsentinel failover-timeout site 5000\n")
	sentinel.run("redis-sentinel", conf)
	eventually(t, "the replica is known", func() error {
		if out := sentinel.cli("SENTINEL", "replicas", "site"); out == "" || sentinel.cli("SENTINEL", "ckquorum", "site")[:2] != "OK" {
			return errors.New(out)
		}
		return nil
	})
	store := mustOpen(t, "redis+sentinel://127.0.0.1:"+sentinel.port+"?master_name=site")
	cachetest.Put(t, store, entry(1))
	eventually(t, "the replica has it", func() error {
		if replica.cli("EXISTS", "{stsmap}:e:1.example") != "1" {
			return errors.New("not yet")
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	heard := make(chan string, 10000)
	var watching sync.WaitGroup
	watching.Go(func() { store.Watch(ctx, func(domain string, _ bool) { heard <- domain }) })
	<-heard
	master.kill()
	eventually(t, "the other takes over", func() error {
		once, done := context.WithTimeout(t.Context(), time.Second)
		defer done()
		return store.Put(once, entry(2))
	})
	get(t, store, entry(1))
	get(t, store, entry(2))
	for domain := range heard {
		if domain == "" {
			break
		}
	}
	cachetest.Put(t, store, entry(3))
	for domain := range heard {
		if domain == "3.example" {
			break
		}
	}
	cancel()
	watching.Wait()
}
