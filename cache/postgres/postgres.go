// Package postgres is a cache.Shared in a PostgreSQL database: one store for
// the daemons of a site, with leases, claims, and notifications of changes. It
// needs PostgreSQL 13 or later.
//
// It keeps nothing in memory, and repeats no operation that failed because the
// server is unreachable: that is for the caller and its cache.Breaker. It does
// not create databases or roles, does not replicate (the server does; see
// [CheckURL] for several hosts), and does not make a commit safer than the
// server's synchronous_commit does. It checks the server's certificate as sslmode
// says, and without sslmode a connection may end up without TLS.
//
// Trust: an attacker with write access to the tables, or between daemon and
// server, can switch MTA-STS off for any domain at all daemons. The role should
// be the daemons' own, and sslmode verify-full unless the server is on the same
// host. Loss: losing the database costs the protection of the next message to
// each domain (RFC 8461, Section 10.2). The daemons fill an empty database again;
// while it is unreachable they do not share what they fetch.
package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"stsmap/cache"
)

const (
	defaultTimeout = 5 * time.Second
	// closeWait is how long Close waits for calls under way before it ends
	// them.
	closeWait = 5 * time.Second
)

// Options are settings that are not in a URL. The zero value is valid.
type Options struct {
	// Timeout is of each call whose context has no deadline; 0 means 5 s.
	Timeout time.Duration

	// OnError, if not nil, is called with failures that no method returns: op is
	// "watch", once for each time that the connection is lost, "sweep", or "due"
	// if some entries were taken before. It may be called concurrently.
	OnError func(op string, err error)
}

// A Store is a [cache.Shared] in a database. Create it with [Open].
//
// Put and Delete return after the server has committed. Touch is committed
// without waiting for the disk. Due removes entries whose Expires and Refresh
// both passed more than an hour ago, by the clocks of the server and the caller.
type Store struct {
	pool     *pgxpool.Pool
	place    place
	options  Options
	owner    string          // of this Store's claims
	gate     chan struct{}   // holds one token, of the call that checks the schema
	life     context.Context // until Close
	close    context.CancelFunc
	killed   context.Context // ends calls under way
	kill     context.CancelFunc
	closing  sync.Once
	patience time.Duration // of Close

	mu      sync.Mutex
	checked time.Time // when the schema last had the right version; zero: never
	swept   time.Time // when the last sweep began; zero: never
}

var _ cache.Shared = (*Store)(nil)

// Open returns the store of a URL; see [CheckURL] for its form. It fails only if
// the URL is wrong, or a file in it cannot be read: it does not connect. The first
// call creates the tables; see [Setup].
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	config, place, err := parse(url)
	if err != nil {
		return nil, err
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	s := &Store{
		place:    place,
		options:  o,
		owner:    rand.Text(),
		gate:     make(chan struct{}, 1),
		patience: closeWait,
	}
	s.life, s.close = context.WithCancel(context.Background())
	s.killed, s.kill = context.WithCancel(context.Background())
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		s.close()
		s.kill()
		return nil, fmt.Errorf("postgres: %w", err)
	}
	return s, nil
}

// String returns the server, database and schema, without a password.
func (s *Store) String() string {
	c := s.pool.Config().ConnConfig
	return fmt.Sprintf("postgres: %s, database %s, schema %s", c.Host, c.Database, s.place.schema)
}

// Close implements [cache.Store]. It waits for calls under way, and ends them
// after five seconds. If the server does not answer, the driver takes up to a
// quarter of a minute more to close its connections.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.close()
		timer := time.AfterFunc(s.patience, s.kill)
		s.pool.Close()
		timer.Stop()
		s.kill()
	})
	return nil
}

// Ping returns nil if the store can be used: the server answers, takes writes,
// has the tables (Ping creates them if they are missing) and grants the rights on
// them. It is for diagnosis by people.
func (s *Store) Ping(ctx context.Context) error {
	return s.do(ctx, "ping", func(ctx context.Context) error {
		var readOnly bool
		var missing []string
		err := s.pool.QueryRow(ctx, s.in(sqlRights)).Scan(&readOnly, &missing)
		if err != nil {
			return err
		}
		if readOnly {
			s.pool.Reset()
			return errors.New("the server is read-only (hint: is it a standby? name all hosts in the URL)")
		}
		if len(missing) > 0 {
			return fmt.Errorf("role %s lacks rights: %s (hint: let an administrator run what stsmap cache setup prints)",
				s.pool.Config().ConnConfig.User, strings.Join(missing, ", "))
		}
		return nil
	})
}

const sqlRights = `
SELECT current_setting('transaction_read_only')::boolean, ARRAY(
	SELECT r || ' on stsmap.' || t
	FROM unnest(ARRAY['entries', 'claims']) t, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) r
	WHERE NOT has_table_privilege('stsmap.' || t, r)
	ORDER BY t, r)`

// Get implements [cache.Store].
func (s *Store) Get(ctx context.Context, domain string) (cache.Entry, error) {
	var e cache.Entry
	err := s.do(ctx, "get", func(ctx context.Context) error {
		r, err := s.load(ctx, domain)
		if errors.Is(err, pgx.ErrNoRows) {
			return cache.ErrNotFound
		}
		if err != nil {
			return err
		}
		var ok bool
		if e, ok = r.decode(); !ok {
			return cache.ErrNotFound
		}
		return nil
	})
	return e, err
}

const sqlGet = `
SELECT domain, policy, fetched, expires, refresh, used, entry FROM stsmap.entries WHERE domain = $1`

