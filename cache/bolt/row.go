package bolt

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"time"

	"go.etcd.io/bbolt"

	"stsmap/cache"
)

// The buckets. A value in entries is the encoding of an entry and the CRC-32C
// of key and encoding, because bbolt has checksums only in its first two pages,
// and mail must not be delivered by a policy with a flipped bit. A key in due is
// the Refresh in milliseconds, big-endian, and the domain; it has no value.
const (
	bucketMeta    = "meta"
	bucketEntries = "entries"
	bucketDue     = "due"

	keyVersion = "version"
	version    = "1"
)

// bucketNames are the buckets of every store.
func bucketNames() []string { return []string{bucketMeta, bucketEntries, bucketDue} }

func entries(tx *bbolt.Tx) *bbolt.Bucket { return tx.Bucket([]byte(bucketEntries)) }

func due(tx *bbolt.Tx) *bbolt.Bucket { return tx.Bucket([]byte(bucketDue)) }

// load returns the domain's entry; ok is false if there is none that can be
// decoded.
func load(tx *bbolt.Tx, domain string) (e cache.Entry, ok bool) {
	return decode([]byte(domain), entries(tx).Get([]byte(domain)))
}

// save replaces the stored entry old, which can be zero, and its row of the
// index.
func save(tx *bbolt.Tx, old, e cache.Entry) error {
	value, err := encode(e)
	if err != nil {
		return err
	}
	if err := unindex(tx, old); err != nil {
		return err
	}
	if !e.Refresh.IsZero() {
		if err := due(tx).Put(dueRow(e), nil); err != nil {
			return err
		}
	}
	return entries(tx).Put([]byte(e.Domain), value)
}

// remove deletes the domain's entry and its row of the index, if there are any.
func remove(tx *bbolt.Tx, domain string) error {
	old, _ := load(tx, domain)
	if err := unindex(tx, old); err != nil {
		return err
	}
	return entries(tx).Delete([]byte(domain))
}

// unindex deletes the row of the index of an entry that is to be replaced.
func unindex(tx *bbolt.Tx, old cache.Entry) error {
	if old.Refresh.IsZero() {
		return nil
	}
	return due(tx).Delete(dueRow(old))
}

const dueTimeLen = 8

// dueTime sorts as bytes the way times sort, also before 1970.
func dueTime(t time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(t.UnixMilli())^1<<63)
}

func dueRow(e cache.Entry) []byte {
	return append(dueTime(e.Refresh), e.Domain...)
}

// dueRows returns the first rows of the index after a key that are due at now,
// at most n.
func dueRows(tx *bbolt.Tx, after []byte, now time.Time, n int) [][]byte {
	limit := dueTime(now)
	var rows [][]byte
	c := due(tx).Cursor()
	for k, _ := c.Seek(after); k != nil && len(rows) < n; k, _ = c.Next() {
		if len(k) >= len(limit) && bytes.Compare(k[:len(limit)], limit) > 0 {
			break
		}
		// On a damaged page keys can be out of order.
		if bytes.Compare(k, after) > 0 {
			rows = append(rows, bytes.Clone(k))
		}
	}
	return rows
}

// leaseRow leases the entry that a row of the index leads to. If there is none,
// or its Refresh is another one, ok is false and the row is deleted.
func leaseRow(tx *bbolt.Tx, row []byte, until time.Time) (e cache.Entry, ok bool, err error) {
	if len(row) > dueTimeLen {
		e, ok = load(tx, string(row[dueTimeLen:]))
	}
	if !ok || !bytes.Equal(dueRow(e), row) {
		return e, false, due(tx).Delete(row)
	}
	leased := e
	leased.Refresh = until
	return e, true, save(tx, e, leased)
}

// touched returns e with Used moved forward to used, to the millisecond.
func touched(e cache.Entry, used time.Time) cache.Entry {
	if used.UnixMilli() > e.Used.UnixMilli() {
		e.Used = time.UnixMilli(used.UnixMilli()).UTC()
	}
	return e
}

// entrySize is how many bytes an entry takes: key and value, its row of the
// index, and the headers of both.
func entrySize(key, value []byte) int64 {
	const headers = dueTimeLen + 2*16
	return int64(2*len(key) + len(value) + headers)
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
	if n < 0 || storedSum(value) != sum(key, value[:n]) {
		return cache.Entry{}, false
	}
	if err := e.UnmarshalBinary(value[:n]); err != nil {
		return cache.Entry{}, false
	}
	return e, e.Domain == string(key)
}

// storedSum returns the checksum in a value of the bucket entries, 0 if the value
// is too short.
func storedSum(value []byte) uint32 {
	n := len(value) - crc32.Size
	if n < 0 {
		return 0
	}
	return binary.BigEndian.Uint32(value[n:])
}

func sum(key, enc []byte) uint32 {
	t := crc32.MakeTable(crc32.Castagnoli) // made once, by the package
	return crc32.Update(crc32.Update(0, t, key), t, enc)
}
