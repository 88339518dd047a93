package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"stsmap/cache"
	"stsmap/cache/bolt"
	"stsmap/cache/postgres"
	"stsmap/cache/redis"
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
	case "postgres":
		return postgres.Open(context.Background(), name, postgres.Options{})
	default:
		return nil, fmt.Errorf("no store %q", name)
	}
}

// entry is what a daemon remembers of a domain of the series after it was just asked for.
func (s series) entry(i int, now time.Time) cache.Entry {
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

// fill puts a policy for each domain into a store.
func (b *bench) fill(name string, s series) error {
	store, err := openStore(name, s.N)
	if err != nil {
		return err
	}
	return errors.Join(putAll(store, s, 2048), store.Close())
}

// putAll puts a policy for each domain, many at once: one commit of a file takes what a thousand Puts wait with.
func putAll(store cache.Store, s series, writers int) error {
	var taken atomic.Int64
	var all sync.WaitGroup
	errs := make([]error, writers)
	now := time.Now()
	for w := range writers {
		all.Go(func() {
			for {
				i := int(taken.Add(1)) - 1
				if i >= s.N || errs[w] != nil {
					return
				}
				errs[w] = store.Put(context.Background(), s.entry(i, now))
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("putting %d policies: %w", s.N, err)
	}
	return nil
}
