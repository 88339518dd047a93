package bolt

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	// lockTimeout is how long Open waits for another process.
	lockTimeout = time.Second
	// lockRetry is how often Open tries to lock the file meanwhile.
	lockRetry = 50 * time.Millisecond
)

// Options are for Open and Inspect.
type Options struct {
	// MaxBytes is how many bytes entries may take, with their keys and rows of
	// the index; zero means 4 GiB, which is some millions of entries.
	MaxBytes int64
	// OnEvict, if not nil, is called with the number of unexpired policies that
	// were evicted.
	OnEvict func(policies int)
	// OnState, if not nil, is called once when the State changes; err is nil if
	// the new one is Attached or Restored. Writing waits for OnState, so it must
	// not block, or call a method of the Store.
	OnState func(state State, err error)
	// Own means that only stsmap has a file at the path, as in the daemon's own
	// directory: Open takes a file that is no readable database for a damaged
	// store, and sets it aside. It has no effect for a symbolic link, and for
	// another program's database.
	Own bool
}

// An unreadableError is about a file that cannot be used as a store any more.
type unreadableError struct {
	path string
	info os.FileInfo
	err  error
}

func (e *unreadableError) Error() string {
	return e.path + ": not readable as a store: " + e.err.Error()
}

func (e *unreadableError) Unwrap() error { return e.err }

// Open opens the store in the file at path. It creates the file with mode 0600
// if there is none; the directory must exist. An empty file counts as new. Open
// reads only the header if the last use of the file ended with Close.
//
// From before bbolt gets the file until Close succeeds there is a mark beside it,
// "<path>.in-use". If the mark is there already, or cannot be made because the
// directory is read-only, Open checks all pages first, and reads all keys: a
// million entries take about a second. bbolt ends the process, or never returns,
// if pages lead to each other without end. So a file that was damaged while no
// process used it, such as a bad copy from a backup, may end one process; the
// next Open finds the mark, and sets the file aside. An Open that returns
// ErrLocked, or refuses the file for its header, leaves the mark as it is.
//
// If path is a symbolic link, Open uses the file it names at that moment, and
// the directory of that file, also if it creates the file: a store on another
// disk stays there, and the link is not changed.
//
// Open never writes to, renames, or otherwise changes a file that is not a store
// of stsmap: it returns [ErrForeign] with the reason. A store that is damaged,
// cut short, or of a version with another layout is recognized by its buckets,
// or by Options.Own. Open renames it to "<path>.unreadable-<time>" and begins a
// new one (see [Store.SetAside]); it never removes or overwrites a file. If the
// file system fails, Open renames nothing and returns the error, as it does with
// [ErrLocked] after a second of waiting.
func Open(path string, o Options) (*Store, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = 4 << 30
	}
	ours, err := inspect(path, o)
	if err != nil {
		return nil, err
	}
	if path, err = follow(path); err != nil {
		return nil, err
	}
	s, err := open(path, o)
	bad, ok := errors.AsType[*unreadableError](err)
	if !ok {
		return s, err
	}
	if !ours {
		return nil, fmt.Errorf("%w: %w", ErrForeign, err)
	}
	aside, err := setAside(bad)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", bad, err)
	}
	if s, err = open(path, o); err != nil {
		return nil, err
	}
	s.aside, s.reason = aside, bad.Error()
	return s, nil
}

// open opens or creates the file and starts the goroutines of the Store. Its
// error is an unreadableError if the file should be set aside.
func open(path string, o Options) (*Store, error) {
	s := &Store{
		path:    path,
		options: o,
		broken:  make(chan struct{}),
		jobs:    make(chan *job),
		quit:    make(chan struct{}),
		crowded: make(chan struct{}, 1),
	}
	file, err := openMarked(path)
	if err != nil {
		return nil, err
	}
	s.file.Store(file)
	if err := s.prepare(); err != nil {
		return nil, errors.Join(err, s.file.Load().close(s.isBroken()))
	}
	s.running.Go(s.run)
	s.running.Go(func() { s.every(evictEvery, s.crowded, s.evict) })
	s.running.Go(func() { s.every(watchEvery, nil, s.watch) })
	return s, nil
}

