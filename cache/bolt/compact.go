package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"go.etcd.io/bbolt"
)

// bbolt never gives back what deleted entries took; it uses it for others. A
// file that was large once stays so, which Open mends where it is worth it.
const (
	// leastWaste is how much of a file must be unused, in bytes, for Open to
	// write it anew.
	leastWaste = 16 << 20
	// wastePart is which part of the file that must be at least, too.
	wastePart = 2
	// compactStep is how much is copied in one transaction, in bytes.
	compactStep = 4 << 20
	// compactSuffix is added to the path of the file for the new one.
	compactSuffix = ".compact"
)

// Size returns how large the file is, and how many bytes of it are free for
// entries to come.
func (s *Store) Size() (size, unused int64, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		stats := tx.DB().Stats()
		size = tx.Size()
		unused = int64(stats.FreePageN+stats.PendingPageN) * int64(tx.DB().Info().PageSize)
		return nil
	})
	return size, unused, err
}

// wasteful reports whether most of the file is unused.
func (s *Store) wasteful(least int64) bool {
	size, unused, err := s.Size()
	return err == nil && unused >= least && unused >= size/wastePart
}

// compact writes the file anew, without what is unused, and goes on with that.
// It runs before the writer. On an error, such as that of a full disk, the Store
// goes on with what it had.
//
// The new file is renamed over the old one while both are locked, and open looks
// whether what it has locked is what is there: so no other process can end up
// with the old one.
func (s *Store) compact() (err error) {
	path := s.path + compactSuffix
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	fresh := &Store{path: path}
	if err := fresh.openDB(); err != nil {
		return err
	}
	if err := s.copyTo(fresh); err != nil {
		return errors.Join(err, fresh.shut(), os.Remove(path))
	}
	if err := os.Rename(path, s.path); err != nil {
		return errors.Join(err, fresh.shut(), os.Remove(path))
	}
	// From here on the new file is the store, whatever happens.
	old := s.db
	s.db, s.file, s.opened = fresh.db, fresh.file, fresh.opened
	return errors.Join(syncDir(filepath.Dir(s.path)), old.Close())
}

// copyTo copies all that is in s, and syncs it.
func (s *Store) copyTo(fresh *Store) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if what := recover(); what != nil {
			err = damaged(s.path, what)
		}
	}()
	if err := bbolt.Compact(fresh.db, s.db, compactStep); err != nil {
		return fmt.Errorf("%s: %w", fresh.path, err)
	}
	return fresh.db.Sync()
}
