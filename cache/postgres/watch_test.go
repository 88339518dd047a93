package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A listener notes what Watch tells.
type listener struct {
	mu   sync.Mutex
	told []string
}

// watch begins to watch, and waits for the "" that this begins with.
func watch(t *testing.T, s *Store) *listener {
	t.Helper()
	l := &listener{}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.Watch(ctx, l.changed) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	l.wait(t, "")
	return l
}

func (l *listener) changed(domain string, _ bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = append(l.told, domain)
}

// has reports whether a domain was told.
func (l *listener) has(domain string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.told, domain)
}

func (l *listener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.told)
}

func (l *listener) wait(t *testing.T, domain string) {
	t.Helper()
	for range 600 {
		if l.has(domain) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%q is not told", domain)
}

// take returns what was told since the last take.
func (l *listener) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	told := l.told
	l.told = nil
	return told
}

func ways() map[string]string {
	return map[string]string{"listening": "listen=yes", "asking": "listen=no&default_query_exec_mode=exec"}
}

// TestWatch: each Put and Delete is told once, to both stores; touches and
// leases are not.
func TestWatch(t *testing.T) {
	t.Parallel()
	for name, way := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			a, b := mustOpen(t, d.url(way)), mustOpen(t, d.url(way))
			la, lb := watch(t, a), watch(t, b)
			la.take()
			lb.take()
			odd := entry("100%.\x00.example")
			put(t, a, entry("1.example"), odd)
			_, dueErr := a.Due(t.Context(), odd.Refresh, time.Hour, 1)
			_, claimErr := a.Claim(t.Context(), "claimed.example", time.Hour)
			early := entry("1.example")
			early.Fetched = early.Fetched.Add(-time.Hour)
			if err := a.Put(t.Context(), early); err == nil {
				t.Error("Put of what is outdated succeeded")
			}
			if err := errors.Join(dueErr, claimErr, a.Touch(t.Context(), map[string]time.Time{"1.example": time.Now().Add(time.Hour)})); err != nil {
				t.Fatal(err)
			}
			if err := b.Delete(t.Context(), "unknown.example"); err != nil {
				t.Fatal(err)
			}
			want := []string{"1.example", "100%.\x00.example", "unknown.example"}
			for _, l := range []*listener{la, lb} {
				l.wait(t, want[2])
				got := l.take()
				if slices.Sort(got); !slices.Equal(got, want) {
					t.Errorf("told %q, want %q", got, want)
				}
			}
		})
	}
}

// TestWatchLateCommit: a change that was begun before another, and is committed
// long after that was told, is told too, and the other not again.
func TestWatchLateCommit(t *testing.T) {
	t.Parallel()
	for name, way := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			s := hurried(t, d.url(way))
			l := watch(t, s)
			conn, err := pgx.Connect(t.Context(), d.url())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.Background())
			tx, err := conn.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			late := func(n int) {
				if _, err := tx.Exec(t.Context(), "INSERT INTO stsmap.changes (domain) VALUES ($1)", fmt.Sprintf("late%d.example", n)); err != nil {
					t.Fatal(err)
				}
			}
			late(1)
			for i := range 3 {
				domain := fmt.Sprintf("%d.example", i)
				put(t, s, entry(domain))
				l.wait(t, domain)
			}
			late(2)
			if l.has("late1.example") {
				t.Fatal("told before it was committed")
			}
			l.take()
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			l.wait(t, "late1.example")
			l.wait(t, "late2.example")
			if told := l.take(); len(told) != 2 {
				t.Errorf("told %q, want the late ones alone", told)
			}
		})
	}
}

// TestWatchReconnects: what happens while the connection is lost is told.
func TestWatchReconnects(t *testing.T) {
	t.Parallel()
	for name, way := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			a, b := hurried(t, d.url(way, "application_name=lost")), mustOpen(t, d.url())
			l := watch(t, a)
			l.take()
			var domains []string
			for i := range 3 {
				d.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lost' AND datname = current_database()")
				domains = append(domains, fmt.Sprintf("%d.example", i))
				put(t, b, entry(domains[i]))
				if i == 1 { // and once at leisure
					l.wait(t, domains[i])
				}
			}
			for _, domain := range domains {
				l.wait(t, domain)
			}
			if told := l.take(); len(told) != 3 {
				t.Errorf("told %q, want each once", told)
			}
		})
	}
}