// prepare does what has to be done before the writer runs.
func (s *Store) prepare() error {
	fresh := s.file.Load().info.Size() == 0
	if err := s.checkLayout(); err != nil {
		return err
	}
	if s.mostlyUnused() {
		s.uncompacted = s.compact(time.Now().Add(compactTime))
	}
	if fresh {
		// A file is not safe before its name is.
		if err := syncDir(filepath.Dir(s.path)); err != nil {
			return err
		}
	}
	size, unused, err := s.Size()
	s.inUse.Store(size - unused)
	s.requestEviction()
	return err
}

// openFileAt opens and locks a database that bbolt has just written, or an empty
// file. There is no mark, and pages are not checked.
func openFileAt(path string) (*openFile, error) {
	f, err := lockFile(path)
	if err != nil {
		return nil, err
	}
	return f, f.openDB()
}

// openDB opens a locked file as a database. After an error the file is closed.
func (f *openFile) openDB() (err error) {
	path := f.file.Name()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if what := recover(); what != nil {
			// bbolt does not release the lock then.
			err = errors.Join(f.unreadable(fmt.Errorf("%v", what)), f.close(true))
		}
	}()
	f.db, err = bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:      lockTimeout,
		FreelistType: bbolt.FreelistMapType,
		// NoFreelistSync stays off: it makes a commit cheaper, and opening a
		// scan of the whole file. InitialMmapSize stays zero: readers would
		// never wait for a larger mapping, but the smallest file would be
		// 16 MiB; the mapping doubles, so that few ever wait.
		//
		// bbolt locks the file again, which has no effect.
		OpenFile: func(string, int, os.FileMode) (*os.File, error) { return f.file, nil },
	})
	_, isPath := errors.AsType[*fs.PathError](err)
	_, isErrno := errors.AsType[syscall.Errno](err)
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return locked(path)
	case isPath, isErrno:
		return pathError(path, err)
	case err != nil:
		return f.unreadable(err)
	}
	return nil
}

// locked is the error for a file that another process has locked.
func locked(path string) error {
	return fmt.Errorf("%s: %w (hint: is stsmap running already? fuser %s names the process)", path, ErrLocked, path)
}

func pathError(path string, err error) error { return fmt.Errorf("%s: %w", path, err) }

// unreadable is the error for a file with the wrong contents, unless it is the
// disk that cannot be read.
func (f *openFile) unreadable(err error) error {
	if readErr := readThrough(f.file.Name()); readErr != nil {
		return readErr
	}
	return &unreadableError{f.file.Name(), f.info, err}
}

// checkLayout makes the buckets of a new database, and checks the version of
// an old one. It runs before the writer, and writes in its place.
func (s *Store) checkLayout() error {
	file := s.file.Load()
	var bad error
	err := s.update(func(tx *bbolt.Tx) (wrote bool, err error) {
		if k, _ := tx.Cursor().First(); k == nil {
			return true, makeLayout(tx)
		}
		if v := tx.Bucket([]byte(bucketMeta)).Get([]byte(keyVersion)); string(v) != version {
			bad = fmt.Errorf("version %q, not %q", v, version)
		}
		return false, nil
	})
	if errors.Is(err, ErrDamaged) {
		bad = err
	}
	if bad != nil {
		return file.unreadable(bad)
	}
	return err
}

func makeLayout(tx *bbolt.Tx) error {
	for _, name := range bucketNames() {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	return tx.Bucket([]byte(bucketMeta)).Put([]byte(keyVersion), []byte(version))
}

// follow returns the file that a link at path names, and path if there is none.
// A file that is missing is created, empty, as bbolt would do: only then does
// the system tell where that is.
func follow(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return path, nil // opening it says what is wrong
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		name, _ := os.Readlink(path)
		return "", fmt.Errorf("link to %s: %w", name, err)
	}
	file, err := filepath.EvalSymlinks(path)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return file, nil
}

// setAside renames the file to a name that no other file has, and returns it.
func setAside(bad *unreadableError) (string, error) {
	// If two processes start at once, both find the file unreadable. The second
	// must not rename the new file of the first.
	if now, err := os.Stat(bad.path); err != nil || !os.SameFile(now, bad.info) {
		return "", errors.Join(errors.New("was replaced meanwhile"), err)
	}
	base := bad.path + ".unreadable-" + time.Now().UTC().Format("20060102T150405Z")
	aside := base
	for i := 2; ; i++ {
		_, err := os.Lstat(aside)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return "", err
		}
		aside = fmt.Sprintf("%s-%d", base, i)
	}
	return aside, os.Rename(bad.path, aside)
}

// readThrough reads the file from end to end, for nothing but the error.
func readThrough(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
