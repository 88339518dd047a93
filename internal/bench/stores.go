package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	goredis "github.com/redis/go-redis/v9"

	"stsmap/e2e/site"
)

// A contender is a store, and the least that its users can do with what is behind it.
type contender struct {
	name  string // for people
	store string // as cache.store has it
	least string // what least does
	// bare does the least n times, one after the other.
	bare func(n int) (time.Duration, error)
	// size is how many bytes all of it takes.
	size func() (int64, error)
}

// stores measures the stores themselves, what a daemon with a remote one is compared to one with a file, and how fast
// names are warmed.
func (b *bench) stores() (err error) {
	redisServer, postgresServer, err := b.servers()
	defer func() {
		for _, s := range []*site.Server{redisServer, postgresServer} {
			if s != nil {
				s.Kill()
			}
		}
	}()
	if err != nil {
		return err
	}
	all := []contender{
		{name: "memory", store: "memory:"},
		{name: "bolt", store: b.file("compared"), least: "write and fsync of 4 KiB", bare: b.syncs, size: fileSize(filepath.Join(b.dir, "compared.db"))},
		{name: "redis", store: redisServer.URL, least: "PING", bare: pings(redisServer.URL), size: redisSize(redisServer.URL)},
		{name: "postgres", store: postgresServer.URL, least: "SELECT 1", bare: selects(postgresServer.URL), size: postgresSize(postgresServer.URL)},
	}
	for _, c := range all {
		if err := b.operations(c); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	if err := b.burst(); err != nil {
		return err
	}
	for _, c := range all {
		if err := b.due(c); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	for _, c := range all[2:] {
		if err := b.remote(c); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return b.warmed()
}

// servers starts a Redis that keeps what it is told, and a PostgreSQL.
func (b *bench) servers() (redis, postgres *site.Server, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if redis, err = site.NewRedis(filepath.Join(b.dir, "redis"), 6379, "--appendfsync", "everysec"); err != nil {
		return nil, nil, err
	}
	if err = redis.Start(ctx); err != nil {
		return redis, nil, err
	}
	// PostgreSQL refuses to be root, and has to get at its folder.
	if err = os.Chmod(b.dir, 0o711); err != nil {
		return redis, nil, err
	}
	if postgres, err = site.NewPostgres(ctx, filepath.Join(b.dir, "postgres")); err != nil {
		return redis, nil, err
	}
	return redis, postgres, postgres.Start(ctx)
}

// operations measures a Put and a Get, one after the other and many at once.
func (b *bench) operations(c contender) (err error) {
	keys := series{"o%d.store.example", 100000, b.some(20000)}
	store, err := openStore(c.store, keys.N)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	ctx, now := context.Background(), time.Now()
	const alone = 200
	var puts, gets []time.Duration
	for i := range alone {
		began := time.Now()
		if err := store.Put(ctx, keys.entry(i, now)); err != nil {
			return err
		}
		puts = append(puts, time.Since(began))
	}
	began := time.Now()
	if err := putAll(store, keys, 64); err != nil {
		return err
	}
	rate := float64(keys.N) / time.Since(began).Seconds()
	for i := range 10 * alone {
		began := time.Now()
		if _, err := store.Get(ctx, keys.domain(i*7919%keys.N)); err != nil {
			return err
		}
		gets = append(gets, time.Since(began))
	}
	b.table.row(c.name+": Put, one after the other", micros(median(puts)), "", "")
	b.table.row(c.name+": Put, 64 at once: per second", fmt.Sprintf("%.0f", rate), "", "")
	b.table.row(c.name+": Get", micros(median(gets)), "", "")
	if c.bare == nil {
		return nil
	}
	took, err := c.bare(alone)
	b.table.row("  ("+c.least+")", micros(took/alone), "", "")
	return err
}

// burst measures how long it takes until 10,000 policies that come at once are in the file to stay.
func (b *bench) burst() error {
	keys := series{"b%d.store.example", 100000, b.some(10000)}
	store, err := openStore(b.file("burst"), keys.N)
	if err != nil {
		return err
	}
	began := time.Now()
	err = putAll(store, keys, keys.N)
	took := time.Since(began)
	if err := errors.Join(err, store.Close()); err != nil {
		return err
	}
	const some = 100
	each, err := b.syncs(some)
	b.table.row(fmt.Sprintf("bolt: a burst of %d policies", keys.N), millis(took), "", "")
	b.table.row("  (as many times write and fsync of 4 KiB)", millis(each/some*time.Duration(keys.N)), "", "")
	return err
}

// due measures how long it takes to find what is due among many, a hundred of them at a time as a daemon does, and what
// room they take.
func (b *bench) due(c contender) (err error) {
	keys := series{"q%d.due.example", 100000, b.some(100000)}
	if b.million && (c.name == "bolt" || c.name == "memory") {
		keys.N = b.some(1000000)
	}
	store, err := openStore(c.store, keys.N)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var before, after int64
	if c.size != nil {
		if before, err = c.size(); err != nil {
			return err
		}
	}
	if err := putAll(store, keys, 2048); err != nil {
		return err
	}
	if c.size != nil {
		if after, err = c.size(); err != nil {
			return err
		}
	}
	var times []time.Duration
	// An hour's worth is due by then, and more of it than is taken.
	now := time.Now().Add(23 * time.Hour)
	for range 9 {
		began := time.Now()
		taken, err := store.Due(context.Background(), now, 10*time.Minute, 100)
		if err != nil {
			return err
		}
		if len(taken) != 100 {
			return fmt.Errorf("%d of 100 are due", len(taken))
		}
		times = append(times, time.Since(began))
	}
	b.table.row(fmt.Sprintf("%s: Due, 100 among %d", c.name, keys.N), millis(median(times)), "<= 10 ms", "")
	if c.size != nil {
		b.table.row("  bytes per domain", fmt.Sprint((after-before)/int64(keys.N)), "", "")
	}
	return nil
}

// remote compares a daemon with a store on the network to one with a file.
func (b *bench) remote(c contender) error {
	keys := series{policyNow, 100000, 10000}
	file := b.file("local-" + c.name)
	for _, store := range []string{file, c.store} {
		if err := b.fill(store, keys); err != nil {
			return err
		}
	}
	local, err := b.daemon("local-"+c.name, setup{store: file})
	if err != nil {
		return err
	}
	far, err := b.daemon("far-"+c.name, setup{store: c.store, addr: "127.0.0.1:8463"})
	if err != nil {
		return errors.Join(err, local.stop())
	}
	r, err := b.compareDaemons(far, local, keys)
	if err := errors.Join(err, far.stop(), local.stop()); err != nil {
		return err
	}
	b.table.row(c.name+" and memory before it: lookups, of bolt's", percent(r.rate), ">= 95 %", "")
	b.table.row("  CPU per answer", fmt.Sprintf("%+.1f %%", 100*(r.cpu-1)), "", "")
	return nil
}

func (b *bench) compareDaemons(x, y *daemon, keys series) (result, error) {
	for _, d := range []*daemon{x, y} { // the first time is no cached answer
		t, err := call[tally](b.load, job{What: "each", Addr: d.unix, Conns: 8, Keys: keys})
		if err != nil {
			return result{}, err
		}
		if t.Found != keys.N {
			return result{}, fmt.Errorf("%d of %d domains have a policy", t.Found, keys.N)
		}
	}
	return b.compare(contest{server{x.unix, x.cmd.Process.Pid}, server{y.unix, y.cmd.Process.Pid}, 8, keys})
}

// syncs writes to a file and waits for the disk each time.
func (b *bench) syncs(n int) (took time.Duration, err error) {
	f, err := os.Create(filepath.Join(b.dir, "synced"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	page := make([]byte, 4096)
	began := time.Now()
	for range n {
		if _, err := f.WriteAt(page, 0); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

func fileSize(path string) func() (int64, error) {
	return func() (int64, error) {
		info, err := os.Stat(path)
		if err != nil {
			return 0, err
		}
		return info.Size(), nil
	}
}

// pings asks a Redis for nothing.
func pings(url string) func(n int) (time.Duration, error) {
	return func(n int) (took time.Duration, err error) {
		o, err := goredis.ParseURL(url)
		if err != nil {
			return 0, err
		}
		client := goredis.NewClient(o)
		defer func() { err = errors.Join(err, client.Close()) }()
		began := time.Now()
		for range n {
			if err := client.Ping(context.Background()).Err(); err != nil {
				return 0, err
			}
		}
		return time.Since(began), nil
	}
}

// redisSize is how much memory a Redis has for its data.
func redisSize(url string) func() (int64, error) {
	return func() (used int64, err error) {
		o, err := goredis.ParseURL(url)
		if err != nil {
			return 0, err
		}
		client := goredis.NewClient(o)
		defer func() { err = errors.Join(err, client.Close()) }()
		text, err := client.Info(context.Background(), "memory").Result()
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(text) {
			if rest, ok := strings.CutPrefix(line, "used_memory_dataset:"); ok {
				_, err := fmt.Sscan(rest, &used)
				return used, err
			}
		}
		return 0, errors.New("INFO memory has no used_memory_dataset")
	}
}

// selects asks a PostgreSQL for nothing.
func selects(url string) func(n int) (time.Duration, error) {
	return func(n int) (took time.Duration, err error) {
		err = withPostgres(url, func(ctx context.Context, conn *pgx.Conn) error {
			began := time.Now()
			for range n {
				var one int
				if err := conn.QueryRow(ctx, "SELECT 1").Scan(&one); err != nil {
					return err
				}
			}
			took = time.Since(began)
			return nil
		})
		return took, err
	}
}

// postgresSize is what the tables and indexes take on disk.
func postgresSize(url string) func() (int64, error) {
	return func() (size int64, err error) {
		err = withPostgres(url, func(ctx context.Context, conn *pgx.Conn) error {
			const all = "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace " +
				"WHERE n.nspname = 'stsmap' AND c.relkind = 'r'"
			return conn.QueryRow(ctx, all).Scan(&size)
		})
		return size, err
	}
}

func withPostgres(url string, do func(context.Context, *pgx.Conn) error) (err error) {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	return do(ctx, conn)
}
