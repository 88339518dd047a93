// Package bolt is a cache.Store in one file on the local disk, for a daemon that
// shares its cache with no other. The file is a bbolt database.
//
// It does not share the file: one process has it open at a time, and other
// machines never. It keeps nothing in memory beyond the page cache. It never
// changes a file of another program (see [ErrForeign]).
//
// Size: entries may take Options.MaxBytes; the file, whose pages are not full,
// is up to twice as large. If entries take more, some are evicted: negative
// entries and expired policies first, then what one domain owner has beyond a
// fair share, then the least recently used policies. The bound is checked when
// the store is opened, every hour, and when the file has grown by an eighth of
// the bound. The space of deleted entries is reused. Open writes the file anew,
// and smaller, if most of it is unused.
//
// While the file is open, an empty file "<path>.in-use" is beside it. Close
// removes that. If it is there when the file is opened, the last process did not
// end in order, and [Open] checks all pages. It may be removed while no process
// has the file open; a copy of the file does without it.
//
// The file may be removed, moved or replaced while it is open: see [State].
//
// Trust: a user with write access to the file, or to its directory, can switch
// MTA-STS off for any domain. The file is created with mode 0600, and its
// directory should belong to the daemon alone. Loss: without the file, the next
// message to each domain has no protection, as on first contact (RFC 8461,
// Section 10.2). stsmap starts without it, and nothing has to be repaired.
package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"stsmap/cache"
)

// ErrLocked is returned by Open if another process has the file open. The
// operator ends that process, or has this one use another file.
var ErrLocked = errors.New("locked by another process")

// ErrDamaged is returned by every method of a Store that finds the database
// itself broken: a page with invalid contents, or one that cannot be read.
// Entries on other pages go on working. The operator stops the daemon, moves
// the file away, and checks the disk.
var ErrDamaged = errors.New("the database is damaged")

// A Store is a [cache.Store] in a file. Create it with [Open].
//
// Put, Touch, Delete and Due return after the data was synced to disk. One
// goroutine writes; operations that arrive during a commit share the next one.
// If the context ends while an operation waits, the operation is not undone.
type Store struct {
	path        string
	options     Options
	aside       string
	reason      string
	uncompacted error

	file   atomic.Pointer[openFile] // changed by the writer only
	detach atomic.Pointer[detached] // nil: the path names the file

	begin    sync.Mutex // held within bbolt's Begin
	broken   chan struct{}
	breaking sync.Once // closes broken: bbolt has lost a lock to a panic

	jobs    chan *job
	quit    chan struct{}
	closing sync.Once
	running sync.WaitGroup // writer, evictor and watcher

	unclean atomic.Bool // damage was found, or a commit failed: the mark stays

	inUse   atomic.Int64  // bytes of the pages in use
	evictAt atomic.Int64  // inUse above this wakes the evictor
	crowded chan struct{} // wakes the evictor; holds one
}

// SetAside returns the path to which Open has renamed a damaged store before it
// began a new one, and the reason; both are empty if it did not. The caller
// reports it: the cache has been lost.
func (s *Store) SetAside() (path, reason string) { return s.aside, s.reason }

// Uncompacted returns why Open could not write a file anew of which most is
// unused, or nil. The Store works, in a larger file than necessary.
func (s *Store) Uncompacted() error { return s.uncompacted }

// Size returns how large the file is, and how many bytes of it are free for
// new entries.
func (s *Store) Size() (size, unused int64, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		size, unused = tx.Size(), int64(tx.DB().Stats().FreeAlloc)
		return nil
	})
	return size, unused, err
}

// Get implements [cache.Store].
func (s *Store) Get(ctx context.Context, domain string) (cache.Entry, error) {
	if err := s.readable(ctx); err != nil {
		return cache.Entry{}, err
	}
	var e cache.Entry
	var ok bool
	err := s.view(func(tx *bbolt.Tx) error {
		e, ok = load(tx, domain)
		return nil
	})
	if err != nil {
		return cache.Entry{}, err
	}
	if !ok {
		return cache.Entry{}, cache.ErrNotFound
	}
	return e, nil
}

// Put implements [cache.Store].
func (s *Store) Put(ctx context.Context, e cache.Entry) error {
	return s.Replace(ctx, e, time.Time{})
}

// Replace implements [cache.Store], durably.
func (s *Store) Replace(ctx context.Context, e cache.Entry, wrong time.Time) error {
	if _, err := encode(e); err != nil {
		return err
	}
	return s.write(ctx, func(tx *bbolt.Tx) (bool, error) {
		old, ok := load(tx, e.Domain)
		if ok && old.Outdates(e) && old.Fetched.UnixMilli() != wrong.UnixMilli() {
			return false, cache.ErrOutdated
		}
		return true, save(tx, old, e)
	})
}

// Touch implements [cache.Store], in one transaction.
func (s *Store) Touch(ctx context.Context, uses map[string]time.Time) error {
	return s.write(ctx, func(tx *bbolt.Tx) (wrote bool, err error) {
		for domain, used := range uses {
			e, ok := load(tx, domain)
			if !ok || touched(e, used) == e {
				continue
			}
			if _, err := encode(touched(e, used)); err != nil {
				continue // a time that cannot be stored
			}
			if err := save(tx, e, touched(e, used)); err != nil {
				return true, err
			}
			wrote = true
		}
		return wrote, nil
	})
}

