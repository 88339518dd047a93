package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"stsmap/admin"
	"stsmap/cache"
	"stsmap/cache/bolt"
	"stsmap/cache/postgres"
	"stsmap/cache/redis"
	"stsmap/config"
	"stsmap/policy"
)

const (
	// storePatience is how long a lookup waits for a store on the network. One
	// that takes longer is of no use for answering.
	storePatience = time.Second
	// copyAge is how old a copy may be that nobody has said anything of. It is
	// for changes that got lost; those that did not are heard of at once.
	copyAge = time.Minute
)

// A storeScheme is a kind of store, by what its name begins with.
type storeScheme struct {
	prefix string
	check  func(name string) error           // whether the name is a good one; it does not connect
	setup  func(name string) (string, error) // what an administrator of the server runs
	open   func(ctx context.Context, name string, failed func(op string, err error)) (cache.Shared, error)
}

// remoteStores are the stores that several daemons can use.
func remoteStores() []storeScheme {
	openRedis := func(ctx context.Context, name string, failed func(string, error)) (cache.Shared, error) {
		return redis.Open(ctx, name, redis.Options{OnError: failed})
	}
	openPostgres := func(ctx context.Context, name string, failed func(string, error)) (cache.Shared, error) {
		return postgres.Open(ctx, name, postgres.Options{OnError: failed})
	}
	return []storeScheme{
		{"redis", redis.CheckURL, redis.Setup, openRedis},
		{"rediss", redis.CheckURL, redis.Setup, openRedis},
		{"postgres", postgres.CheckURL, postgres.Setup, openPostgres},
		{"postgresql", postgres.CheckURL, postgres.Setup, openPostgres},
	}
}

// remote returns the kind of store that a name belongs to, or nil for one that
// is on this machine.
func remote(name string) *storeScheme {
	scheme, _, _ := strings.Cut(name, ":")
	scheme, _, _ = strings.Cut(scheme, "+") // redis+sentinel
	for _, s := range remoteStores() {
		if s.prefix == scheme {
			return &s
		}
	}
	return nil
}

// checkStore returns what is wrong with the name of a store, as far as that can
// be told without it.
func checkStore(name string) error {
	r := remote(name)
	if r == nil {
		return checkFile(name)
	}
	if err := r.check(name); err != nil {
		return &failure{code: exitConfig, err: fmt.Errorf("cache.store: %w", err)}
	}
	return nil
}

// checkFile returns an error if cache.store names a file of another program. A
// file that cannot be looked at is not a mistake in the configuration.
func checkFile(name string) error {
	path, isFile := strings.CutPrefix(name, "bolt:")
	if !isFile {
		return nil
	}
	if err := bolt.Inspect(path, fileOptions(path)); errors.Is(err, bolt.ErrForeign) {
		return &failure{code: exitConfig, err: fmt.Errorf("cache.store: %w", err)}
	}
	return nil
}

// fileOptions are those for a store in the file at path. In the default place
// there is no file of another program.
func fileOptions(path string) bolt.Options {
	return bolt.Options{Own: "bolt:"+path == config.Default().Cache.Store}
}

// openStore opens the store that cache.store names, with hot entries kept in
// memory before it.
func (d *daemon) openStore(ctx context.Context, name string, entries int) (cache.Store, error) {
	if r := remote(name); r != nil {
		return d.openRemote(ctx, r, name, entries)
	}
	if path, isFile := strings.CutPrefix(name, "bolt:"); isFile {
		return d.openFile(path, entries)
	}
	return d.onlyMemory(entries), nil
}

// onlyMemory is a store that is lost with the process.
func (d *daemon) onlyMemory(entries int) cache.Store {
	store := cache.NewMemory(entries)
	d.usage = store.Usage
	return store
}

// openRemote makes what uses a store on the network. That need not be there:
// mail goes on without it.
func (d *daemon) openRemote(ctx context.Context, r *storeScheme, name string, entries int) (cache.Store, error) {
	store, err := r.open(ctx, name, d.storeFailed)
	if err != nil {
		return nil, &failure{code: exitConfig, err: fmt.Errorf("cache.store: %w", err)}
	}
	d.guard = cache.NewGuard(store, storePatience)
	d.guard.OnState = d.storeState
	return d.before(d.guard, entries, copyAge), nil
}

// claims are those on domains, if other daemons use the store.
func (d *daemon) claims() cache.Claims {
	if d.guard == nil {
		return nil
	}
	return d.front
}

// before puts memory before a store.
func (d *daemon) before(back cache.Store, entries int, ttl time.Duration) *cache.Front {
	d.front = cache.NewFront(back, entries, ttl)
	d.usage = d.front.Usage
	d.front.OnError = d.storeFailed
	d.front.OnChange = func(domain string) { d.engine.Changed(domain) }
	return d.front
}