func (s *Store) load(ctx context.Context, domain string) (row, error) {
	rows, err := s.pool.Query(ctx, s.in(sqlGet), escape(domain))
	if err != nil {
		return row{}, err
	}
	return pgx.CollectExactlyOneRow(rows, scanRow)
}

// Put implements [cache.Store]. It ends a claim on the domain, also if it returns
// cache.ErrOutdated.
func (s *Store) Put(ctx context.Context, e cache.Entry) error {
	return s.Replace(ctx, e, time.Time{})
}

// Replace implements [cache.Store]. It ends a claim as Put does.
func (s *Store) Replace(ctx context.Context, e cache.Entry, wrong time.Time) error {
	r, err := encode(e)
	if err != nil {
		return err
	}
	return s.do(ctx, "put", func(ctx context.Context) error {
		for {
			tag, err := s.pool.Exec(ctx, s.in(sqlPut), r.domain, r.policy, r.fetched, r.expires, r.refresh, r.used,
				r.entry, e.Checked.UnixMilli(), s.place.channel(), wrong.UnixMilli())
			if err != nil || tag.RowsAffected() > 0 {
				return err
			}
			// Refused, but an unreadable row must not refuse.
			removed, err := s.removeUnreadable(ctx, r.domain, e.Domain)
			if err != nil {
				return err
			}
			if !removed {
				return cache.ErrOutdated
			}
		}
	})
}

// Put and Delete lock the row of entries before that of claims, or they could
// wait for each other. The condition on put makes the server run it first. All
// parts see the row as it was before, wrong too.
const sqlPut = `
WITH wrong AS (
	SELECT FROM stsmap.entries
	WHERE domain = $1::text AND policy AND fetched = $10::bigint AND fetched > $3::bigint AND expires > $8::bigint
), put AS (
	INSERT INTO stsmap.entries AS old (domain, policy, fetched, expires, refresh, used, entry)
	VALUES ($1::text, $2::boolean, $3::bigint, $4::bigint, $5::bigint, $6::bigint, $7::bytea)
	ON CONFLICT (domain) DO UPDATE SET policy = excluded.policy, fetched = excluded.fetched,
		expires = excluded.expires, refresh = excluded.refresh, used = excluded.used, entry = excluded.entry
	WHERE NOT (old.policy AND old.fetched > excluded.fetched AND old.expires > $8::bigint) OR old.fetched = $10::bigint
	RETURNING domain
), freed AS (
	DELETE FROM stsmap.claims WHERE domain = $1::text AND (SELECT count(*) FROM put) >= 0
)
SELECT (SELECT pg_notify($9::text, '` + messageDelete + `' || $1::text) FROM wrong),
	pg_notify($9::text, '` + messagePut + `' || domain) FROM put`

// removeUnreadable removes the row of the domain if it is unreadable. It reports
// whether a Put can be tried again.
func (s *Store) removeUnreadable(ctx context.Context, escaped, domain string) (bool, error) {
	r, err := s.load(ctx, domain)
	if errors.Is(err, pgx.ErrNoRows) {
		return true, nil // deleted meanwhile
	}
	if err != nil {
		return false, err
	}
	if _, ok := r.decode(); ok {
		return false, nil
	}
	return true, s.remove(ctx, r)
}

const sqlRemove = `
DELETE FROM stsmap.entries WHERE domain = $1 AND entry = $2 AND policy = $3 AND fetched = $4 AND expires = $5`

// remove removes an unreadable row, unless it has changed.
func (s *Store) remove(ctx context.Context, r row) error {
	_, err := s.pool.Exec(ctx, s.in(sqlRemove), r.domain, r.entry, r.policy, r.fetched, r.expires)
	return err
}

// Touch implements [cache.Store].
func (s *Store) Touch(ctx context.Context, uses map[string]time.Time) error {
	domains, times := make([]string, 0, len(uses)), make([]int64, 0, len(uses))
	for domain, used := range uses {
		if isStorable(used) { // no entry has any other time
			domains, times = append(domains, escape(domain)), append(times, used.UnixMilli())
		}
	}
	return s.do(ctx, "touch", func(ctx context.Context) error {
		_, err := s.pool.Exec(ctx, s.in(sqlTouch), domains, times)
		return err
	})
}

// The rows are locked in the order of their domains, or two daemons that touch
// the same rows could wait for each other.
const sqlTouch = `
WITH cheap AS MATERIALIZED (
	SELECT set_config('synchronous_commit', 'off', true)
), later AS MATERIALIZED (
	SELECT e.domain, u.used FROM cheap, stsmap.entries e JOIN unnest($1::text[], $2::bigint[]) u (domain, used) USING (domain)
	WHERE e.used < u.used ORDER BY e.domain FOR UPDATE OF e
)
UPDATE stsmap.entries e SET used = later.used FROM later WHERE e.domain = later.domain`

// Delete implements [cache.Store].
func (s *Store) Delete(ctx context.Context, domain string) error {
	return s.do(ctx, "delete", func(ctx context.Context) error {
		_, err := s.pool.Exec(ctx, s.in(sqlDelete), escape(domain), s.place.channel())
		return err
	})
}

// Other daemons are notified of an unknown domain too, since they may still have
// it in memory.
const sqlDelete = `
WITH gone AS (
	DELETE FROM stsmap.entries WHERE domain = $1::text RETURNING domain
), freed AS (
	DELETE FROM stsmap.claims WHERE domain = $1::text AND (SELECT count(*) FROM gone) >= 0
)
SELECT pg_notify($2::text, '` + messageDelete + `' || $1::text)`
