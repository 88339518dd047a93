package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
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
	// remotePatience and filePatience are how long a lookup waits for a store on
	// the network, and for a file: one that takes longer is of no use for
	// answering.
	remotePatience = time.Second
	filePatience   = 2 * time.Second
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

// checkStore returns what is wrong with the name of a store, as far as that is
// possible without opening it.
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

// A store is what cache.store names.
type store struct {
	name    string                     // fit to be shown
	breaker *cache.Breaker             // nil: memory is all there is
	shared  bool                       // other daemons use it, too
	file    atomic.Pointer[bolt.Store] // once it is open, and if it is a file
}

// openStore opens the store that cache.store names. One that cannot be opened is
// no reason not to serve: answers go on from memory, and it is tried again.
func (d *daemon) openStore(name string) *store {
	s := &store{name: redacted(name)}
	var open func(context.Context) (cache.Store, error)
	patience := remotePatience
	if r := remote(name); r != nil {
		s.shared = true
		open = func(ctx context.Context) (cache.Store, error) { return r.open(ctx, name, d.storeFailed) }
	} else if path, isFile := strings.CutPrefix(name, "bolt:"); isFile {
		patience, open = filePatience, d.openFile(s, path)
	} else {
		return s
	}
	s.breaker = cache.NewBreaker(open, patience)
	s.breaker.Shared, s.breaker.OnState = s.shared, d.storeState
	return s
}

// openFile returns what opens the store on this host. It is opened at once, for
// the first lookups to be answered from it, and again if that fails.
func (d *daemon) openFile(s *store, path string) func(context.Context) (cache.Store, error) {
	open := func() (cache.Store, error) {
		if os.Geteuid() == 0 {
			if err := checkOwner(path, 0); err != nil {
				return nil, err
			}
		}
		options := fileOptions(path)
		options.OnEvict, options.OnState = d.storeForgot, d.fileState
		file, err := bolt.Open(path, options)
		if err != nil {
			return nil, fmt.Errorf("%w%s", err, fileHint(err, path))
		}
		if aside, reason := file.SetAside(); aside != "" {
			d.log.Error("store was unreadable and is set aside; starting empty", "kept", aside, "reason", reason)
		}
		if err := file.Uncompacted(); err != nil {
			d.log.Warn("store could not be written anew, its file stays larger than need be", "error", err.Error())
		}
		s.file.Store(file)
		return file, nil
	}
	first, firstErr := open()
	var tried bool // open is called by one goroutine at a time
	return func(context.Context) (cache.Store, error) {
		if !tried {
			tried = true
			return first, firstErr
		}
		return open()
	}
}

// fileState is called when the path of the store's file names something else than
// the open file, and when it names that again.
func (d *daemon) fileState(state bolt.State, err error) {
	switch state {
	case bolt.Attached:
		d.log.Info("store file is in its place again")
	case bolt.Restored:
		d.log.Warn("store file was missing and is written anew, with all that is cached")
	case bolt.Missing:
		d.log.Error("store file is missing and cannot be written anew", "error", err.Error())
	case bolt.Replaced:
		d.log.Error("store file was replaced by another file, which is left alone; answers go on from memory", "error", err.Error())
	}
}

// fileHint says what to do about a file that cannot be opened.
func fileHint(err error, path string) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "; the daemon's user must be able to write there"
	case errors.Is(err, fs.ErrNotExist):
		return "; create its directory, for the daemon's user: install -d -m 700 " + filepath.Dir(path)
	}
	return ""
}

// engineStore returns the store for the engine, and again if it is shared; nil
// for none.
func (s *store) engineStore() (cache.Store, cache.Shared) {
	switch {
	case s.breaker == nil:
		return nil, nil
	case s.shared:
		return s.breaker, s.breaker
	}
	return s.breaker, nil
}

// run looks after the store until ctx ends.
func (s *store) run(ctx context.Context) {
	if s.breaker != nil {
		s.breaker.Run(ctx)
	}
}

// close closes the store, after the engine.
func (s *store) close() error {
	if s.breaker == nil {
		return nil
	}
	return s.breaker.Close()
}

// storeFailed is called for what no method of a store returns.
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
	// surveyLocal and surveyRemote are how often cached policies are counted: of a
	// store on the network all of them have to travel for that.
	surveyLocal  = time.Minute
	surveyRemote = 15 * time.Minute
)

func (s *store) surveyEvery() time.Duration {
	if s.shared {
		return surveyRemote
	}
	return surveyLocal
}

// storeForgot is called when policies were evicted from the store.
func (d *daemon) storeForgot(policies int) {
	d.log.Warn("store is full, the policies that were not used for longest were forgotten", "policies", policies)
}

// storeState is called when the store becomes unreachable, and when it works
// again.
func (d *daemon) storeState(what string, err error) {
	if err == nil {
		d.log.Info("store works again", "operation", what)
		return
	}
	d.log.Error("store is away; answers go on from memory, and what is learned is kept until it is back", "operation", what, "error", err.Error())
}

// status says how the store is; unsaved is how many policies it has yet to take.
func (s *store) status(unsaved int) admin.StoreStatus {
	status := admin.StoreStatus{Name: s.name, Waiting: unsaved}
	if bytes, _, ok := s.size(); ok {
		status.Bytes = &bytes
	}
	if s.breaker != nil {
		reading, writing := s.breaker.Conditions()
		status.Reading, status.Writing = condition(reading), condition(writing)
	}
	return status
}

func condition(c cache.Condition) admin.Condition {
	if c.Err == nil {
		return admin.Condition{Since: c.Since}
	}
	return admin.Condition{Error: c.Err.Error(), Since: c.Since}
}

// size returns how large the file of the store is, and how much of it is unused;
// false if it has none, or none that is open.
func (s *store) size() (bytes, unused int64, ok bool) {
	file := s.file.Load()
	if file == nil {
		return 0, 0, false
	}
	bytes, unused, err := file.Size()
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
