package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// pingEvery is how long a subscription is silent before it is pinged, and how
	// long the answer may take: a dead connection is noticed after twice that.
	pingEvery = 2 * time.Second
	// retryEvery is how soon Watch tries again after a failure.
	retryEvery = time.Second
)

// The messages on the channel of changes: the domain after one of these.
const (
	messagePut    = "+"
	messageDelete = "-"
)

// Watch implements [cache.Shared]. It subscribes to the channel of changes, to
// which the scripts publish.
func (s *Store) Watch(ctx context.Context, changed func(domain string, deleted bool)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	for lost := false; ctx.Err() == nil; {
		err := s.subscribe(ctx, changed, func() { lost = false })
		if ctx.Err() != nil {
			return
		}
		if !lost && s.options.OnError != nil {
			s.options.OnError("watch", fmt.Errorf("redis: %w", err))
		}
		lost = true
		select {
		case <-time.After(retryEvery):
		case <-ctx.Done():
		}
	}
}

// subscribe calls changed until the connection is lost or ctx ends; found is
// called when the server answers.
func (s *Store) subscribe(ctx context.Context, changed func(string, bool), found func()) error {
	messages := s.client.Subscribe(ctx, s.keys.changes(s.db))
	defer messages.Close()
	// The library does not notice that a context ends while it reads.
	defer context.AfterFunc(ctx, func() { _ = messages.Close() })()
	for pinged := false; ; {
		got, err := messages.ReceiveTimeout(ctx, pingEvery)
		if bad, ok := errors.AsType[net.Error](err); ok && bad.Timeout() && !pinged {
			pinged = true
			if err := messages.Ping(ctx); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		pinged = false
		switch m := got.(type) {
		case *redis.Subscription:
			found()
			changed("", false)
		case *redis.Message:
			if len(m.Payload) > 1 {
				changed(m.Payload[1:], m.Payload[:1] == messageDelete)
			}
		}
	}
}
