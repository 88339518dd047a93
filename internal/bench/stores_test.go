package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	goredis "github.com/redis/go-redis/v9"

	"stsmap/cache"
	"stsmap/cache/bolt"
	"stsmap/cache/postgres"
	"stsmap/cache/redis"
	"stsmap/e2e/site"
)

// openStore opens a store by what cache.store calls it, without the memory that a daemon puts before it.
func openStore(name string, n int) (cache.Store, error) {
	switch scheme, rest, _ := strings.Cut(name, ":"); scheme {
	case "memory":
		return cache.NewMemory(n), nil
	case "bolt":
		return bolt.Open(rest, bolt.Options{})
	case "redis":
		return redis.Open(context.Background(), name, redis.Options{})
	default:
		return postgres.Open(context.Background(), name, postgres.Options{})
	}
}

// entry is what a daemon caches of a domain of the series after a first lookup now.
func (s Series) entry(i int, now time.Time) cache.Entry {
	n := strconv.Itoa(s.Low + i)
	return cache.Entry{
		Domain:  s.domain(i),
		ID:      "1",
		Policy:  "version: STSv1\r\nmode: enforce\r\nmx: mx" + n + ".mail.example\r\nmax_age: 604800\r\n",
		Fetched: now,
		Expires: now.Add(7 * 24 * time.Hour),
		Checked: now,
		Recheck: now.Add(5*time.Minute - time.Second),
		Refresh: now.Add(22*time.Hour + time.Duration(i%7200)*time.Second),
		Used:    now.Truncate(time.Hour),
	}
}

// newSeries returns domains that no store has yet.
func (l *lab) newSeries(n int) Series {
	l.used++
	return Series{fmt.Sprintf("q%%d.new%d.example", l.used), 100000, n}
}

// putAll puts a policy for each domain, some at once.
func putAll(store cache.Store, s Series, atOnce int, change func(*cache.Entry)) error {
	now := time.Now()
	return inParallel(s.N, atOnce, func(_, i int) error {
		entry := s.entry(i, now)
		if change != nil {
			change(&entry)
		}
		return store.Put(context.Background(), entry)
	})
}

// fill puts a policy for each domain into a store, changed if that is wanted.
func fill(b *testing.B, name string, s Series, change func(*cache.Entry)) {
	store, err := openStore(name, s.N)
	check(b, err)
	check(b, errors.Join(putAll(store, s, writers(name), change), store.Close()))
}

// writers is how many fill a store fastest: one commit of a file takes what a thousand Puts wait with, and a server's
// connections are few.
func writers(store string) int {
	if strings.HasPrefix(store, "bolt:") {
		return 2048
	}
	return 64
}

// newFile names a store in a file that is not there yet.
func (l *lab) newFile(b *testing.B) string {
	dir, err := os.MkdirTemp(l.dir, "store")
	check(b, err)
	return "bolt:" + dir + "/cache.db"
}

// filled makes a file with a policy for each domain, and returns the variable that a daemon uses it with.
func (l *lab) filled(b *testing.B, s Series) string {
	name := l.newFile(b)
	fill(b, name, s, nil)
	return "STSMAP_CACHE_STORE=" + name
}

// A storeBench is a store, and the least that its users can do with what is behind it.
type storeBench struct {
	name string
	url  string // as cache.store has it
	what string // what least does
	// least is nil for memory.
	least func() error
	// size is how many bytes all of it takes.
	size func() (int64, error)
}

// BenchmarkStores measures the stores themselves, and a daemon with a remote one beside one with a file.
func BenchmarkStores(b *testing.B) {
	l := newLab(b)
	for _, s := range l.stores(b) {
		b.Run(s.name+"-operations", func(b *testing.B) { l.operations(b, s) })
		b.Run(s.name+"-due", func(b *testing.B) { l.due(b, s, quick(100000)) })
		switch s.name {
		case "bolt":
			b.Run("bolt-burst", func(b *testing.B) { l.burst(b, s) })
			fallthrough
		case "memory":
			b.Run(s.name+"-due-million", func(b *testing.B) { l.due(b, s, quick(1000000)) })
		default:
			b.Run(s.name+"-daemon", func(b *testing.B) { l.remote(b, s) })
		}
	}
}

