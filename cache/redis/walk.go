package redis

import (
	"context"
	"iter"

	"github.com/redis/go-redis/v9"

	"stsmap/cache"
)

// walkStep is how many entries All reads at once.
const walkStep = 256

// All implements [cache.Store]. It reads the sorted set of domains in its order:
// SCAN would return some entries twice.
func (s *Store) All(ctx context.Context) iter.Seq2[cache.Entry, error] {
	return func(yield func(cache.Entry, error) bool) {
		for from := "-"; from != ""; {
			var batch []cache.Entry
			err := s.do(ctx, func(ctx context.Context) (err error) {
				batch, from, err = s.page(ctx, from)
				return err
			})
			if err != nil {
				yield(cache.Entry{}, err)
				return
			}
			for _, e := range batch {
				if err := ctx.Err(); err != nil {
					yield(cache.Entry{}, err)
					return
				}
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// page reads the next entries, and returns where the next page begins; empty at
// the end.
func (s *Store) page(ctx context.Context, from string) (batch []cache.Entry, next string, err error) {
	domains, err := s.client.ZRangeArgs(ctx, redis.ZRangeArgs{
		Key: s.keys.domains(), Start: from, Stop: "+", ByLex: true, Count: walkStep,
	}).Result()
	if err != nil || len(domains) == 0 {
		return nil, "", err
	}
	fields := make([]*redis.SliceCmd, len(domains))
	_, err = s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, domain := range domains {
			fields[i] = p.HMGet(ctx, s.keys.entry(domain), readFields()...)
		}
		return nil
	})
	if err != nil && !wrongType(err) {
		return nil, "", err
	}
	for i, domain := range domains {
		if e, ok := decode(domain, fields[i].Val()); ok {
			batch = append(batch, e)
		}
	}
	if len(domains) < walkStep {
		return batch, "", nil
	}
	return batch, "(" + domains[len(domains)-1], nil
}
