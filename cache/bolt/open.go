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
	bolterrors "go.etcd.io/bbolt/errors"
)

const lockTimeout = time.Second

// Options are for Open.
type Options struct {
	// Most is how many bytes entries may take, their keys and what belongs to
	// them included; zero means 4 GiB, which is some millions.
	Most int64
	// OnForgotten, if not nil, is told how many policies that still counted
	// were forgotten because there was no room. It is called without any lock
	// held.
	OnForgotten func(policies int)
	// Own says that no other program has a file at the path, such as in the
	// daemon's own directory: then a file that is no readable database is taken
	// for a damaged store, and set aside. It means nothing for a symbolic link,
	// and for another program's database.
	Own bool
}

// errUnreadable marks a file that is not, or not any more, a database of ours.
var errUnreadable = errors.New("not readable as a cache")

// Open opens the store in the file at path, and creates the file with mode 0600
// if there is none; its directory must exist. It does not read the entries.
//
// Where path is a symbolic link, everything happens to the file it names at that
// moment, and beside it, also where that file is created: a store on another
// disk stays there, and the link what it was.
//
// A file that is not a store of stsmap is never written to, renamed, or changed
// in any other way: the error is [ErrForeign], and says why. A store that is cut
// short, damaged, or of a version with another layout is renamed to
// "<path>.unreadable-<time>", never removed and never over another file, and a
// new one is begun: see [Store.SetAside]. It is recognized by its buckets, or by
// Options.Own. For a cache is worth less than mail that flows. An error of the
// file system is returned and moves nothing, and so is [ErrLocked], after a
// second of waiting.
func Open(path string, o Options) (*Store, error) {
	s, err := open(path, o)
	if err == nil {
		return s, nil
	}
	if !errors.Is(err, errUnreadable) {
		return nil, err
	}
	if !s.ours {
		return nil, fmt.Errorf("%w: %w", ErrForeign, err)
	}
	reason := err.Error()
	aside, err := setAside(s.path, s.opened)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", reason, err)
	}
	if s, err = open(path, o); err != nil {
		return nil, err
	}
	s.aside, s.reason = aside, reason
	return s, nil
}

// open opens or creates the file and starts the writer. Its error is
// errUnreadable if the file, which is the Store's opened, should be set aside.
func open(path string, o Options) (*Store, error) {
	s := &Store{
		quit:    make(chan struct{}),
		jobs:    make(chan *job),
		waiting: make(map[string]time.Time),
		options: o,
		crowded: make(chan struct{}, 1),
	}
	if s.options.Most == 0 {
		s.options.Most = 4 << 30
	}
	_, statErr := os.Stat(path)
	var err error
	if s.ours, err = inspect(path, o); err != nil {
		return s, err
	}
	if path, err = follow(path); err != nil {
		return s, err
	}
	s.path = path
	if err := s.openDB(); err != nil {
		return s, err
	}
	if now, err := os.Stat(path); err != nil || !os.SameFile(now, s.opened) {
		// Another process has just put another file there, and let go of this.
		return s, errors.Join(fmt.Errorf("%s: %w", path, ErrLocked), err, s.shut())
	}
	if err := s.checkLayout(); err != nil {
		return s, errors.Join(err, s.shut())
	}
	if s.wasteful(leastWaste) {
		s.uncompacted = s.compact()
	}
	if errors.Is(statErr, fs.ErrNotExist) {
		// A file is not safe before its name is.
		if err := syncDir(filepath.Dir(path)); err != nil {
			return s, errors.Join(err, s.shut())
		}
	}
	if err := s.readTaken(); err != nil {
		return s, errors.Join(err, s.shut())
	}
	s.writer.Go(s.run)
	s.keeping.Go(s.keep)
	return s, nil
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

// openDB opens the database, whatever it contains.
func (s *Store) openDB() (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if what := recover(); what != nil {
			// bbolt has lost track of the file, and with it of the lock.
			err = s.classify(errors.Join(fmt.Errorf("%w: %v", errUnreadable, what), s.file.Close()))
		}
	}()
	s.db, err = bbolt.Open(s.path, 0o600, &bbolt.Options{
		Timeout:      lockTimeout,
		FreelistType: bbolt.FreelistMapType,
		// NoFreelistSync stays off: it makes a commit cheaper, and opening a
		// scan of the whole file. InitialMmapSize stays zero: readers would
		// never wait for a larger mapping, but the smallest file would be
		// 16 MiB; the mapping doubles, so that few ever wait.
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			f, err := os.OpenFile(name, flag, mode)
			if err != nil {
				return nil, err
			}
			s.file = f
			s.opened, err = f.Stat()
			return f, err
		},
	})
	return s.classify(err)
}

