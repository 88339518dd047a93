package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"stsmap/cache"
	"stsmap/cache/cachetest"
)

// TestStore holds the store to the contract, as it is by default and in the two
// modes that poolers and old proxies need.
func TestStore(t *testing.T) {
	for _, mode := range []string{"cache_statement", "exec", "simple_protocol"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			n := 0
			cachetest.TestStore(t, func(t *testing.T) cache.Store {
				n++ // a schema for each, which costs less than a database
				return mustOpen(t, d.url(fmt.Sprintf("schema=t%d", n), "default_query_exec_mode="+mode))
			})
		})
	}
}

// TestShared holds two stores to the contract, with notifications, and without
// as behind a pooler, where Watch has no hints.
func TestShared(t *testing.T) {
	for name, c := range map[string]struct {
		params string
		test   func(*testing.T, func(*testing.T) (a, b cache.Shared))
	}{
		"listening": {"listen=yes", cachetest.TestShared},
		"pooler":    {"listen=no&default_query_exec_mode=exec", cachetest.TestSharedQuiet},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			n := 0
			c.test(t, func(t *testing.T) (a, b cache.Shared) {
				n++
				url := d.url(fmt.Sprintf("schema=t%d", n), c.params)
				return mustOpen(t, url), mustOpen(t, url)
			})
		})
	}
}

func TestDurable(t *testing.T) {
	cachetest.TestDurable(t, func(t *testing.T) func() cache.Store {
		d := newDatabase(t)
		return func() cache.Store { return mustOpen(t, d.url()) }
	})
}

