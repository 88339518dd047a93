package bolt

import (
	"errors"
	"fmt"
	"runtime/debug"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"stsmap/cache"
)

// bbolt reads its file through a memory mapping and trusts what it finds there:
// a page with the wrong contents makes it panic, and one that cannot be read is
// a memory fault, which ends the process unless the goroutine has asked for a
// panic instead. All use of it goes through the functions in this file, which
// turn both into ErrDamaged. bbolt does give back its locks when a transaction
// is rolled back after a panic, but not if that fails, or if the transaction
// could not even begin; then the Store is wedged, and must not use it again.

// view calls f in a reading transaction.
func (s *Store) view(f func(*bbolt.Tx) error) error {
	return s.guarded(false, func(tx *bbolt.Tx) error {
		defer tx.Rollback()
		return f(tx)
	})
}

// update calls f in a writing transaction, and commits if f wrote something and
// returned no error.
func (s *Store) update(f func(*bbolt.Tx) (wrote bool, err error)) error {
	return s.guarded(true, func(tx *bbolt.Tx) error {
		wrote, err := f(tx)
		if err != nil || !wrote {
			return errors.Join(err, tx.Rollback())
		}
		return tx.Commit()
	})
}

// guarded begins a transaction and calls f with it, which ends it.
func (s *Store) guarded(write bool, f func(*bbolt.Tx) error) (err error) {
	if s.wedged.Load() {
		return damaged(s.path, "given up after an earlier failure")
	}
	var tx *bbolt.Tx
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if what := recover(); what != nil {
			err = fmt.Errorf("%w: %w", errApply, damaged(s.path, what))
			s.release(tx)
		}
	}()
	if tx, err = s.db.Begin(write); err != nil {
		return s.explain(err)
	}
	return s.explain(f(tx))
}

// release ends a transaction that panicked.
func (s *Store) release(tx *bbolt.Tx) {
	defer func() {
		if recover() != nil {
			s.wedged.Store(true)
		}
	}()
	if tx == nil {
		s.wedged.Store(true)
		return
	}
	_ = tx.Rollback() // ErrTxClosed if it had been rolled back already
}

// shut closes the database, or, where it cannot be closed, the file.
func (s *Store) shut() (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if what := recover(); what != nil {
			err = errors.Join(damaged(s.path, what), s.file.Close())
		}
	}()
	if s.wedged.Load() {
		return s.file.Close()
	}
	return s.db.Close()
}

func (s *Store) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, berrors.ErrDatabaseNotOpen):
		return cache.ErrClosed
	}
	return fmt.Errorf("%s: %w", s.path, err)
}
