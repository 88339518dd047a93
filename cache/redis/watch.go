package redis

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// listenFor is how long one question for changes waits for some. It is also
	// how a connection is found dead that does not say so.
	listenFor = 2 * time.Second
	// answerLimit is how much longer its answer may take.
	answerLimit = 3 * time.Second
	// retryEvery is how soon a lost server is tried again.
	retryEvery = time.Second
	// manyChanges is how many are read at once.
	manyChanges = 1000
)

// Watch implements [cache.Shared]. It reads the stream of changes, from where it
// was before: nothing is missed between two questions, as it would be between
// two subscriptions. After a failure it begins anew with "", for the server may
// be another one, which has never heard of some changes.
func (s *Store) Watch(ctx context.Context, changed func(domain string, deleted bool)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	for lost := false; ctx.Err() == nil; {
		err := s.follow(ctx, changed, func() { lost = false })
		if ctx.Err() != nil {
			return
		}
		if !lost && s.options.OnError != nil {
			s.options.OnError("watch", err)
		}
		lost = true
		select {
		case <-time.After(retryEvery):
		case <-ctx.Done():
		}
	}
}

// follow tells of changes until the server is lost; found is called when it
// answers.
func (s *Store) follow(ctx context.Context, changed func(string, bool), found func()) error {
	last, err := s.lastChange(ctx)
	if err != nil {
		return err
	}
	found()
	changed("", false)
	for {
		once, cancel := context.WithTimeout(ctx, listenFor+answerLimit)
		streams, err := s.watch.XRead(once, &redis.XReadArgs{
			Streams: []string{s.keys.feed(), last}, Count: manyChanges, Block: listenFor,
		}).Result()
		cancel()
		if errors.Is(err, redis.Nil) {
			continue // nothing has changed
		}
		if err != nil {
			return err
		}
		for _, stream := range streams {
			for _, m := range stream.Messages {
				last = m.ID
				if domain, ok := m.Values["d"].(string); ok && domain != "" {
					_, deleted := m.Values["x"]
					changed(domain, deleted)
				}
			}
		}
	}
}

// lastChange returns the identifier of the last change.
func (s *Store) lastChange(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	messages, err := s.watch.XRevRangeN(ctx, s.keys.feed(), "+", "-", 1).Result()
	if err != nil || len(messages) == 0 {
		return "0-0", err
	}
	return messages[0].ID, nil
}
