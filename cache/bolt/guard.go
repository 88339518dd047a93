package bolt

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"stsmap/cache"
)

// bbolt reads its file through a memory mapping and trusts what it finds there:
// a page with the wrong contents makes it panic, and one that cannot be read is
// a memory fault, which ends the process unless the goroutine has asked for a
// panic instead. All use of it goes through the functions in this file, which
// turn both into ErrDamaged. bbolt releases its locks when a transaction is
// rolled back after a panic, but not if the rollback fails, or if Begin
// panicked. Then the Store is broken: no goroutine uses bbolt again, and a
// goroutine that is already waiting for such a lock is abandoned.
//
// bbolt's Batch cannot be used: it commits in a goroutine of its own, where a
// panic ends the process.

// An openFile is a database and its file.
type openFile struct {
	db   *bbolt.DB
	file *os.File    // of db, to release the lock if db cannot
	info os.FileInfo // of file when it was opened
}

// view calls f in a reading transaction.
func (s *Store) view(f func(*bbolt.Tx) error) error {
	for {
		file := s.file.Load()
		err := s.guarded(file, false, func(tx *bbolt.Tx) error {
			defer s.endRead(tx)
			return f(tx)
		})
		// The writer closes a file after it has opened another.
		if !errors.Is(err, cache.ErrClosed) || s.file.Load() == file {
			return err
		}
	}
}

// update calls f in a writing transaction, and commits if f wrote something and
// returned no error. Only the writer calls it.
func (s *Store) update(f func(*bbolt.Tx) (wrote bool, err error)) error {
	return s.guarded(s.file.Load(), true, func(tx *bbolt.Tx) error {
		wrote, err := f(tx)
		if err != nil || !wrote {
			return errors.Join(err, tx.Rollback())
		}
		if err = tx.Commit(); err != nil {
			s.unclean.Store(true)
		}
		return err
	})
}

// guarded begins a transaction and calls f with it, which ends it.
func (s *Store) guarded(file *openFile, write bool, f func(*bbolt.Tx) error) (err error) {
	var tx *bbolt.Tx
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if what := recover(); what != nil {
			err = &applyError{s.damaged(what)}
			if write && tx != nil {
				s.release(tx)
			}
		}
	}()
	if tx, err = s.beginTx(file, write); err != nil {
		return s.explain(err)
	}
	return s.explain(f(tx))
}

// beginTx calls Begin, in one goroutine at a time: after a panic the others see
// that the Store is broken, and do not wait for locks that are never released.
func (s *Store) beginTx(file *openFile, write bool) (*bbolt.Tx, error) {
	s.begin.Lock()
	defer s.begin.Unlock()
	if s.isBroken() {
		return nil, fmt.Errorf("%w: an earlier failure cannot be undone", ErrDamaged)
	}
	began := false
	defer func() {
		if !began {
			s.breakDown()
		}
	}()
	tx, err := file.db.Begin(write)
	began = true
	return tx, err
}

// endRead ends a reading transaction. bbolt needs a lock for it that Begin
// holds, too, and never releases if it panics.
func (s *Store) endRead(tx *bbolt.Tx) {
	if !s.begin.TryLock() {
		// Waiting for Begin here could be a deadlock: Begin waits if the writer
		// enlarges the mapping, which waits for this transaction.
		ended := make(chan struct{})
		go func() {
			_ = tx.Rollback()
			close(ended)
		}()
		select {
		case <-ended:
		case <-s.broken:
		}
		return
	}
	defer s.begin.Unlock()
	if !s.isBroken() {
		_ = tx.Rollback()
	}
}

// release ends a writing transaction that panicked.
func (s *Store) release(tx *bbolt.Tx) {
	defer func() {
		if recover() != nil {
			s.breakDown()
		}
	}()
	_ = tx.Rollback() // ErrTxClosed if it had been rolled back already
}

// breakDown marks the Store broken.
func (s *Store) breakDown() { s.breaking.Do(func() { close(s.broken) }) }

func (s *Store) isBroken() bool {
	select {
	case <-s.broken:
		return true
	default:
		return false
	}
}

// close closes the database. If it is broken, close only releases the lock on
// the file: an abandoned goroutine may still use the rest, and closing the file
// alone does not release the lock, which the mapping keeps.
func (f *openFile) close(broken bool) (err error) {
	if broken {
		return syscall.Flock(int(f.file.Fd()), syscall.LOCK_UN)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if what := recover(); what != nil {
			err = errors.Join(damaged(f.file.Name(), what), f.close(true))
		}
	}()
	return f.db.Close()
}

// explain adds the path to an error of bbolt.
func (s *Store) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, berrors.ErrDatabaseNotOpen):
		return cache.ErrClosed
	case errors.Is(err, berrors.ErrInvalidMapping), errors.Is(err, berrors.ErrIncompatibleValue):
		// The file could not be mapped again when it grew; or a bucket is where
		// there are none.
		return &applyError{s.damaged(err)}
	}
	return fmt.Errorf("%s: %w", s.path, err)
}
