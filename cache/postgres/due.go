package postgres

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"stsmap/cache"
)

// sweepEvery is how often Due removes expired entries, and sweepRounds how many
// batches it removes at most.
const (
	sweepEvery  = 10 * time.Second
	sweepRounds = 5
)

// Due implements [cache.Store]. Entries that another daemon is taking or writing
// at the same time are skipped: they are due at the next call too.
func (s *Store) Due(ctx context.Context, now time.Time, lease time.Duration, n int) ([]cache.Entry, error) {
	until := now.Add(max(lease, time.Millisecond)).UnixMilli()
	var taken []cache.Entry
	err := s.do(ctx, "due", func(ctx context.Context) error {
		for len(taken) < n {
			asked := n - len(taken)
			rows, err := s.take(ctx, now.UnixMilli(), until, asked)
			if err != nil {
				return err
			}
			// First all that is taken: if removing fails, it is still.
			var unreadable []row
			for _, r := range rows {
				if e, ok := r.decode(); ok {
					taken = append(taken, e)
				} else {
					unreadable = append(unreadable, r)
				}
			}
			for _, r := range unreadable {
				if err := s.remove(ctx, r); err != nil {
					return err
				}
			}
			if len(rows) < asked {
				break
			}
		}
		if s.sweepDue() {
			s.report("sweep", s.sweep(ctx, now))
		}
		return nil
	})
	if err != nil && len(taken) == 0 {
		return nil, err
	}
	// The leases are committed, and no other daemon gets these entries while they
	// last, whatever failed afterwards.
	if ctx.Err() == nil && !errors.Is(err, cache.ErrClosed) {
		s.report("due", err)
	}
	return taken, nil
}

// FOR UPDATE makes the server run the WITH query separately and once; in a
// subquery of the UPDATE, the LIMIT might be applied more than once.
const sqlDue = `
WITH due AS MATERIALIZED (
	SELECT domain, refresh FROM stsmap.entries WHERE refresh <= $1::bigint
	ORDER BY refresh LIMIT $3::bigint FOR UPDATE SKIP LOCKED
)
UPDATE stsmap.entries e SET refresh = $2::bigint FROM due WHERE e.domain = due.domain
RETURNING e.domain, e.policy, e.fetched, e.expires, due.refresh, e.used, e.entry`

// take leases what is due, and returns it in order, with the old refresh.
func (s *Store) take(ctx context.Context, now, until int64, n int) ([]row, error) {
	rows, err := s.pool.Query(ctx, s.in(sqlDue), now, until, int64(n))
	if err != nil {
		return nil, err
	}
	taken, err := pgx.CollectRows(rows, scanRow)
	slices.SortFunc(taken, func(a, b row) int {
		return cmp.Or(cmp.Compare(*a.refresh, *b.refresh), cmp.Compare(a.domain, b.domain))
	})
	return taken, err
}

// An entry is removed if both the server and the caller find it expired: a clock
// that is wrong must not empty the store. The zero Expires means never.
const sqlSweepEntries = `
WITH clock AS (
	SELECT least($1::bigint, (extract(epoch FROM now()) * 1000)::bigint) - 3600000 AS hour
), over AS MATERIALIZED (
	SELECT domain FROM stsmap.entries
	WHERE expires < (SELECT hour FROM clock) AND expires > -62135596800000
		AND (refresh IS NULL OR refresh < (SELECT hour FROM clock))
	ORDER BY expires LIMIT 500 FOR UPDATE SKIP LOCKED
)
DELETE FROM stsmap.entries e USING over WHERE e.domain = over.domain`

const sqlSweepClaims = `
DELETE FROM stsmap.claims WHERE domain IN (
	SELECT domain FROM stsmap.claims WHERE expires < now() OR made > now() + interval '1 minute'
	ORDER BY domain LIMIT 500 FOR UPDATE SKIP LOCKED)`

// sweep removes expired entries and claims.
func (s *Store) sweep(ctx context.Context, now time.Time) error {
	for range sweepRounds {
		tag, err := s.pool.Exec(ctx, s.in(sqlSweepEntries), now.UnixMilli())
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			break
		}
	}
	_, err := s.pool.Exec(ctx, s.in(sqlSweepClaims))
	return err
}

// sweepDue reports whether it is time for a sweep, and if so begins the next
// interval.
func (s *Store) sweepDue() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if !s.swept.IsZero() && now.Sub(s.swept) < sweepEvery {
		return false
	}
	s.swept = now
	return true
}
