package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"stsmap/cache"
)

// conflictPause is how long a call that the server undid for the sake of another
// waits on average, more each time, before it is tried again.
const conflictPause = 2 * time.Millisecond

// do carries out one operation: f, with a context that ends in any case. f is
// called again if the server undid it; all it does is one statement, or can be
// done again.
func (s *Store) do(ctx context.Context, op string, f func(context.Context) error) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	err := s.ready(ctx)
	if err == nil {
		err = f(ctx)
		for i := 1; undone(err) && ctx.Err() == nil; i++ {
			sleep(ctx, rand.N(2*time.Duration(min(i, 50))*conflictPause))
			err = f(ctx)
		}
	}
	return s.explain(ctx, op, err)
}

// usable returns why nothing can be done.
func (s *Store) usable(ctx context.Context) error {
	if s.life.Err() != nil {
		return cache.ErrClosed
	}
	return ctx.Err()
}

// bound returns a context that ends with ctx, when Close loses patience, and,
// if ctx has no deadline, after the Timeout.
func (s *Store) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	cancel := context.CancelFunc(func() {})
	if _, ok := ctx.Deadline(); !ok {
		ctx, cancel = context.WithTimeout(ctx, s.options.Timeout)
	}
	ctx, cut := context.WithCancel(ctx)
	stop := context.AfterFunc(s.killed, cut)
	return ctx, func() {
		stop()
		cut()
		cancel()
	}
}

// undone reports whether the server gave up a transaction that may be tried
// again: a deadlock, or, where an administrator has made a stricter isolation
// the default, a conflict. None is expected with the usual one.
func undone(err error) bool {
	switch sqlState(err) {
	case "40001", "40P01":
		return true
	}
	return false
}

func sqlState(err error) string {
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pe.Code
	}
	return ""
}

// explain makes the error for the caller, and draws what conclusions there are.
func (s *Store) explain(ctx context.Context, op string, err error) error {
	if err == nil || errors.Is(err, cache.ErrNotFound) || errors.Is(err, cache.ErrOutdated) {
		return err
	}
	if s.life.Err() != nil {
		return cache.ErrClosed // whatever the driver calls it
	}
	switch sqlState(err) {
	case "25006":
		// The server has become a standby, and so for all connections; the next
		// ones look for the primary.
		s.pool.Reset()
		err = fmt.Errorf("%w (hint: is it a standby? name all hosts in the URL)", err)
	case "3F000", "42P01":
		s.forget() // somebody removed the tables; the next call creates them
	case "42501":
		err = fmt.Errorf("%w (hint: let an administrator run what stsmap cache setup prints)", err)
	}
	return &failure{op: op, ended: ctx.Err(), err: err}
}

// A failure is what a call returns when the server could not be reached, or
// refused. It never shows how the connection is configured, as the errors of
// the driver do for connections that could not be made.
type failure struct {
	op    string
	ended error // of the context
	err   error
}

func (f *failure) Error() string {
	err := f.err
	if c, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		err = c.Unwrap()
	}
	text := strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\t' }), "; ")
	if f.ended != nil && !errors.Is(f.err, f.ended) {
		text = f.ended.Error() + ": " + text
	}
	return "postgres: " + f.op + ": " + text
}

// Unwrap lets errors.Is find the end of a context also where the driver says
// that the connection was closed.
func (f *failure) Unwrap() []error {
	if f.ended != nil {
		return []error{f.ended, f.err}
	}
	return []error{f.err}
}

// report tells OnError, if there was an error.
func (s *Store) report(op string, err error) {
	if err != nil && s.options.OnError != nil {
		s.options.OnError(op, err)
	}
}
