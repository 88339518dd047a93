// Package bolt is a cache.Store in one file on the local disk: what a daemon
// that runs alone remembers across restarts. The file is a bbolt database.
//
// It does not share the file: one process has it open at a time, and other
// machines never. It does not keep anything in memory beyond the page cache and
// a few touches (put a cache.Front before it for that). What deleted entries took
// is used for others; the file is written anew, and smaller, when it is opened
// and most of it is unused.
//
// Size: entries take no more than Options.Most bytes, and the file, whose pages
// are not full, about twice that. Beyond it entries are forgotten: absences and
// expired policies first, then those that were not used for longest.
//
// Trust: whoever can write the file, or rename another into its place, can
// switch MTA-STS off for any domain; it is created with mode 0600, and its
// directory should belong to the daemon alone. Loss: losing the file costs what
// a first contact costs, the protection of the next message to each domain
// (RFC 8461, Section 10.2); nothing has to be repaired before a start without
// it.
package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"os"
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
// itself broken: a page that is not what it should be, or cannot be read.
// Entries on other pages go on working. The operator stops the daemon, moves
// the file away, and has the disk looked at.
var ErrDamaged = errors.New("the database is damaged")

// The buckets. A value in entries is the encoding of an entry and the CRC-32C
// of key and encoding, for bbolt has no checksums but in its two first pages,
// and a policy with a flipped bit is a policy to deliver by. A key in due is
// the Refresh in milliseconds, big-endian, and the domain; it has no value.
const (
	bucketMeta    = "meta"
	bucketEntries = "entries"
	bucketDue     = "due"

	keyVersion = "version"
	version    = "1"
	keyTaken   = "taken" // bytes that entries take, big-endian; see bound.go
)

// walkStep is how many entries All reads in one transaction.
const walkStep = 256

// A Store is a [cache.Store] in a file. Create it with [Open].
//
// Put, Delete and Due return after the data was synced to disk. All that wait
// while one commit runs are made durable by the next one, together, and none
// waits for more to come. A touch is kept in memory, where Get sees it, and
// written along with the next commit, within a minute, or by Close. A context
// that ends while Put, Delete or Due wait does not undo them.
type Store struct {
	db      *bbolt.DB
	file    *os.File // of db, to give back the lock where db cannot any more
	opened  os.FileInfo
	ours    bool // the file may be set aside
	path    string
	aside   string
	reason  string
	wedged  atomic.Bool // a lock within db was lost to a panic
	quit    chan struct{}
	closing sync.Once
	jobs    chan *job
	writer  sync.WaitGroup
	ended   error // of Close; good once writer is done

	uncompacted error // why the file was not written anew, though it should have been

	options Options
	taken   int64         // bytes that entries take; the writer's
	crowded chan struct{} // holds one: they take too many
	keeping sync.WaitGroup

	mu      sync.Mutex
	waiting map[string]time.Time // domain → used; not yet written
}

// SetAside returns the path to which Open has renamed a file that it could not
// make sense of, before it began a new one, and why; both are empty if it did
// not have to. The operator should be told: the cache has been lost.
func (s *Store) SetAside() (path, reason string) { return s.aside, s.reason }

// Uncompacted returns why Open could not write a file anew of which most is
// unused, or nil. The Store works, in a file larger than need be.
func (s *Store) Uncompacted() error { return s.uncompacted }

// Get implements [cache.Store].
func (s *Store) Get(ctx context.Context, domain string) (cache.Entry, error) {
	if err := s.usable(ctx); err != nil {
		return cache.Entry{}, err
	}
	var e cache.Entry
	var ok bool
	// Before the transaction, for after it the touch may have been written, to
	// where the transaction does not see it, and forgotten.
	used := s.touch(domain)
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
	return touched(e, used), nil
}

// Put implements [cache.Store].
func (s *Store) Put(ctx context.Context, e cache.Entry) error {
	value, err := encode(e)
	if err != nil {
		return err
	}
	return s.write(ctx, func(tx *bbolt.Tx) (bool, error) {
		old, ok := load(tx, e.Domain)
		if ok && old.Outdates(e) {
			return false, cache.ErrOutdated
		}
		if err := unindex(tx, old); err != nil {
			return false, err
		}
		return true, s.save(tx, e, value)
	})
}

// Delete implements [cache.Store].
func (s *Store) Delete(ctx context.Context, domain string) error {
	return s.write(ctx, func(tx *bbolt.Tx) (bool, error) {
		if entries(tx).Get([]byte(domain)) == nil {
			return false, nil
		}
		old, _ := load(tx, domain)
		if err := unindex(tx, old); err != nil {
			return false, err
		}
		return true, s.set(tx, domain, nil)
	})
}

