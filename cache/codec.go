package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// The encoding, version 1: the version in one byte, then the fields in the
// order below. A string is its length and its bytes, a number an unsigned
// varint, a time the milliseconds since the beginning of year 1, which makes
// the zero time zero. The domain comes first, so that a table that has it as its key
// need not keep it twice: see Encode. Every entry has exactly one encoding: a varint
// longer than necessary is an error, and so is anything after the last field.
const codecVersion = 1

const (
	maxDomain = 253
	// epoch is 0001-01-01T00:00:00Z in Unix milliseconds.
	epoch = -62135596800000
	// maxStamp is 9999-12-31T23:59:59.999Z, the last time that RFC 3339 can
	// write, which is how times are shown to people.
	maxStamp = 253402300799999 - epoch
)

var (
	errDomain   = errors.New("cache: domain is empty or longer than 253 bytes")
	errFailures = errors.New("cache: failures out of range")
	errTime     = errors.New("cache: time outside of the years 1 to 9999")

	errShort    = errors.New("ends early")
	errVarint   = errors.New("bad varint")
	errTrailing = errors.New("trailing bytes")
)

// AppendBinary appends the encoding of e to b. It fails, and returns b as it
// was, if Domain is empty or longer than 253 bytes, Failures is negative or
// above 2³¹-1, or a time lies outside of the years 1 to 9999. It implements
// encoding.BinaryAppender.
func (e Entry) AppendBinary(b []byte) ([]byte, error) {
	if e.Domain == "" || len(e.Domain) > maxDomain {
		return b, errDomain
	}
	if e.Failures < 0 || e.Failures > math.MaxInt32 {
		return b, errFailures
	}
	for _, t := range []*time.Time{&e.Fetched, &e.Expires, &e.Checked, &e.Recheck, &e.Retry, &e.Refresh, &e.Used} {
		if s := stamp(*t); s < 0 || s > maxStamp {
			return b, errTime
		}
	}
	b = append(b, codecVersion)
	b = appendString(b, e.Domain)
	b = appendString(b, e.ID)
	b = appendString(b, e.Policy)
	b = appendTime(b, e.Fetched)
	b = appendTime(b, e.Expires)
	b = appendTime(b, e.Checked)
	b = appendTime(b, e.Recheck)
	b = binary.AppendUvarint(b, uint64(e.Failures))
	b = appendString(b, e.FailedID)
	b = appendString(b, e.Error)
	b = appendString(b, e.Result)
	b = appendTime(b, e.Retry)
	b = appendTime(b, e.Refresh)
	return appendTime(b, e.Used), nil
}

// UnmarshalBinary sets e to the entry that b encodes, all of b. It fails, and
// leaves e alone, for anything that AppendBinary could not have written. The
// entry does not refer to b. It implements encoding.BinaryUnmarshaler.
func (e *Entry) UnmarshalBinary(b []byte) error {
	got, err := decode(string(b))
	if err != nil {
		return err
	}
	*e = got
	return nil
}

// decode reads one encoding. The strings of the entry are parts of s, not
// copies.
func decode(s string) (Entry, error) {
	if s == "" {
		return Entry{}, fmt.Errorf("cache: encoding: %w", errShort)
	}
	if s[0] != codecVersion {
		return Entry{}, fmt.Errorf("cache: encoding: unknown version %d", s[0])
	}
	d := decoder{rest: s[1:]}
	return d.entry(d.string())
}

// Encode returns the encoding of e without the domain and what comes before it, as
// a string, for keeping it in memory under its domain. It fails where AppendBinary
// does.
func Encode(e Entry) (string, error) {
	var buf [512]byte
	b, err := e.AppendBinary(buf[:0])
	if err != nil {
		return "", err
	}
	b = b[1:]
	length, n := binary.Uvarint(b)
	return string(b[n+int(length):]), nil
}

// Decode returns the entry of a domain that Encode encoded as s, all of s, and
// fails for anything that Encode could not have written. The other strings of the entry
// are parts of s, not copies: as long as one of them is used, all of s stays in
// memory.
func Decode(domain, s string) (Entry, error) {
	d := decoder{rest: s}
	return d.entry(domain)
}

// stamp is t in milliseconds since the beginning of year 1, rounded down: 0 for
// the zero time, and what all comparisons here are made with, so that an entry
// compares the same before and after it was stored. For a time that cannot be
// stored it is negative.
func stamp(t time.Time) int64 {
	if y := t.UTC().Year(); y < 1 || y > 9999 {
		return -1
	}
	return t.UnixMilli() - epoch
}

// unstamp is the time that s is the stamp of.
func unstamp(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.UnixMilli(s + epoch).UTC()
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendTime(b []byte, t time.Time) []byte {
	return binary.AppendUvarint(b, uint64(stamp(t)))
}

// A decoder reads fields off the front of rest. After the first error it
// returns zero values only.
type decoder struct {
	rest string
	err  error
}

// uvarint reads a number of at most limit, and fails with tooLarge above it.
func (d *decoder) uvarint(limit uint64, tooLarge error) uint64 {
	if d.err != nil {
		return 0
	}
	var v uint64
	for i := range min(len(d.rest), binary.MaxVarintLen64) {
		c := d.rest[i]
		if i == binary.MaxVarintLen64-1 && c > 1 || i > 0 && c == 0 {
			break
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			if v > limit {
				d.err = tooLarge
				return 0
			}
			d.rest = d.rest[i+1:]
			return v
		}
	}
	d.err = errVarint
	return 0
}

// entry reads all that follows the domain, up to the end.
func (d *decoder) entry(domain string) (Entry, error) {
	e := Entry{
		Domain:   domain,
		ID:       d.string(),
		Policy:   d.string(),
		Fetched:  d.time(),
		Expires:  d.time(),
		Checked:  d.time(),
		Recheck:  d.time(),
		Failures: int(d.uvarint(math.MaxInt32, errFailures)),
		FailedID: d.string(),
		Error:    d.string(),
		Result:   d.string(),
		Retry:    d.time(),
		Refresh:  d.time(),
		Used:     d.time(),
	}
	switch {
	case d.err != nil:
	case d.rest != "":
		d.err = errTrailing
	case e.Domain == "" || len(e.Domain) > maxDomain:
		d.err = errDomain
	}
	if d.err != nil {
		return Entry{}, fmt.Errorf("cache: encoding: %w", d.err)
	}
	return e, nil
}

func (d *decoder) string() string {
	// The length is compared with what is there before anything is made of it,
	// so that eight bytes cannot ask for a gigabyte.
	n := d.uvarint(uint64(len(d.rest)), errShort)
	if uint64(len(d.rest)) < n {
		d.err = errShort
		return ""
	}
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}

func (d *decoder) time() time.Time {
	return unstamp(int64(d.uvarint(maxStamp, errTime)))
}
