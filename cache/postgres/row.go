package postgres

import (
	"net/url"
	"time"

	"github.com/jackc/pgx/v5"

	"stsmap/cache"
)

// A row is one of the table entries. The columns that repeat a part of entry must
// agree with it, except for refresh and used, which leases and touches change.
type row struct {
	domain  string // escaped
	policy  bool
	fetched int64
	expires int64
	refresh *int64 // nil: never
	used    int64
	entry   []byte
}

func encode(e cache.Entry) (row, error) {
	b, err := e.AppendBinary(nil)
	if err != nil {
		return row{}, err
	}
	r := row{
		domain:  escape(e.Domain),
		policy:  e.Policy != "",
		fetched: e.Fetched.UnixMilli(),
		expires: e.Expires.UnixMilli(),
		used:    e.Used.UnixMilli(),
		entry:   b,
	}
	if !e.Refresh.IsZero() {
		r.refresh = new(e.Refresh.UnixMilli())
	}
	return r, nil
}

// decode returns the entry; ok is false if encode did not make the row.
func (r row) decode() (e cache.Entry, ok bool) {
	if err := e.UnmarshalBinary(r.entry); err != nil {
		return cache.Entry{}, false
	}
	var refresh time.Time
	if r.refresh != nil {
		refresh = time.UnixMilli(*r.refresh).UTC()
	}
	used := time.UnixMilli(r.used).UTC()
	if escape(e.Domain) != r.domain || (e.Policy != "") != r.policy || e.Fetched.UnixMilli() != r.fetched ||
		e.Expires.UnixMilli() != r.expires || !isStorable(refresh) || !isStorable(used) {
		return cache.Entry{}, false
	}
	e.Refresh, e.Used = refresh, used
	return e, true
}

func scanRow(c pgx.CollectableRow) (r row, err error) {
	err = c.Scan(&r.domain, &r.policy, &r.fetched, &r.expires, &r.refresh, &r.used, &r.entry)
	return r, err
}

// isStorable reports whether an entry can have this time.
func isStorable(t time.Time) bool {
	y := t.UTC().Year()
	return y >= 1 && y <= 9999
}

// escape writes a domain so that any server accepts it as text, whatever its
// encoding, and people can read it. A column of bytes would need no escaping, but
// psql shows it in hexadecimal.
func escape(domain string) string { return url.PathEscape(domain) }

// unescape is the inverse of escape. It returns anything else unchanged.
func unescape(s string) string {
	if domain, err := url.PathUnescape(s); err == nil {
		return domain
	}
	return s
}
