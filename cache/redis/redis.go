// Package redis is a cache.Shared in Redis, from 6.2 on, or Valkey: one store
// for the daemons of a site, on a single server, behind Sentinel, or in a
// Cluster. It needs no module.
//
// It keeps nothing in memory, and repeats no operation that failed because the
// server is unreachable: that is for the caller and its cache.Breaker. It does
// not make a write safer than the server's appendonly and appendfsync do, and
// does not wait for replicas. All keys of a prefix are in one slot, so a Cluster
// gives it failover, and not more room.
//
// Trust: an attacker with write access to the keys, or between daemon and server,
// can switch MTA-STS off for any domain at all daemons. The server should require
// a password of the daemons' own, and TLS unless it is on the same host. Loss:
// losing the data costs the protection of the next message to each domain (RFC
// 8461, Section 10.2). A server without appendonly loses data in a crash, and one
// with a maxmemory-policy other than noeviction when it is full. The daemons fill
// an empty store again; while it is unreachable they do not share what they fetch.
package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"stsmap/cache"
)

const (
	// defaultTimeout is that of a call whose context has no deadline.
	defaultTimeout = 5 * time.Second
	// afterwards is how long an entry is kept after its Expires and its Refresh.
	afterwards = time.Hour
	// touchStep is how many entries one script touches. Other clients of the
	// server wait meanwhile.
	touchStep = 1000
)

// Options are settings that are not in a URL. The zero value is valid.
type Options struct {
	// Timeout is of each call whose context has no deadline; 0 means 5 s.
	Timeout time.Duration
	// OnError, if not nil, is called with failures that no method returns: op is
	// "watch", once for each time that the connection is lost, or "sweep", every
	// ten seconds at most. It may be called concurrently.
	OnError func(op string, err error)
}

// A Store is a [cache.Shared] in Redis. Create it with [Open].
//
// An entry is a hash with its encoding, and with the fields that the server
// compares or changes. Beside the entries there are a sorted set of their domains,
// one of their domains by Refresh, and the claims. Operations that take effect in
// one step are scripts, which also publish each change.
//
// The server expires an entry an hour after its Expires and its Refresh. Due
// removes its rows in the sets, a few pages of them every ten seconds.
type Store struct {
	client  redis.UniversalClient
	keys    keys
	db      int
	options Options
	owner   string // of this Store's claims

	put, touch, remove, due, release *redis.Script

	life    context.Context // until Close
	end     context.CancelFunc
	closing sync.Once
}

// Open returns the store of a URL; see [CheckURL] for its form. It fails only if
// the URL is wrong, or a file in it cannot be read: it does not connect.
func Open(_ context.Context, url string, o Options) (*Store, error) {
	u, err := parse(url)
	if err != nil {
		return nil, err
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	// The driver writes warnings to standard error.
	redis.SetLogger(quiet{})
	s := &Store{
		client: u.client(), keys: keys{"{" + u.prefix + "}:"}, db: u.db, options: o, owner: rand.Text(),
		put: redis.NewScript(scriptPut), touch: redis.NewScript(scriptTouch), remove: redis.NewScript(scriptDelete),
		due: redis.NewScript(scriptDue), release: redis.NewScript(scriptRelease),
	}
	s.life, s.end = context.WithCancel(context.Background())
	return s, nil
}

// A quiet discards what the driver logs.
type quiet struct{}

// Printf implements the interface of the driver.
func (quiet) Printf(context.Context, string, ...any) {}

// keys makes the names of keys. All begin with the prefix in braces, which alone
// determines the slot.
type keys struct{ prefix string }

func (k keys) entry(domain string) string { return k.prefix + "e:" + domain }
func (k keys) claim(domain string) string { return k.prefix + "c:" + domain }
func (k keys) domains() string            { return k.prefix + "domains" }
func (k keys) due() string                { return k.prefix + "due" }
func (k keys) swept() string              { return k.prefix + "swept" }
func (k keys) cursor() string             { return k.prefix + "cursor" }

// changes is the channel of changes; channels are not part of a database.
func (k keys) changes(db int) string { return k.prefix + "changes:" + strconv.Itoa(db) }

// Close implements [cache.Store].
func (s *Store) Close() error {
	var err error
	s.closing.Do(func() {
		s.end()
		err = s.client.Close()
	})
	return err
}

// Ping returns nil if the server answers and takes writes. It is for diagnosis by
// people.
func (s *Store) Ping(ctx context.Context) error {
	return s.do(ctx, func(ctx context.Context) error {
		return s.client.Set(ctx, s.keys.prefix+"ping", s.owner, time.Second).Err()
	})
}

// do runs a call with a context that ends with ctx, with Close, and, if ctx has no
// deadline, after the Timeout.
func (s *Store) do(ctx context.Context, call func(context.Context) error) error {
	if s.life.Err() != nil {
		return cache.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.options.Timeout)
		defer cancel()
	}
	once, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	err := call(once)
	switch {
	case err == nil, errors.Is(err, cache.ErrNotFound), errors.Is(err, cache.ErrOutdated):
		return err
	case s.life.Err() != nil:
		return cache.ErrClosed
	case ctx.Err() != nil:
		return fmt.Errorf("redis: %w", ctx.Err())
	}
	return fmt.Errorf("redis: %w", err)
}

// Get implements [cache.Store].
func (s *Store) Get(ctx context.Context, domain string) (e cache.Entry, err error) {
	err = s.do(ctx, func(ctx context.Context) error {
		fields, err := s.client.HMGet(ctx, s.keys.entry(domain), readFields()...).Result()
		if wrongType(err) {
			return cache.ErrNotFound
		}
		if err != nil {
			return err
		}
		var ok bool
		if e, ok = decode(domain, fields); !ok {
			return cache.ErrNotFound
		}
		return nil
	})
	return e, err
}