// TestFeed: what a reader finds when it comes back, by what was done meanwhile.
// It tells of everything if something may have been removed that it has not
// seen, and of the changes alone otherwise.
func TestFeed(t *testing.T) {
	const turn = `UPDATE stsmap.feed SET at = at - interval '11 minutes'`
	for _, c := range []struct {
		name    string
		between []string // "sweep", "put", "poll", or SQL
		all     bool     // the reader tells ""
	}{
		{"nothing", nil, false},
		{"a change", []string{"put"}, false},
		{"removed long after it was read", []string{"put", "poll", turn, "sweep", "poll", turn, "sweep", "put"}, false},
		{"marked for removal, but not removed yet", []string{"put", turn, "sweep"}, false},
		{"removed unread", []string{"put", turn, "sweep", turn, "sweep"}, true},
		{"the clock was set back a year", []string{"put", `UPDATE stsmap.feed SET at = at + interval '1 year'`, "sweep"}, false},
		{"the feed was emptied", []string{`DELETE FROM stsmap.feed`}, true},
		{"restored from another server's dump", []string{"put", `UPDATE stsmap.feed SET trimmed = '9000000:9000000:', next = '9000001:9000001:'`,
			`INSERT INTO stsmap.changes (xid, domain) VALUES ('8999999', 'dumped.example')`}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDatabase(t)
			s := mustOpen(t, d.url())
			l := &listener{}
			r := &reader{store: s, changed: l.changed}
			poll := func() []string {
				if err := r.poll(t.Context(), s.pool); err != nil {
					t.Fatal(err)
				}
				return l.take()
			}
			if told := poll(); !slices.Equal(told, []string{""}) {
				t.Errorf("it begins with %q", told)
			}
			puts := 0
			for _, action := range c.between {
				switch action {
				case "put":
					put(t, s, entry("example.com"))
					puts++
				case "poll":
					poll()
					puts = 0
				case "sweep":
					if err := s.sweep(t.Context(), time.Now()); err != nil {
						t.Fatal(err)
					}
				default:
					d.exec(t, action)
				}
			}
			if told := poll(); c.all != slices.Equal(told, []string{""}) || !c.all && len(told) != puts {
				t.Errorf("it tells %q; all: %v, changes: %d", told, c.all, puts)
			}
		})
	}
}

// TestFeedLateCommit: a change that the last reading could not see, as it was
// not committed, is missed if it is removed, even if nothing newer was.
func TestFeedLateCommit(t *testing.T) {
	d := newDatabase(t)
	s := mustOpen(t, d.url())
	put(t, s, entry("example.com"))
	conn, err := pgx.Connect(t.Context(), d.url())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "BEGIN; INSERT INTO stsmap.changes (domain) VALUES ('late.example')"); err != nil {
		t.Fatal(err)
	}
	put(t, s, entry("example.org")) // after it, and committed before it
	l := &listener{}
	r := &reader{store: s, changed: l.changed}
	for range 2 {
		l.take()
		if err := r.poll(t.Context(), s.pool); err != nil {
			t.Fatal(err)
		}
	}
	if told := l.take(); len(told) > 0 {
		t.Fatalf("told %q", told)
	}
	if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	next := strings.Split(r.seen, ":")[1]
	d.exec(t, "DELETE FROM stsmap.changes", fmt.Sprintf("UPDATE stsmap.feed SET trimmed = '%s:%[1]s:'", next))
	if err := r.poll(t.Context(), s.pool); err != nil {
		t.Fatal(err)
	}
	if told := l.take(); !slices.Equal(told, []string{""}) {
		t.Errorf("told %q, want that anything may have changed", told)
	}
}

// TestFeedOtherServer: after a start of the server, or with another in its
// place, what is known of transactions is not good any more.
func TestFeedOtherServer(t *testing.T) {
	s := mustOpen(t, newDatabase(t).url())
	l := &listener{}
	r := &reader{store: s, changed: l.changed}
	for range 2 {
		l.take()
		if err := r.poll(t.Context(), s.pool); err != nil {
			t.Fatal(err)
		}
	}
	if told := l.take(); len(told) > 0 {
		t.Fatalf("told %q", told)
	}
	r.started = "1792000000.000000"
	if err := r.poll(t.Context(), s.pool); err != nil {
		t.Fatal(err)
	}
	if told := l.take(); !slices.Equal(told, []string{""}) {
		t.Errorf("told %q, want that anything may have changed", told)
	}
}

// TestFeedRecovers: after a dump of another server was restored, a sweep has
// all in order again.
func TestFeedRecovers(t *testing.T) {
	d := newDatabase(t)
	s := mustOpen(t, d.url())
	put(t, s, entry("example.com"))
	d.exec(t, `UPDATE stsmap.feed SET trimmed = '9000000:9000000:', next = '9000001:9000001:'`,
		`INSERT INTO stsmap.changes (xid, domain) VALUES ('8999999', 'dumped.example')`)
	if err := s.sweep(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	l := &listener{}
	r := &reader{store: s, changed: l.changed}
	for range 3 {
		l.take()
		if err := r.poll(t.Context(), s.pool); err != nil {
			t.Fatal(err)
		}
	}
	if told := l.take(); len(told) > 0 {
		t.Errorf("it tells %q", told)
	}
}

// TestWatchEnds: Watch returns when the store is closed, also where there is no
// server, which it reports once.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	reported := make(chan error, 100)
	for _, url := range []string{newDatabase(t).url(), urlOf("/nonexistent", "db")} {
		s, err := Open(t.Context(), url, Options{OnError: func(op string, err error) { reported <- fmt.Errorf("%s: %w", op, err) }})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { s.Watch(t.Context(), func(string, bool) {}) })
		if url == urlOf("/nonexistent", "db") {
			wantError(t, <-reported, "watch: postgres: watch: ")
			time.Sleep(3 * retryEvery / 2) // it must not be reported again
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		s.Watch(t.Context(), func(string, bool) { t.Error("a closed store tells of changes") })
	}
	if len(reported) > 0 {
		t.Errorf("reported too: %v", <-reported)
	}
}