// keepStore keeps memory and store together, until ctx ends.
func (d *daemon) keepStore(ctx context.Context) {
	if d.front != nil {
		d.running.Go(func() { d.front.Run(ctx) })
	}
	if d.guard != nil {
		d.running.Go(func() { d.guard.Run(ctx) })
	}
}

// storeFailed is told what no method of a store returns.
func (d *daemon) storeFailed(op string, err error) {
	ev := policy.Event{Kind: policy.StoreFailed, Err: fmt.Errorf("%s: %w", op, err)}
	for o := policy.OpGet; o <= policy.OpDue; o++ {
		if o.String() == op {
			ev.Op = o
		}
	}
	d.monitor.Observe(ev)
	d.metrics.Observe(ev)
}

const (
	// surveyLocal and surveyRemote are how often what is remembered is counted:
	// of a store on the network all of it has to travel for that.
	surveyLocal  = time.Minute
	surveyRemote = 15 * time.Minute
)

func (d *daemon) surveyEvery() time.Duration {
	if d.guard != nil {
		return surveyRemote
	}
	return surveyLocal
}

// storeForgot is told how many policies made room for others.
func (d *daemon) storeForgot(policies int) {
	d.log.Warn("store is full, the policies that were not used for longest were forgotten", "policies", policies)
}

// storeState is told when a store on the network goes away, and when it is back.
func (d *daemon) storeState(what string, err error) {
	if err == nil {
		d.log.Info("store works again", "operation", what)
		return
	}
	d.log.Error("store is away; answers go on from memory, and what is learned is kept until it is back", "operation", what, "error", err.Error())
}

// storeStatus says how the store is.
func (d *daemon) storeStatus() admin.StoreStatus {
	s := admin.StoreStatus{Name: d.storeName, Fallback: d.fallback}
	if bytes, _, ok := d.storeSize(); ok {
		s.Bytes = &bytes
	}
	if d.guard != nil {
		reading, writing := d.guard.Conditions()
		s.Reading, s.Writing = condition(reading), condition(writing)
	}
	if d.front != nil {
		s.Waiting = d.front.Waiting()
	}
	return s
}

func condition(c cache.Condition) admin.Condition {
	if c.Err == nil {
		return admin.Condition{Since: c.Since}
	}
	return admin.Condition{Error: c.Err.Error(), Since: c.Since}
}

// openFile opens the store on this host.
func (d *daemon) openFile(path string, entries int) (cache.Store, error) {
	options := fileOptions(path)
	options.OnEvict = d.storeForgot
	store, err := bolt.Open(path, options)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, &failure{code: exitPermission, err: fmt.Errorf("cache.store: %w", err), hint: "the daemon's user must be able to write there"}
	case errors.Is(err, bolt.ErrLocked):
		return nil, &failure{code: exitFailed, err: fmt.Errorf("cache.store: %w", err)}
	case errors.Is(err, fs.ErrNotExist):
		return nil, &failure{code: exitConfig, err: fmt.Errorf("cache.store: %w", err), hint: "create its directory, for the daemon's user: install -d -m 700 " + filepath.Dir(path)}
	case errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENOTDIR):
		return nil, &failure{code: exitConfig, err: fmt.Errorf("cache.store: %w", err)}
	case err != nil:
		// A disk that fails must not be what mail waits for.
		d.cfg.Cache.Store = "memory:"
		d.log.Error("store cannot be opened; what it holds is not known, and what is learned is lost at the next stop", "error", err.Error())
		d.fallback = err.Error()
		return d.onlyMemory(entries), nil
	}
	if aside, reason := store.SetAside(); aside != "" {
		d.log.Error("store was unreadable and is set aside; starting empty", "kept", aside, "reason", reason)
	}
	if err := store.Uncompacted(); err != nil {
		d.log.Warn("store could not be written anew, its file stays larger than need be", "error", err.Error())
	}
	d.file = store
	return d.before(store, entries, 0), nil
}

// storeSize returns how large the file of the store is, and how much of it is
// unused; false if it has none.
func (d *daemon) storeSize() (bytes, unused int64, ok bool) {
	if d.file == nil {
		return 0, 0, false
	}
	bytes, unused, err := d.file.Size()
	return bytes, unused, err == nil
}

// redacted is the name of a store without its password, fit to be shown.
func redacted(store string) string {
	u, err := url.Parse(store)
	if err != nil {
		scheme, _, _ := strings.Cut(store, ":")
		return scheme + ":…"
	}
	query := u.Query()
	for name := range query {
		if strings.Contains(strings.ToLower(name), "password") {
			query.Set(name, "xxxxx")
			u.RawQuery = query.Encode()
		}
	}
	return u.Redacted()
}