// classify tells files to be set aside from failures to be returned.
func (s *Store) classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("%s: %w (hint: is stsmap running already? fuser %s names the process)", s.path, ErrLocked, s.path)
	}
	_, isPath := errors.AsType[*fs.PathError](err)
	_, isErrno := errors.AsType[syscall.Errno](err)
	// bbolt's error for a file shorter than two pages has no type.
	short := !isPath && !isErrno && s.opened != nil && s.opened.Size() < int64(2*os.Getpagesize())
	if !short && !errors.Is(err, errUnreadable) && !errors.Is(err, bolterrors.ErrInvalid) &&
		!errors.Is(err, bolterrors.ErrVersionMismatch) && !errors.Is(err, bolterrors.ErrChecksum) {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	// bbolt calls a file invalid too if the disk would not let it read.
	if readErr := readThrough(s.path); readErr != nil {
		return fmt.Errorf("%s: %w", s.path, readErr)
	}
	if errors.Is(err, errUnreadable) {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	return fmt.Errorf("%s: %w: %w", s.path, errUnreadable, err)
}

// checkLayout makes the buckets of a new database, and looks at the version of
// an old one. It runs before the writer, and writes in its place.
func (s *Store) checkLayout() error {
	err := s.view(func(tx *bbolt.Tx) error {
		info, err := s.file.Stat()
		if err != nil {
			return err
		}
		if info.Size() < tx.Size() {
			return fmt.Errorf("%w: %d bytes of %d are missing", errUnreadable, tx.Size()-info.Size(), tx.Size())
		}
		b := tx.Bucket([]byte(bucketMeta))
		if b == nil {
			if k, _ := tx.Cursor().First(); k != nil {
				return fmt.Errorf("%s: %w: it was replaced meanwhile", s.path, ErrForeign)
			}
			return nil
		}
		if v := b.Get([]byte(keyVersion)); string(v) != version {
			return fmt.Errorf("%w: version %q, not %q", errUnreadable, v, version)
		}
		if entries(tx) == nil || due(tx) == nil {
			return fmt.Errorf("%w: incomplete", errUnreadable)
		}
		return nil
	})
	if err == nil {
		err = s.update(makeLayout)
	}
	if errors.Is(err, ErrDamaged) {
		if readErr := readThrough(s.path); readErr != nil {
			return readErr
		}
		return fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return err
}

func makeLayout(tx *bbolt.Tx) (bool, error) {
	if tx.Bucket([]byte(bucketMeta)) != nil {
		return false, nil
	}
	for _, name := range []string{bucketMeta, bucketEntries, bucketDue} {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return false, err
		}
	}
	return true, tx.Bucket([]byte(bucketMeta)).Put([]byte(keyVersion), []byte(version))
}

// setAside renames the file to a name that no other file has, and returns it.
func setAside(path string, opened os.FileInfo) (string, error) {
	// Two processes that start at once both find the file unreadable, one after
	// the other. The second must not rename what the first has begun.
	if now, err := os.Stat(path); err != nil || !os.SameFile(now, opened) {
		return "", errors.Join(errors.New("was replaced meanwhile"), err)
	}
	base := path + ".unreadable-" + time.Now().UTC().Format("20060102T150405Z")
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
	return aside, os.Rename(path, aside)
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
