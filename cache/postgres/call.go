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

// conflictPause is the average pause before a call is repeated that the server
// aborted because of another one. It grows with each repetition.
const conflictPause = 2 * time.Millisecond

// do runs f as one operation, with a context that ends in any case. It calls f
// again if the server aborted it: f is one statement, or can be repeated.
func (s *Store) do(ctx context.Context, op string, f func(context.Context) error) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	err := s.ready(ctx)
	if err == nil {
		err = f(ctx)
		for i := 1; isConflict(err) && ctx.Err() == nil; i++ {
			sleep(ctx, rand.N(2*time.Duration(min(i, 50))*conflictPause))
			err = f(ctx)
		}
	}
	return s.explain(ctx, op, err)
}

// usable returns why no operation can begin, or nil.
func (s *Store) usable(ctx context.Context) error {
	if s.life.Err() != nil {
		return cache.ErrClosed
	}
	return ctx.Err()
}

// bound returns a context that ends with ctx, when Close stops to wait, and, if
// ctx has no deadline, after the Timeout.
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

// isConflict reports whether the server aborted a transaction that can be
// repeated: a deadlock, or, where an administrator made a stricter isolation the
// default, a serialization failure. With the usual isolation there are none.
func isConflict(err error) bool {
	state := sqlState(err)
	return state == "40001" || state == "40P01"
}

func sqlState(err error) string {
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pe.Code
	}
	return ""
}

// explain returns the error for the caller. If err says that connections or
// tables are of no use any more, it has the next call make new ones.
func (s *Store) explain(ctx context.Context, op string, err error) error {
	if err == nil || errors.Is(err, cache.ErrNotFound) || errors.Is(err, cache.ErrOutdated) {
		return err
	}
	if s.life.Err() != nil {
		return cache.ErrClosed // whatever the driver calls it
	}
	switch sqlState(err) {
	case "25006":
		// The server became a standby. New connections find the primary.
		s.pool.Reset()
		err = fmt.Errorf("%w (hint: is it a standby? name all hosts in the URL)", err)
	case "3F000", "42P01":
		s.invalidate() // the tables were removed; the next call creates them
	case "42501":
		err = fmt.Errorf("%w (hint: let an administrator run what stsmap cache setup prints)", err)
	}
	return &failure{op: op, ended: ctx.Err(), err: err}
}

// A failure is the error of an operation. Its text is one line, and does not have
// the configuration of the connection, which that of the driver has.
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

// Unwrap lets errors.Is find the end of the context also where the driver says
// that the connection was closed.
func (f *failure) Unwrap() []error {
	if f.ended != nil {
		return []error{f.ended, f.err}
	}
	return []error{f.err}
}

// report calls OnError if there is an error.
func (s *Store) report(op string, err error) {
	if err != nil && s.options.OnError != nil {
		s.options.OnError(op, err)
	}
}
