package bolt

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// The mark is an empty file beside the file of a Store, from before bbolt gets
// that until Close. If it is there when a Store is opened, the last use did not
// end with Close, and every page is checked. bbolt recurses on a page that leads
// to itself until its stack overflows, and no recover catches that. So such a
// page ends one process at most, while a start after a clean Close reads only
// the header.
//
// The mark is made and removed only with the file locked: then it is not that of
// another process.
const markSuffix = ".in-use"

// makeMark makes the mark of the file at path, and syncs it to disk. It reports
// whether there was none before.
func makeMark(path string) (made bool, err error) {
	f, err := os.OpenFile(path+markSuffix, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, errors.Join(f.Sync(), f.Close(), syncDir(filepath.Dir(path)))
}

// removeMark removes the mark of the file at path. If that fails, the only harm
// is that the next Open checks all pages. It does not sync for the same reason.
func removeMark(path string) { _ = os.Remove(path + markSuffix) }

// openMarked locks the file at path, checks its header, makes its mark, and opens
// it as a database. It checks all pages before that if the mark was there, or
// cannot be made. After an error the mark stays.
func openMarked(path string) (*openFile, error) {
	f, err := lockFile(path)
	if err != nil {
		return nil, err
	}
	// A file that is refused for its header gets no mark: to remove it again
	// would not be safe once another process has set the file aside.
	if err = f.check(pageMap.checkSize); err == nil {
		if made, markErr := makeMark(path); !made || markErr != nil {
			err = f.check(pageMap.checkPages)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.file.Close())
	}
	return f, f.openDB()
}

// check calls readPages. Its error is an unreadableError for errNoDatabase.
func (f *openFile) check(pages func(pageMap) error) error {
	err := readPages(f.file, pages)
	if errors.Is(err, errNoDatabase) {
		return f.unreadable(err)
	}
	return err
}

// closeFile closes the file. It removes the mark if the path names the file, and
// no operation found damage or failed to commit.
func (s *Store) closeFile(attached bool) error {
	clean := attached && !s.isBroken() && !s.unclean.Load()
	if clean {
		removeMark(s.path) // bbolt releases the lock, and writes nothing
	}
	err := s.file.Load().close(s.isBroken())
	if clean && (err != nil || s.unclean.Load()) { // a reader was still there
		_, markErr := makeMark(s.path)
		err = errors.Join(err, markErr)
	}
	return err
}

// lockFile opens the file at path, or creates it, and locks it. Its error is
// ErrLocked if another process has it locked for lockTimeout.
func lockFile(path string) (*openFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, pathError(path, err)
	}
	start := time.Now()
	for err = flock(f); errors.Is(err, syscall.EWOULDBLOCK) && time.Since(start) < lockTimeout; err = flock(f) {
		time.Sleep(lockRetry)
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errors.Join(locked(path), f.Close())
	}
	info, statErr := f.Stat()
	if err := errors.Join(err, statErr); err != nil {
		return nil, errors.Join(pathError(path, err), f.Close())
	}
	if now, err := os.Stat(path); err != nil || !os.SameFile(now, info) {
		// Another process has put a new file there, and closed this one.
		return nil, errors.Join(pathError(path, ErrLocked), err, f.Close())
	}
	return &openFile{file: f, info: info}, nil
}

func flock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
