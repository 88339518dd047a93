package postgres

import (
	"context"
	"iter"

	"github.com/jackc/pgx/v5"

	"stsmap/cache"
)

// walkStep is how many entries All reads in one statement.
const walkStep = 256

const sqlAll = `
SELECT domain, policy, fetched, expires, refresh, used, entry FROM stsmap.entries
WHERE domain > $1::text ORDER BY domain LIMIT $2::bigint`

// All implements [cache.Store]. It is not one statement for all entries: that
// would hold its connection for as long as the body of the loop takes.
func (s *Store) All(ctx context.Context) iter.Seq2[cache.Entry, error] {
	return func(yield func(cache.Entry, error) bool) {
		for last, more := "", true; more; {
			var rows []row
			err := s.do(ctx, "all", func(ctx context.Context) error {
				r, err := s.pool.Query(ctx, s.in(sqlAll), last, int64(walkStep))
				if err != nil {
					return err
				}
				rows, err = pgx.CollectRows(r, scanRow)
				return err
			})
			if err != nil {
				yield(cache.Entry{}, err)
				return
			}
			for _, r := range rows {
				last = r.domain
				e, ok := r.decode()
				if !ok {
					continue
				}
				if err := ctx.Err(); err != nil {
					yield(cache.Entry{}, err)
					return
				}
				if !yield(e, nil) {
					return
				}
			}
			more = len(rows) == walkStep
		}
	}
}