// Put implements [cache.Store].
func (s *Store) Put(ctx context.Context, e cache.Entry) error {
	return s.Replace(ctx, e, time.Time{})
}

// Replace implements [cache.Store].
func (s *Store) Replace(ctx context.Context, e cache.Entry, wrong time.Time) error {
	value, err := e.AppendBinary(nil)
	if err != nil {
		return err
	}
	fetched := ""
	if e.Policy != "" {
		fetched = strconv.FormatInt(e.Fetched.UnixMilli(), 10)
	}
	expire := latest(e.Expires, e.Refresh).Add(afterwards).UnixMilli()
	return s.do(ctx, func(ctx context.Context) error {
		outdated, err := s.put.Run(ctx, s.client,
			[]string{s.keys.entry(e.Domain), s.keys.domains(), s.keys.due(), s.keys.claim(e.Domain)},
			e.Domain, value, fetched, e.Fetched.UnixMilli(), e.Expires.UnixMilli(), e.Checked.UnixMilli(), e.Refresh.UnixMilli(),
			e.Used.UnixMilli(), expire, time.Time{}.UnixMilli(), s.keys.changes(s.db), wrong.UnixMilli()).Bool()
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		if outdated {
			return cache.ErrOutdated
		}
		return nil
	})
}

// Touch implements [cache.Store].
func (s *Store) Touch(ctx context.Context, uses map[string]time.Time) error {
	return s.do(ctx, func(ctx context.Context) error {
		var entries []string
		var times []any
		for domain, used := range uses {
			entries, times = append(entries, s.keys.entry(domain)), append(times, used.UnixMilli())
		}
		for from := 0; from < len(entries); from += touchStep {
			to := min(from+touchStep, len(entries))
			if err := s.touch.Run(ctx, s.client, entries[from:to], times[from:to]...).Err(); err != nil {
				return err
			}
		}
		return nil
	})
}

// Delete implements [cache.Store].
func (s *Store) Delete(ctx context.Context, domain string) error {
	return s.do(ctx, func(ctx context.Context) error {
		return s.remove.Run(ctx, s.client,
			[]string{s.keys.entry(domain), s.keys.domains(), s.keys.due(), s.keys.claim(domain)}, domain, s.keys.changes(s.db)).Err()
	})
}

// Due implements [cache.Store].
func (s *Store) Due(ctx context.Context, now time.Time, lease time.Duration, n int) (taken []cache.Entry, err error) {
	if n <= 0 {
		return nil, s.do(ctx, func(context.Context) error { return nil })
	}
	until := now.Add(max(lease, time.Millisecond))
	err = s.do(ctx, func(ctx context.Context) error {
		answer, err := s.due.Run(ctx, s.client, []string{s.keys.due(), s.keys.domains(), s.keys.swept(), s.keys.cursor()},
			now.UnixMilli(), until.UnixMilli(), n, s.keys.entry(""), afterwards.Milliseconds()).Slice()
		if err != nil {
			return err
		}
		if len(answer) != 2 {
			return errors.New("unexpected answer of a script")
		}
		rows, _ := answer[0].([]any)
		for _, row := range rows {
			fields, ok := row.([]any)
			if !ok || len(fields) == 0 {
				continue
			}
			domain, _ := fields[0].(string)
			if e, ok := decode(domain, fields[1:]); ok {
				taken = append(taken, e)
			}
		}
		if failed, _ := answer[1].(string); failed != "" && s.options.OnError != nil {
			s.options.OnError("sweep", errors.New("redis: "+failed))
		}
		return nil
	})
	return taken, err
}

// Claim implements [cache.Shared].
func (s *Store) Claim(ctx context.Context, domain string, lease time.Duration) (ok bool, err error) {
	err = s.do(ctx, func(ctx context.Context) error {
		ok, err = s.client.SetNX(ctx, s.keys.claim(domain), s.owner, max(lease, time.Millisecond)).Result()
		return err
	})
	return ok, err
}

// Release implements [cache.Shared].
func (s *Store) Release(ctx context.Context, domain string) error {
	return s.do(ctx, func(ctx context.Context) error {
		return s.release.Run(ctx, s.client, []string{s.keys.claim(domain)}, s.owner).Err()
	})
}

// readFields are those of an entry that decode needs.
func readFields() []string { return []string{"v", "r", "u"} }

// decode returns the entry in the fields of a hash: its encoding, with what leases
// and touches changed. It reports false if the fields are not those of an entry.
func decode(domain string, fields []any) (e cache.Entry, ok bool) {
	if len(fields) != len(readFields()) {
		return e, false
	}
	value, ok := fields[0].(string)
	if !ok || e.UnmarshalBinary([]byte(value)) != nil || e.Domain != domain {
		return cache.Entry{}, false
	}
	e.Refresh, ok = timeOf(fields[1])
	if used, known := timeOf(fields[2]); known && used.After(e.Used) {
		e.Used = used
	}
	return e, ok
}

// timeOf returns the time in a field of an entry; false if it has none.
func timeOf(field any) (time.Time, bool) {
	text, _ := field.(string)
	n, err := strconv.ParseInt(text, 10, 64)
	return time.UnixMilli(n).UTC(), err == nil
}

// latest returns the latest of two times and now: an entry that has expired is
// kept for a while, too.
func latest(a, b time.Time) time.Time {
	last := time.Now()
	for _, t := range []time.Time{a, b} {
		if t.After(last) {
			last = t
		}
	}
	return last
}

// wrongType reports whether a key of ours holds another type than ours.
func wrongType(err error) bool {
	return err != nil && redis.HasErrorPrefix(err, "WRONGTYPE")
}