// Due implements [cache.Store]. Rows of the index that lead nowhere are removed
// on the way.
func (s *Store) Due(ctx context.Context, now time.Time, lease time.Duration, n int) ([]cache.Entry, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	// A look first: mostly nothing is due, and an empty commit costs a sync.
	var rows [][]byte
	err := s.view(func(tx *bbolt.Tx) error {
		rows = dueRows(tx, now, min(n, 1))
		return nil
	})
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	until := now.Add(max(lease, time.Millisecond))
	var taken []cache.Entry
	err = s.write(ctx, func(tx *bbolt.Tx) (bool, error) {
		taken = nil // it may be the second attempt
		wrote := false
		for len(taken) < n {
			rows := dueRows(tx, now, n-len(taken))
			for _, row := range rows {
				wrote = true
				e, ok, err := s.leaseRow(tx, row, until)
				if err != nil {
					return wrote, err
				}
				if ok {
					taken = append(taken, e)
				}
			}
			if len(rows) == 0 {
				break
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
		var last []byte
		for more := true; more; {
			if err := s.usable(ctx); err != nil {
				yield(cache.Entry{}, err)
				return
			}
			// Not one transaction for all: the loop's body may Put, which may
			// have to wait for readers to end before the file can grow.
			var batch []cache.Entry
			touches := s.touches() // before the transaction, as in Get
			err := s.view(func(tx *bbolt.Tx) error {
				batch, last = page(tx, last)
				return nil
			})
			if err != nil {
				yield(cache.Entry{}, err)
				return
			}
			more = last != nil
			for _, e := range batch {
				if err := ctx.Err(); err != nil {
					yield(cache.Entry{}, err)
					return
				}
				if !yield(touched(e, touches[e.Domain]), nil) {
					return
				}
			}
		}
	}
}

// usable returns why nothing can be done.
func (s *Store) usable(ctx context.Context) error {
	select {
	case <-s.quit:
		return cache.ErrClosed
	default:
		return ctx.Err()
	}
}

// page reads the entries that follow the key last, and returns the last key it
// has seen, or nil at the end.
func page(tx *bbolt.Tx, last []byte) ([]cache.Entry, []byte) {
	c := entries(tx).Cursor()
	k, v := c.First()
	if last != nil {
		if k, v = c.Seek(last); bytes.Equal(k, last) {
			k, v = c.Next()
		}
	}
	var batch []cache.Entry
	for range walkStep {
		if k == nil {
			return batch, nil
		}
		if e, ok := decode(k, v); ok {
			batch = append(batch, e)
		}
		last = bytes.Clone(k) // k is good for as long as the transaction
		k, v = c.Next()
	}
	return batch, last
}

// dueRows returns the first rows of the index that are due at now, at most n.
func dueRows(tx *bbolt.Tx, now time.Time, n int) [][]byte {
	limit := dueTime(now)
	var rows [][]byte
	c := due(tx).Cursor()
	for k, _ := c.First(); k != nil && len(rows) < n; k, _ = c.Next() {
		if len(k) >= len(limit) && bytes.Compare(k[:len(limit)], limit) > 0 {
			break
		}
		rows = append(rows, bytes.Clone(k))
	}
	return rows
}

// leaseRow leases the entry that a row of the index leads to. If there is none,
// or its Refresh is another one, ok is false and the row is gone.
func (s *Store) leaseRow(tx *bbolt.Tx, row []byte, until time.Time) (e cache.Entry, ok bool, err error) {
	if err := due(tx).Delete(row); err != nil {
		return e, false, err
	}
	if len(row) <= dueTimeLen {
		return e, false, nil
	}
	e, ok = load(tx, string(row[dueTimeLen:]))
	if !ok || !bytes.Equal(dueRow(e), row) {
		return e, false, nil
	}
	// The writer, which this is, is who forgets touches: none is missed here.
	e = touched(e, s.touch(e.Domain))
	leased := e
	leased.Refresh = until
	value, err := encode(leased)
	if err != nil {
		return e, false, err
	}
	return e, true, s.save(tx, leased, value)
}

// load returns the domain's entry; ok is false if there is none that can be
// decoded.
func load(tx *bbolt.Tx, domain string) (e cache.Entry, ok bool) {
	return decode([]byte(domain), entries(tx).Get([]byte(domain)))
}

// save writes the entry and its row of the index.
func (s *Store) save(tx *bbolt.Tx, e cache.Entry, value []byte) error {
	if !e.Refresh.IsZero() {
		if err := due(tx).Put(dueRow(e), nil); err != nil {
			return err
		}
	}
	return s.set(tx, e.Domain, value)
}

// unindex removes the row of the index of an entry that is to be replaced.
func unindex(tx *bbolt.Tx, old cache.Entry) error {
	if old.Refresh.IsZero() {
		return nil
	}
	return due(tx).Delete(dueRow(old))
}

func entries(tx *bbolt.Tx) *bbolt.Bucket { return tx.Bucket([]byte(bucketEntries)) }

func due(tx *bbolt.Tx) *bbolt.Bucket { return tx.Bucket([]byte(bucketDue)) }

const dueTimeLen = 8

// dueTime sorts as bytes the way times sort, also before 1970.
func dueTime(t time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(t.UnixMilli())^1<<63)
}

func dueRow(e cache.Entry) []byte {
	return append(dueTime(e.Refresh), e.Domain...)
}

func encode(e cache.Entry) ([]byte, error) {
	b, err := e.AppendBinary(nil)
	if err != nil {
		return nil, err
	}
	return binary.BigEndian.AppendUint32(b, sum([]byte(e.Domain), b)), nil
}

// decode reads a value of the bucket entries; ok is false if there is none, or
// it is not what was written for this key.
func decode(key, value []byte) (e cache.Entry, ok bool) {
	n := len(value) - crc32.Size
	if n < 0 || binary.BigEndian.Uint32(value[n:]) != sum(key, value[:n]) {
		return cache.Entry{}, false
	}
	if err := e.UnmarshalBinary(value[:n]); err != nil {
		return cache.Entry{}, false
	}
	return e, e.Domain == string(key)
}

func sum(key, enc []byte) uint32 {
	t := crc32.MakeTable(crc32.Castagnoli) // made once, by the package
	return crc32.Update(crc32.Update(0, t, key), t, enc)
}

// damaged is the error for a panic of bbolt.
func damaged(path string, what any) error {
	return fmt.Errorf("%s: %w: %v", path, ErrDamaged, what)
}