// stores starts a Redis that writes to disk every second, and a PostgreSQL.
func (l *lab) stores(b *testing.B) []storeBench {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	redisServer, err := site.NewRedis(filepath.Join(l.dir, "redis"), 6379, "--appendfsync", "everysec")
	check(b, err)
	b.Cleanup(redisServer.Kill)
	check(b, redisServer.Start(ctx))
	postgresServer, err := site.NewPostgres(ctx, filepath.Join(l.dir, "postgres"))
	check(b, err)
	b.Cleanup(postgresServer.Kill)
	check(b, postgresServer.Start(ctx))
	o, err := goredis.ParseURL(redisServer.URL)
	check(b, err)
	client := goredis.NewClient(o)
	b.Cleanup(func() { client.Close() })
	conn, err := pgx.Connect(ctx, postgresServer.URL)
	check(b, err)
	b.Cleanup(func() { conn.Close(context.Background()) })
	file, err := os.Create(filepath.Join(l.dir, "synced"))
	check(b, err)
	b.Cleanup(func() { file.Close() })

	ctx = context.Background()
	boltFile := filepath.Join(l.dir, "compared.db")
	page := make([]byte, 4096)
	return []storeBench{
		{name: "memory", url: "memory:"},
		{"bolt", "bolt:" + boltFile, "write and fsync of 4 KiB",
			func() error {
				_, err := file.WriteAt(page, 0)
				return errors.Join(err, file.Sync())
			},
			func() (int64, error) {
				info, err := os.Stat(boltFile)
				if err != nil {
					return 0, err
				}
				return info.Size(), nil
			}},
		{"redis", redisServer.URL, "PING", func() error { return client.Ping(ctx).Err() }, func() (int64, error) {
			return strconv.ParseInt(client.InfoMap(ctx, "memory").Item("Memory", "used_memory_dataset"), 10, 64)
		}},
		{"postgres", postgresServer.URL, "SELECT 1",
			func() error {
				var one int
				return conn.QueryRow(ctx, "SELECT 1").Scan(&one)
			},
			func() (size int64, err error) { // what the tables and indexes take on disk
				const all = "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace " +
					"WHERE n.nspname = 'stsmap' AND c.relkind = 'r'"
				return size, conn.QueryRow(ctx, all).Scan(&size)
			}},
	}
}

// leastTime is how long the least takes.
func (s storeBench) leastTime(b *testing.B, times int) time.Duration {
	began := time.Now()
	for range times {
		check(b, s.least())
	}
	return time.Since(began) / time.Duration(times)
}

// operations measures a Put and a Get, one after the other and many at once.
func (l *lab) operations(b *testing.B, s storeBench) {
	keys := l.newSeries(quick(20000))
	store, err := openStore(s.url, keys.N)
	check(b, err)
	defer store.Close()
	ctx, now := context.Background(), time.Now()
	const alone = 200
	var puts, gets []time.Duration
	for i := range alone {
		began := time.Now()
		check(b, store.Put(ctx, keys.entry(i, now)))
		puts = append(puts, time.Since(began))
	}
	began := time.Now()
	check(b, putAll(store, keys, 64, nil))
	rate := float64(keys.N) / time.Since(began).Seconds()
	for i := range 10 * alone {
		began := time.Now()
		_, err := store.Get(ctx, keys.domain(i*7919%keys.N))
		check(b, err)
		gets = append(gets, time.Since(began))
	}
	all := []figure{{micros(median(puts)), "us-Put", "Put, one after the other", "", ""},
		{rate, "Puts/s", "Put, 64 at once", "", ""},
		{micros(median(gets)), "us-Get", "Get", "", ""}}
	if s.least != nil {
		all = append(all, figure{micros(s.leastTime(b, alone)), "us-least", "  (" + s.what + ")", "", ""})
	}
	report(b, all...)
}

