package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"syscall"
)

// ErrForeign is returned by Open and Inspect for a file that is not a store of
// stsmap, such as another program's database. Nothing about the file was
// changed. The operator sets another path, or moves the file away.
var ErrForeign = errors.New("not a store of stsmap")

// Inspect reports whether Open with the same options would accept the file at
// path. It does not lock the file, or open it for writing. It returns nil for a
// store of stsmap, also if that is damaged or in use, for an empty file, and if
// there is no file. It returns ErrForeign for any other file. Another error means
// that the file could not be read.
func Inspect(path string, o Options) error {
	_, err := inspect(path, o)
	return err
}

// inspect is Inspect. The file is ours if it may be set aside.
func inspect(path string, o Options) (ours bool, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if info.IsDir() {
		return false, fmt.Errorf("%s: %w: %w", path, ErrForeign, syscall.EISDIR)
	}
	if !info.Mode().IsRegular() {
		return false, fmt.Errorf("%s: %w: not a regular file", path, ErrForeign)
	}
	// O_NONBLOCK: a FIFO that was created there meanwhile must not block.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	ours, err = identify(f)
	switch damaged := errors.Is(err, errNoDatabase); {
	case damaged && o.Own && !isLink(path):
		return true, nil
	case damaged:
		return false, fmt.Errorf("%s: %w: %w (hint: if it was one, move it away)", path, ErrForeign, err)
	default:
		return ours, err
	}
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

// identify reports whether a file is a database with our buckets. For one with
// others the error is ErrForeign, for one without any and an empty file nil, and
// for any other file errNoDatabase.
func identify(f *os.File) (ours bool, err error) {
	const attempts = 10
	for range attempts {
		var txid uint64
		err = readPages(f, func(m pageMap) error {
			txid = m.txid
			buckets, err := m.buckets(make(map[uint64]bool))
			ours = err == nil && hasOurs(buckets)
			if err == nil && !ours && len(buckets) > 0 {
				names := slices.Sorted(maps.Keys(buckets))
				err = fmt.Errorf("%s: %w: a bbolt database with the buckets %q", f.Name(), ErrForeign, names[:min(len(names), 5)])
			}
			return err
		})
		if err == nil {
			return ours, nil
		}
		// A process that has the file open may have reused the pages meanwhile.
		again := txid
		_ = readPages(f, func(m pageMap) error { again = m.txid; return nil })
		if again == txid {
			break
		}
	}
	return false, err
}

func hasOurs[V any](buckets map[string]V) bool {
	return !slices.ContainsFunc(bucketNames(), func(name string) bool {
		_, ok := buckets[name]
		return !ok
	})
}
