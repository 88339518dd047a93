package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
)

// bbolt reuses the space of deleted entries, but never makes a file smaller.
// Open does, if that saves enough.
const (
	// minUnused is how much of a file must be unused, in bytes, for Open to
	// write it anew.
	minUnused = 16 << 20
	// unusedPart is the part of the file that must be unused, too: 1/unusedPart.
	unusedPart = 2
	// compactStep is how much is copied in one transaction, in bytes.
	compactStep = 4 << 20
	// compactTime is how long Open may take for it.
	compactTime = 10 * time.Second
	// temporarySuffix is added to the path of the file for a new one.
	temporarySuffix = ".stsmap-new"
)

// errCompactTime is returned by compact if it takes too long.
var errCompactTime = fmt.Errorf("not written anew within %s", compactTime)

// mostlyUnused reports whether most of the file is unused.
func (s *Store) mostlyUnused() bool {
	size, unused, err := s.Size()
	return err == nil && unused >= minUnused && unused >= size/unusedPart
}

// compact copies all entries to a new file, and continues with that. It runs
// before the writer. After an error, such as a full disk or too little time, the
// Store continues with the old file.
//
// The new file is renamed over the old one while both are locked, and Open
// checks that the file it has locked is at the path. So no other process can
// open the old one.
func (s *Store) compact(deadline time.Time) error {
	return s.renew(os.Rename, func(f *os.File) error {
		fresh, err := openFileAt(f.Name())
		if err != nil {
			return err
		}
		return errors.Join(s.copyEntries(fresh.db, deadline), fresh.close(false))
	})
}

// renew creates a new file with the mode and the owner of the open one, calls
// fill to write it and place to give it the path, and continues with it.
func (s *Store) renew(place func(from, to string) error, fill func(*os.File) error) (err error) {
	path := s.path + temporarySuffix
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	// After an error the file is not needed. After Link it has two names.
	defer os.Remove(path)
	if err := errors.Join(fill(f), s.likeOpen(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	fresh, err := openFileAt(path)
	if err != nil {
		return err
	}
	// The mark may have been removed with the file and its directory.
	if _, err = makeMark(s.path); err == nil {
		err = place(path, s.path)
	}
	if err != nil {
		return errors.Join(err, fresh.close(false))
	}
	// If it was that of another process's file, Close may have removed it.
	_, _ = makeMark(s.path)
	// From here on the new file is the store, also if something below fails.
	_ = s.file.Swap(fresh).close(s.isBroken())
	return syncDir(filepath.Dir(s.path))
}

// likeOpen gives a file the mode and the owner of the open one.
func (s *Store) likeOpen(f *os.File) error {
	info, err := s.file.Load().file.Stat()
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if ok && int(stat.Uid) != os.Geteuid() {
		if err := f.Chown(int(stat.Uid), int(stat.Gid)); err != nil {
			return err
		}
	}
	return f.Chmod(info.Mode().Perm())
}

// copyEntries copies all buckets to an empty database, and syncs that.
func (s *Store) copyEntries(to *bbolt.DB, deadline time.Time) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	to.NoSync, to.NoGrowSync = true, true
	if err := to.Update(makeLayout); err != nil {
		return err
	}
	err = s.view(func(from *bbolt.Tx) error {
		for _, name := range []string{bucketEntries, bucketDue} {
			c := from.Bucket([]byte(name)).Cursor()
			for k, v := c.First(); k != nil; {
				err := to.Update(func(tx *bbolt.Tx) (err error) {
					k, v, err = copySome(tx.Bucket([]byte(name)), c, k, v)
					return err
				})
				if err != nil {
					return err
				}
				if time.Now().After(deadline) {
					return errCompactTime
				}
			}
		}
		return nil
	})
	to.NoSync, to.NoGrowSync = false, false
	return errors.Join(err, to.Sync())
}

// copySome copies from the key k and value v on, about compactStep bytes, and
// returns where it has stopped.
func copySome(to *bbolt.Bucket, c *bbolt.Cursor, k, v []byte) (nextK, nextV []byte, err error) {
	to.FillPercent = 1 // the keys come in order
	for n := 0; k != nil && n < compactStep; k, v = c.Next() {
		if err := to.Put(k, v); err != nil {
			return nil, nil, err
		}
		n += len(k) + len(v)
	}
	return k, v, nil
}