// burst measures how long it takes until 10,000 policies that come at once are in the file to stay.
func (l *lab) burst(b *testing.B, s storeBench) {
	keys := l.newSeries(quick(10000))
	store, err := openStore(l.newFile(b), keys.N)
	check(b, err)
	began := time.Now()
	err = putAll(store, keys, keys.N, nil)
	took := time.Since(began)
	check(b, errors.Join(err, store.Close()))
	report(b, figure{millis(took), "ms-burst", fmt.Sprintf("a burst of %d policies", keys.N), "", ""},
		figure{millis(s.leastTime(b, 100) * time.Duration(keys.N)), "ms-syncs", "  (as many writes and fsyncs)", "", ""})
}

// due measures how long it takes to find what is due among many, a hundred of them at a time as a daemon does, and how
// much room they take.
func (l *lab) due(b *testing.B, s storeBench, n int) {
	keys := l.newSeries(n)
	store, err := openStore(s.url, keys.N)
	check(b, err)
	defer store.Close()
	size := func() (n int64) {
		if s.size != nil {
			n, err = s.size()
			check(b, err)
		}
		return n
	}
	before := size()
	check(b, putAll(store, keys, writers(s.url), nil))
	after := size()
	var times []time.Duration
	// An hour's worth is due by then, and more of it than is taken.
	now := time.Now().Add(23 * time.Hour)
	for range 9 {
		began := time.Now()
		taken, err := store.Due(context.Background(), now, 10*time.Minute, 100)
		times = append(times, time.Since(began))
		check(b, err)
		if len(taken) != 100 {
			b.Fatalf("%d of 100 are due", len(taken))
		}
	}
	all := []figure{{millis(median(times)), "ms-Due", fmt.Sprintf("Due, 100 among %d", keys.N), "<= 10 ms", ""}}
	if s.size != nil {
		all = append(all, figure{float64(after-before) / float64(keys.N), "B/domain", "  bytes a domain", "", ""})
	}
	report(b, all...)
}

// remote compares a daemon with a store on the network to one with a file.
func (l *lab) remote(b *testing.B, s storeBench) {
	keys := Series{policyNow, 100000, 10000}
	fill(b, s.url, keys, nil)
	var sides [2]server
	for i, store := range []string{"STSMAP_CACHE_STORE=" + s.url, l.filled(b, keys)} {
		d := l.daemon(b, store)
		l.each(b, d.unix, 8, keys) // the first time is no cached answer
		sides[i] = server{d.unix, d.cmd.Process.Pid}
	}
	r := compare(b, l.load, sides[0], sides[1], 8, keys)
	report(b, figure{100 * r.rate, "%bolt", "lookups with memory before it", ">= 95 %", ""},
		figure{100 * r.cpu, "%bolt-CPU", "CPU per answer", "", ""})
}

// BenchmarkWarm measures how fast stsmap warm has the policies of names fetched, eight at a time.
func BenchmarkWarm(b *testing.B) {
	l := newLab(b)
	d := l.daemon(b, "STSMAP_ADMIN_SOCKET="+l.dir+"/control")
	keys := l.fresh(policySlow, quick(2000))
	var names bytes.Buffer
	for i := range keys.N {
		fmt.Fprintln(&names, keys.domain(i))
	}
	cmd := exec.Command(os.Getenv(programVariable), "warm", "--quiet", "--config", os.DevNull, "-")
	cmd.Env, cmd.Stdin = d.cmd.Env, &names
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("warm: %v: %s", err, out)
	}
	rate := float64(keys.N) / time.Since(began).Seconds()
	l.each(b, d.tcp, 8, keys)
	report(b, figure{rate, "domains/s", "warm, 20 ms delays (max 133)", "", ""})
}
