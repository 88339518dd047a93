package bolt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"stsmap/cache"
)

// batchMax bounds how many operations one commit makes durable, and with that
// how long the first of them waits for the others.
const batchMax = 1024

// A job is an operation on its way through the writer. apply is called within a
// transaction, and once more in another if the first one came to nothing; it
// reports whether it wrote. Its error is the caller's own; if it is to undo the
// transaction as well, it comes with wrote.
type job struct {
	apply func(*bbolt.Tx) (wrote bool, err error)
	err   error
	done  chan error // has room for one: the caller may have gone
}

// write hands a job to the writer and waits for its commit.
func (s *Store) write(ctx context.Context, apply func(*bbolt.Tx) (bool, error)) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	j := &job{apply: apply, done: make(chan error, 1)}
	select {
	case s.jobs <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.quit:
		return cache.ErrClosed
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run is the writer: the one goroutine that begins writing transactions. While
// it commits, jobs queue up before it, and it takes all of them for the next
// commit. bbolt's own Batch would wait some milliseconds for company, which a
// single Put would pay for.
func (s *Store) run() {
	tick := time.NewTicker(touchEvery)
	defer tick.Stop()
	for {
		select {
		case j := <-s.jobs:
			s.commit(s.collect(j))
		case <-tick.C:
			_ = s.flush() // kept in memory where it failed, and tried again
		case <-s.quit:
			// Whoever was let in at the last moment is answered.
			if jobs := s.collect(); len(jobs) > 0 {
				s.commit(jobs)
			}
			s.ended = s.flush()
			return
		}
	}
}

// collect adds to jobs all that wait now.
func (s *Store) collect(jobs ...*job) []*job {
	for len(jobs) < batchMax {
		select {
		case j := <-s.jobs:
			jobs = append(jobs, j)
		default:
			return jobs
		}
	}
	return jobs
}

// commit carries out the jobs, and the touches that wait, and answers the jobs.
func (s *Store) commit(jobs []*job) {
	touches := s.someTouches()
	err := s.together(jobs, touches)
	if errors.Is(err, errApply) {
		// One of them cannot be done, perhaps for a damaged page. The others
		// must not suffer for it.
		s.written(touches)
		for _, j := range jobs {
			s.answer(s.together([]*job{j}, nil), j)
		}
		return
	}
	s.answer(err, jobs...)
}

func (s *Store) answer(err error, jobs ...*job) {
	for _, j := range jobs {
		if err != nil {
			j.err = err
		}
		j.done <- j.err
	}
}

// errApply marks the error of a transaction that failed before its commit.
var errApply = errors.New("not applied")

// together does all in one transaction. Its error is that of all jobs; each
// one's own is in the job.
func (s *Store) together(jobs []*job, touches map[string]time.Time) error {
	before := s.taken
	err := s.update(func(tx *bbolt.Tx) (bool, error) {
		wrote := false
		for _, j := range jobs {
			var w bool
			if w, j.err = j.apply(tx); w && j.err != nil {
				return false, fmt.Errorf("%w: %w", errApply, j.err)
			}
			wrote = wrote || w
		}
		if !wrote && len(jobs) > 0 {
			touches = nil // they do not deserve a commit of their own yet
			return false, nil
		}
		wrote, err := s.touchAll(tx, touches, wrote)
		if err == nil && s.taken != before {
			err = noteTaken(tx, s.taken)
		}
		return wrote, err
	})
	if err != nil {
		s.taken = before // the transaction came to nothing
		return err
	}
	s.written(touches)
	if s.taken > s.options.Most {
		s.crowd()
	}
	return nil
}

// Close implements [cache.Store]. It returns the error of the last write or of
// closing the file; the lock on the file is given back in any case.
func (s *Store) Close() error {
	var err error
	s.closing.Do(func() {
		close(s.quit)
		s.keeping.Wait()
		s.writer.Wait()
		err = errors.Join(s.ended, s.shut())
	})
	return err
}
