package bolt

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/bbolt"

	"stsmap/cache"
)

// maxBatch limits how many operations share one commit, and so how long the
// first of them waits for the others.
const maxBatch = 1024

// A job is an operation for the writer. op is called within a transaction, and
// again in another if the first one failed; it reports whether it wrote. Its
// error is the caller's; if the transaction must be rolled back for it, it comes
// with wrote. alone, if not nil, is called instead, outside of a transaction.
type job struct {
	op    func(*bbolt.Tx) (wrote bool, err error)
	alone func() error
	err   error
	done  chan error // has room for one: the caller may have left
}

// write hands an operation to the writer and waits for its commit.
func (s *Store) write(ctx context.Context, op func(*bbolt.Tx) (bool, error)) error {
	if err := s.readable(ctx); err != nil {
		return err
	}
	return s.submit(ctx, &job{op: op})
}

// submit hands a job to the writer and waits for its end.
func (s *Store) submit(ctx context.Context, j *job) error {
	j.done = make(chan error, 1)
	select {
	case s.jobs <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.quit:
		return cache.ErrClosed
	case <-s.broken:
		return s.brokenErr()
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.broken:
		return s.brokenErr()
	}
}

// run is the writer: the one goroutine that commits, and that changes which
// file is open. Jobs that arrive meanwhile queue up, and share the next commit.
func (s *Store) run() {
	for {
		select {
		case j := <-s.jobs:
			s.do(s.queued(j))
		case <-s.quit:
			// Jobs that were accepted at the last moment are answered.
			s.do(s.queued())
			s.checkPath()
			return
		}
	}
}

// queued returns jobs and those that are waiting.
func (s *Store) queued(jobs ...*job) []*job {
	for len(jobs) < maxBatch {
		select {
		case j := <-s.jobs:
			jobs = append(jobs, j)
		default:
			return jobs
		}
	}
	return jobs
}

// do carries out jobs and answers them.
func (s *Store) do(jobs []*job) {
	var ops []*job
	for _, j := range jobs {
		if j.alone != nil {
			j.done <- j.alone()
		} else {
			ops = append(ops, j)
		}
	}
	if len(ops) > 0 {
		s.commit(ops)
	}
}

// An applyError is that of a transaction that failed because of an operation in
// it, and not because of the disk.
type applyError struct{ error }

func (e *applyError) Unwrap() error { return e.error }

// commit carries out operations in one transaction. If one of them cannot be
// carried out, perhaps for a damaged page, each gets a transaction of its own.
func (s *Store) commit(jobs []*job) {
	err := s.together(jobs)
	if _, ok := errors.AsType[*applyError](err); ok && len(jobs) > 1 {
		for _, j := range jobs {
			s.commit([]*job{j})
		}
		return
	}
	for _, j := range jobs {
		if err != nil {
			j.err = err
		}
		j.done <- j.err
	}
}

// together returns the error of the transaction; each operation's own is in its
// job.
func (s *Store) together(jobs []*job) error {
	if d := s.detach.Load(); d != nil {
		return d.err // what is written now could be lost
	}
	var size int64
	err := s.update(func(tx *bbolt.Tx) (wrote bool, err error) {
		for _, j := range jobs {
			var w bool
			if w, j.err = j.op(tx); w && j.err != nil {
				return false, &applyError{j.err}
			}
			wrote = wrote || w
		}
		size = tx.Size()
		return wrote, nil
	})
	if err != nil {
		return err
	}
	s.inUse.Store(size - int64(s.file.Load().db.Stats().FreeAlloc))
	if s.inUse.Load() > s.evictAt.Load() {
		s.requestEviction()
	}
	return nil
}

// brokenErr is the error of a Store that is broken.
func (s *Store) brokenErr() error {
	return s.damaged("an earlier failure cannot be undone")
}

// every calls f at each interval until Close.
func (s *Store) every(interval time.Duration, wake <-chan struct{}, f func(context.Context)) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-wake:
		case <-tick.C:
		}
		f(context.Background())
	}
}