// Delete implements [cache.Store].
func (s *Store) Delete(ctx context.Context, domain string) error {
	return s.write(ctx, func(tx *bbolt.Tx) (bool, error) {
		if entries(tx).Get([]byte(domain)) == nil {
			return false, nil
		}
		return true, remove(tx, domain)
	})
}

// Due implements [cache.Store]. Rows of the index without a matching entry are
// deleted on the way.
func (s *Store) Due(ctx context.Context, now time.Time, lease time.Duration, n int) ([]cache.Entry, error) {
	if err := s.readable(ctx); err != nil {
		return nil, err
	}
	// Mostly nothing is due, and that needs no writing transaction.
	var rows [][]byte
	err := s.view(func(tx *bbolt.Tx) error {
		rows = dueRows(tx, nil, now, min(n, 1))
		return nil
	})
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	until := now.Add(max(lease, time.Millisecond))
	var taken []cache.Entry
	err = s.write(ctx, func(tx *bbolt.Tx) (wrote bool, err error) {
		taken = nil // it may be the second attempt
		var last []byte
		for len(taken) < n {
			rows := dueRows(tx, last, now, n-len(taken))
			if len(rows) == 0 {
				break
			}
			for _, row := range rows {
				wrote = true
				// Further on in any case: on a damaged page the row may stay.
				last = slices.MaxFunc([][]byte{last, row}, bytes.Compare)
				e, ok, err := leaseRow(tx, row, until)
				if err != nil {
					return wrote, err
				}
				if ok {
					taken = append(taken, e)
				}
			}
		}
		return wrote, nil
	})
	if err != nil {
		return nil, err
	}
	return taken, nil
}

// All implements [cache.Store].
func (s *Store) All(ctx context.Context) iter.Seq2[cache.Entry, error] {
	return func(yield func(cache.Entry, error) bool) {
		for r, err := range s.walk(ctx) {
			if err == nil && !r.valid {
				continue
			}
			if !yield(r.entry, err) {
				return
			}
		}
	}
}

// walkStep is how many entries walk reads in one transaction.
const walkStep = 256

// A row is a key of the bucket entries and its value.
type row struct {
	domain string
	entry  cache.Entry
	valid  bool // the value could be decoded
	size   int64
	sum    uint32 // the stored checksum, to detect a later change
}

// walk yields all rows. It reads walkStep of them in one transaction, and has
// none open while the loop body runs: the body may write, and enlarging the file
// waits for readers.
func (s *Store) walk(ctx context.Context) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		var last []byte
		for more := true; more; {
			var batch []row
			before := last
			err := s.readable(ctx)
			if err == nil {
				err = s.view(func(tx *bbolt.Tx) error {
					batch, last = rowsAfter(tx, last)
					return nil
				})
			}
			if err != nil {
				yield(row{}, err)
				return
			}
			more = last != nil
			if more && bytes.Compare(last, before) <= 0 {
				yield(row{}, s.damaged("keys are out of order"))
				return
			}
			for _, r := range batch {
				if err := ctx.Err(); err != nil {
					yield(row{}, err)
					return
				}
				if !yield(r, nil) {
					return
				}
			}
		}
	}
}

// rowsAfter reads the rows after the key last, and returns the last key that it
// has read, or nil at the end.
func rowsAfter(tx *bbolt.Tx, last []byte) ([]row, []byte) {
	c := entries(tx).Cursor()
	k, v := c.First()
	if last != nil {
		if k, v = c.Seek(last); bytes.Equal(k, last) {
			k, v = c.Next()
		}
	}
	batch := make([]row, 0, walkStep)
	for range walkStep {
		if k == nil {
			return batch, nil
		}
		r := row{domain: string(k), size: entrySize(k, v), sum: storedSum(v)}
		r.entry, r.valid = decode(k, v)
		batch = append(batch, r)
		last = bytes.Clone(k) // k is valid during the transaction
		k, v = c.Next()
	}
	return batch, last
}

// readable returns an error if the Store cannot be read.
func (s *Store) readable(ctx context.Context) error {
	select {
	case <-s.quit:
		return cache.ErrClosed
	default:
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if d := s.detach.Load(); d != nil && d.state == Replaced {
		return d.err
	}
	return nil
}

// Close implements [cache.Store]. It returns the error of closing the file, or
// of a file that is no longer at its path. The lock on the file is released in
// any case. The next Open checks all pages if Close returns an error, a commit
// failed, or a method returned ErrDamaged.
func (s *Store) Close() error {
	var err error
	s.closing.Do(func() {
		close(s.quit)
		ended := make(chan struct{})
		go func() {
			s.running.Wait()
			close(ended)
		}()
		select {
		case <-ended:
		case <-s.broken:
			// One of them may wait for a lock of bbolt that is never released.
			select {
			case <-ended:
			case <-time.After(closeTimeout):
			}
		}
		if d := s.detach.Load(); d != nil {
			err = d.err
		}
		err = errors.Join(err, s.closeFile(err == nil))
	})
	return err
}

// closeTimeout is how long Close waits for goroutines of a broken database.
const closeTimeout = time.Second

// damaged is the error for damage that an operation has found. The next Open
// checks all pages.
func (s *Store) damaged(what any) error {
	s.unclean.Store(true)
	return damaged(s.path, what)
}

// damaged is the error for a panic of bbolt.
func damaged(path string, what any) error {
	return fmt.Errorf("%s: %w: %v", path, ErrDamaged, what)
}