// TestUnreadableRows: a row that is not what was written for its domain is not
// found, left out of All and Due, which removes it, and replaced by any Put.
func TestUnreadableRows(t *testing.T) {
	for name, damage := range map[string]string{
		"an encoding of nothing":      `entry = ''`,
		"a flipped bit":               `entry = set_byte(entry, 0, 9)`,
		"cut short":                   `entry = substr(entry, 1, 20)`,
		"another domain's":            `entry = (SELECT entry FROM stsmap.entries WHERE domain = 'good.example')`,
		"said to be an absence":       `policy = false`,
		"said to be fetched later":    `fetched = fetched + 1`,
		"said to expire later":        `expires = expires + 1`,
		"used in a year out of reach": `used = 9223372036854775807`,
	} {
		t.Run(name, func(t *testing.T) {
			d := newDatabase(t)
			s := mustOpen(t, d.url())
			good, bad := cachetest.NewEntry("good.example"), cachetest.NewEntry("bad.example")
			bad.Refresh = good.Refresh.Add(-time.Hour)
			cachetest.Put(t, s, good, bad)
			d.exec(t, `UPDATE stsmap.entries SET `+damage+` WHERE domain = 'bad.example'`)
			wantNone(t, s, bad.Domain)
			for e, err := range s.All(t.Context()) {
				if err != nil || e != good {
					t.Errorf("All yields %+v, %v", e, err)
				}
			}
			early := bad
			early.Fetched = early.Fetched.Add(-time.Hour)
			cachetest.Put(t, s, early)
			want(t, s, early)
			d.exec(t, `UPDATE stsmap.entries SET `+damage+` WHERE domain = 'bad.example'`)
			// What is due behind it is not hidden.
			taken, err := s.Due(t.Context(), good.Refresh, time.Hour, 1)
			if err != nil || len(taken) != 1 || taken[0] != good {
				t.Errorf("Due = %+v, %v", taken, err)
			}
			if n := d.query(t, "SELECT count(*) FROM stsmap.entries"); n != "1" {
				t.Errorf("%s rows, want the good one", n)
			}
			if err := s.Delete(t.Context(), bad.Domain); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDueKeepsTaken: Due returns the entries that it leased, whatever fails
// afterwards, and reports the failure to OnError.
func TestDueKeepsTaken(t *testing.T) {
	d := newDatabase(t)
	var told []string
	s, err := Open(t.Context(), d.url(), Options{OnError: func(op string, err error) { told = append(told, fmt.Sprint(op, ": ", err)) }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	now := time.Now()
	for i, domain := range []string{"a.example", "unreadable.example", "b.example"} {
		e := cachetest.NewEntry(domain)
		e.Refresh = now.Add(time.Duration(i-10) * time.Minute)
		cachetest.Put(t, s, e)
	}
	d.exec(t, "UPDATE stsmap.entries SET entry = 'x' WHERE domain = 'unreadable.example'",
		"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'kept'; END $$",
		"CREATE TRIGGER refuse BEFORE DELETE ON stsmap.entries FOR EACH ROW EXECUTE FUNCTION refuse()")
	taken, err := s.Due(t.Context(), now, time.Hour, 10)
	if len(taken) != 2 || taken[0].Domain != "a.example" || taken[1].Domain != "b.example" || err != nil {
		t.Errorf("Due = %v, %v", taken, err)
	}
	if len(told) != 1 || !strings.Contains(told[0], "due: ") || !strings.Contains(told[0], "kept") {
		t.Errorf("told %q", told)
	}
	// Where nothing was taken the failure is that of Due.
	d.exec(t, "UPDATE stsmap.entries SET refresh = 1 WHERE domain = 'unreadable.example'")
	if taken, err := s.Due(t.Context(), now, time.Hour, 10); len(taken) != 0 || err == nil {
		t.Errorf("Due = %v, %v", taken, err)
	}
}

// TestConcurrentWriters: whatever is done to a few domains at the same time by
// several daemons, there is no deadlock, whatever isolation is the
// server's default.
func TestConcurrentWriters(t *testing.T) {
	for _, isolation := range []string{"read committed", "serializable"} {
		t.Run(isolation, func(t *testing.T) {
			d := newDatabase(t)
			d.exec(t, fmt.Sprintf("ALTER DATABASE %s SET default_transaction_isolation = '%s'", d.name, isolation))
			var wg sync.WaitGroup
			for w := range 4 {
				s := mustOpen(t, d.url("pool_max_conns=3"))
				wg.Go(func() {
					var inner sync.WaitGroup
					for v := range 3 {
						inner.Go(func() { writeALot(t, s, rand.New(rand.NewPCG(uint64(w), uint64(v)))) })
					}
					inner.Wait()
				})
			}
			wg.Wait()
			if n := d.query(t, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"); n != "0" {
				t.Errorf("%s deadlocks", n)
			}
		})
	}
}

func writeALot(t *testing.T, s *Store, r *rand.Rand) {
	ctx := t.Context()
	for range 60 {
		e := cachetest.NewEntry(fmt.Sprintf("%d.example", r.IntN(3)))
		e.Refresh = e.Refresh.Add(-48 * time.Hour)
		var err error
		switch r.IntN(8) {
		case 0, 1:
			err = s.Put(ctx, e)
		case 2:
			err = s.Delete(ctx, e.Domain)
		case 3:
			_, err = s.Claim(ctx, e.Domain, time.Millisecond)
		case 4:
			err = s.Release(ctx, e.Domain)
		case 5:
			_, err = s.Due(ctx, time.Now(), time.Millisecond, 3)
		case 6:
			uses := make(map[string]time.Time)
			for i := range 3 {
				uses[fmt.Sprintf("%d.example", i)] = e.Used.Add(time.Duration(r.IntN(1000)) * time.Hour)
			}
			err = s.Touch(ctx, uses)
		case 7:
			err = s.do(ctx, "sweep", func(ctx context.Context) error { return s.sweep(ctx, time.Now().Add(1000*time.Hour)) })
		}
		if err != nil && !errors.Is(err, cache.ErrOutdated) {
			t.Error(err)
		}
	}
}

// TestSweep: Due removes what expired an hour ago by both clocks, and nothing
// else.
func TestSweep(t *testing.T) {
	d := newDatabase(t)
	s := mustOpen(t, d.url())
	now := time.Now()
	old := func(domain string, expires, refresh time.Time) cache.Entry {
		e := cachetest.NewEntry(domain)
		e.Fetched, e.Checked = e.Fetched.Add(-1000*time.Hour), e.Checked.Add(-1000*time.Hour)
		e.Expires, e.Refresh = expires.UTC().Truncate(time.Millisecond), refresh.UTC().Truncate(time.Millisecond)
		return e
	}
	long, lately := now.Add(-2*time.Hour), now.Add(-30*time.Minute)
	stay := []cache.Entry{
		old("unexpired.example", now.Add(time.Hour), long), old("just.example", lately, time.Time{}),
		old("refreshed.example", long, now.Add(time.Hour)), old("never.example", time.Time{}, time.Time{}),
	}
	gone := []cache.Entry{old("over.example", long, time.Time{}), old("absent.example", long, long)}
	gone[1].Policy, gone[1].Fetched = "", time.Time{}
	cachetest.Put(t, s, append(gone, stay...)...)
	if _, err := s.Due(t.Context(), now.Add(-10*time.Hour), time.Hour, 0); err != nil {
		t.Fatal(err)
	}
	if n := d.query(t, "SELECT count(*) FROM stsmap.entries"); n != "6" {
		t.Errorf("%s entries are left by a caller whose clock is late, want all 6", n)
	}
	if err := s.sweep(t.Context(), now.Add(1000*time.Hour)); err != nil { // his is early
		t.Fatal(err)
	}
	for _, e := range gone {
		wantNone(t, s, e.Domain)
	}
	for _, e := range stay {
		want(t, s, e)
	}
}

// TestClaimClock: a claim from the future, from before the clock of the server
// was set back, does not count.
func TestClaimClock(t *testing.T) {
	d := newDatabase(t)
	s := mustOpen(t, d.url())
	for _, domain := range []string{"early.example", "held.example"} {
		if ok, err := s.Claim(t.Context(), domain, time.Hour); !ok || err != nil {
			t.Fatalf("Claim = %v, %v", ok, err)
		}
	}
	d.exec(t, `UPDATE stsmap.claims SET made = made + interval '1 day', expires = expires + interval '1 day' WHERE domain = 'early.example'`)
	other := mustOpen(t, d.url())
	if ok, err := other.Claim(t.Context(), "early.example", time.Hour); !ok || err != nil {
		t.Errorf("Claim over one from the future = %v, %v", ok, err)
	}
	if ok, err := other.Claim(t.Context(), "held.example", time.Hour); ok || err != nil {
		t.Errorf("Claim over a good one = %v, %v", ok, err)
	}
}

// TestClaimRefusedPut: a Put ends a claim also where it is refused, for by then
// the domain is known.
func TestClaimRefusedPut(t *testing.T) {
	d := newDatabase(t)
	s := mustOpen(t, d.url())
	late, early := cachetest.NewEntry("example.com"), cachetest.NewEntry("example.com")
	early.Fetched = late.Fetched.Add(-time.Hour)
	cachetest.Put(t, s, late)
	if ok, err := s.Claim(t.Context(), late.Domain, time.Hour); !ok || err != nil {
		t.Fatalf("Claim = %v, %v", ok, err)
	}
	if err := s.Put(t.Context(), early); !errors.Is(err, cache.ErrOutdated) {
		t.Fatalf("Put = %v, want ErrOutdated", err)
	}
	if ok, err := s.Claim(t.Context(), late.Domain, time.Hour); !ok || err != nil {
		t.Errorf("Claim = %v, %v", ok, err)
	}
	want(t, s, late)
}

// TestString: what is printed of a store has no password.
func TestString(t *testing.T) {
	s := mustOpen(t, "postgres://somebody:hunter2@mail.example/cache?sslmode=disable")
	for _, text := range []string{s.String(), fmt.Sprint(s), fmt.Sprintf("%+v", s)} {
		if strings.Contains(text, "hunter2") || !strings.Contains(text, "mail.example") {
			t.Errorf("%s", text)
		}
	}
}

// TestEscape: each domain has a form of its own, which leads back to it.
func TestEscape(t *testing.T) {
	for domain, want := range map[string]string{
		"example.com": "example.com", "100%.example": "100%25.example", "a\x00b": "a%00b", "ä": "%C3%A4",
		"%00": "%2500", " ": "%20", "~": "~", "\xff%": "%FF%25", "": "",
	} {
		if got := escape(domain); got != want || unescape(got) != domain {
			t.Errorf("escape(%q) = %q, and back %q; want %q", domain, got, unescape(got), want)
		}
	}
}

// TestCloseEndsCalls: Close ends calls that the server keeps waiting.
func TestCloseEndsCalls(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	s := mustOpen(t, d.url())
	s.patience = time.Second
	cachetest.Put(t, s, cachetest.NewEntry("example.com"))
	release := d.lock(t, "stsmap.entries")
	defer release()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error)
	go func() { done <- s.Put(ctx, cachetest.NewEntry("example.com")) }()
	d.waitFor(t, "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'", "true")
	go func() {
		_ = s.Close()
		done <- nil
	}()
	for range 2 {
		select {
		case err := <-done:
			if err != nil && !errors.Is(err, cache.ErrClosed) {
				t.Errorf("Put = %v, want ErrClosed", err)
			}
		case <-time.After(50 * time.Second):
			t.Fatal("Close does not end what is under way")
		}
	}
}
