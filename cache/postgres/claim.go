package postgres

import (
	"context"
	"time"
)

// A claim is valid from made to expires. One from the future was made before the
// clock of the server was set back, and is not valid; the second allows for
// processors with slightly different clocks.
const sqlClaim = `
INSERT INTO stsmap.claims AS c (domain, owner, made, expires)
VALUES ($1::text, $2::text, clock_timestamp(), clock_timestamp() + $3::bigint * interval '1 millisecond')
ON CONFLICT (domain) DO UPDATE SET owner = excluded.owner, made = excluded.made, expires = excluded.expires
WHERE clock_timestamp() >= c.expires OR clock_timestamp() < c.made - interval '1 second'`

// Claim implements [cache.Shared].
func (s *Store) Claim(ctx context.Context, domain string, lease time.Duration) (ok bool, err error) {
	ms := max(lease, time.Millisecond).Milliseconds()
	err = s.do(ctx, "claim", func(ctx context.Context) error {
		tag, err := s.pool.Exec(ctx, s.in(sqlClaim), escape(domain), s.owner, ms)
		ok = tag.RowsAffected() > 0
		return err
	})
	return ok && err == nil, err
}

const sqlRelease = `DELETE FROM stsmap.claims WHERE domain = $1 AND owner = $2`

// Release implements [cache.Shared]. Two Stores in one process have claims of
// their own.
func (s *Store) Release(ctx context.Context, domain string) error {
	return s.do(ctx, "release", func(ctx context.Context) error {
		_, err := s.pool.Exec(ctx, s.in(sqlRelease), escape(domain), s.owner)
		return err
	})
}
