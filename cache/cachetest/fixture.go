package cachetest

import (
	"testing"
	"time"

	"stsmap/cache"
)

// NewEntry returns an entry as it is after a download a moment ago: with a policy
// of the usual size that expires in a week.
func NewEntry(domain string) cache.Entry {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return cache.Entry{
		Domain: domain, ID: "20260101T000000",
		Policy:  "version: STSv1\r\nmode: enforce\r\nmx: *.mail.example.net\r\nmx: mx.example.org\r\nmx: mx2.example.org\r\nmax_age: 604800\r\n",
		Fetched: now, Expires: now.Add(7 * 24 * time.Hour), Checked: now, Recheck: now.Add(5 * time.Minute),
		Refresh: now.Add(24 * time.Hour), Used: now.Truncate(time.Hour),
	}
}

// Put puts the entries one after the other. It ends the test if one fails.
func Put(t testing.TB, s cache.Store, entries ...cache.Entry) {
	t.Helper()
	for _, e := range entries {
		if err := s.Put(t.Context(), e); err != nil {
			t.Fatalf("Put(%s): %v", e.Domain, err)
		}
	}
}

// Within ends the test unless f returns within a minute: no call takes that long,
// on any machine, that does not hang. what is in the error.
func Within(t testing.TB, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatalf("%s: no end", what)
	}
}
