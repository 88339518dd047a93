package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"stsmap/cache"
	"stsmap/cache/bolt"
)

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

// fill writes a store with a policy for each domain. It is done by many at once, as one commit takes what a thousand
// Puts wait with.
func fill(path string, s series) (err error) {
	store, err := bolt.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	const writers = 2048
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
		return fmt.Errorf("filling %s: %w", path, err)
	}
	return nil
}
