package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"stsmap/cache"
	"stsmap/cache/cachetest"
)

// An outcome is the state of a domain: whether it is there, and the number of
// hints before that came about.
type outcome struct {
	there bool
	told  int
}

// TestKilled: the server is killed again and again while daemons write to it.
// Whatever Put and Delete have said is done is there at the end, Watch has told
// of it, and both stores go on by themselves.
func TestKilled(t *testing.T) {
	t.Parallel()
	srv := ownServer(t)
	stores := []*Store{mustOpen(t, srv.url("postgres")), mustOpen(t, srv.url("postgres", "listen=no"))}
	l := watch(t, stores[0])
	ctx, stop := context.WithCancel(t.Context())
	var mu sync.Mutex
	done := make(map[string]outcome) // absent: not known
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				domain := fmt.Sprintf("%d.%d.example", i/2, w)
				o := outcome{there: i%2 == 0 || i%8 == 1, told: l.count()}
				err := change(t, stores[w%2], domain, o.there)
				mu.Lock()
				delete(done, domain)
				if err == nil {
					done[domain] = o
				}
				mu.Unlock()
				if err != nil {
					time.Sleep(10 * time.Millisecond)
				}
			}
		})
	}
	known := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(done)
	}
	more := func() {
		for before := known(); known() < before+50; {
			time.Sleep(10 * time.Millisecond)
		}
	}
	for range 2 {
		more()
		srv.kill()
		if err := srv.start(); err != nil {
			t.Fatal(err)
		}
	}
	more()
	stop()
	wg.Wait()
	for i := 0; !l.has("last.example"); i++ {
		cachetest.Put(t, stores[1], cachetest.NewEntry("last.example"))
		time.Sleep(50 * time.Millisecond)
		if i == 600 {
			t.Fatal("Watch does not go on")
		}
	}
	told := l.take()
	for domain, o := range done {
		_, err := stores[0].Get(t.Context(), domain)
		if o.there && err != nil || !o.there && !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("Get(%s) = %v; there: %v", domain, err, o.there)
		}
		hint := domain
		if !o.there {
			hint = "!" + domain
		}
		if after := told[o.told:]; !slices.Contains(after, hint) && !slices.Contains(after, "") {
			t.Errorf("%q is not told", hint)
		}
	}
}

// change puts or deletes.
func change(t *testing.T, s *Store, domain string, there bool) error {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if there {
		return s.Put(ctx, cachetest.NewEntry(domain))
	}
	return s.Delete(ctx, domain)
}

// TestPaused: while the server does not answer, calls end with their contexts,
// those without a deadline by the Timeout, and Close ends too; afterwards all
// goes on.
func TestPaused(t *testing.T) {
	t.Parallel()
	srv := ownServer(t)
	s, err := Open(t.Context(), srv.url("postgres"), Options{Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	closes := mustOpen(t, srv.url("postgres"))
	closes.patience = time.Second
	cachetest.Put(t, closes, cachetest.NewEntry("example.com")) // creates the tables, which takes longer than s waits
	cachetest.Put(t, s, cachetest.NewEntry("example.com"))
	srv.signal(syscall.SIGSTOP)
	defer srv.signal(syscall.SIGCONT)
	for round := range 2 {
		ctx := t.Context()
		if round == 1 {
			short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
			defer cancel()
			ctx = short
		}
		var wg sync.WaitGroup
		for range 12 { // more than there are connections
			wg.Go(func() {
				_, err := s.Get(ctx, "example.com")
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Get = %v, want DeadlineExceeded", err)
				}
				wantError(t, err, "postgres: get: ", "deadline exceeded")
			})
			wg.Go(func() {
				if err := s.Put(ctx, cachetest.NewEntry("example.org")); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Put = %v, want DeadlineExceeded", err)
				}
			})
		}
		cachetest.Within(t, "calls", wg.Wait)
	}
	canceled, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if err := closes.Put(canceled, cachetest.NewEntry("example.com")); !errors.Is(err, context.Canceled) {
		t.Errorf("Put = %v, want Canceled", err)
	}
	cachetest.Within(t, "Close", func() { _ = closes.Close() })
	srv.signal(syscall.SIGCONT)
	for range 300 {
		if _, err = s.Get(t.Context(), "example.com"); err == nil {
			break
		}
	}
	if err != nil {
		t.Errorf("afterwards, Get = %v", err)
	}
	cachetest.Within(t, "Close", func() { _ = s.Close() })
}

// TestUnreachable: without a server Open succeeds, and each call says why it
// fails, without the password.
func TestUnreachable(t *testing.T) {
	s := mustOpen(t, "postgres://somebody:hunter2@/db?host=/nonexistent&sslmode=disable")
	_, getErr := s.Get(t.Context(), "example.com")
	_, dueErr := s.Due(t.Context(), time.Now(), time.Hour, 1)
	_, claimErr := s.Claim(t.Context(), "example.com", time.Hour)
	errs := []error{getErr, dueErr, claimErr, s.Put(t.Context(), cachetest.NewEntry("example.com")), s.Touch(t.Context(), map[string]time.Time{"example.com": time.Now()}),
		s.Delete(t.Context(), "example.com"), s.Release(t.Context(), "example.com"), s.Ping(t.Context())}
	for _, err := range s.All(t.Context()) {
		errs = append(errs, err)
	}
	if len(errs) != 9 {
		t.Errorf("%d errors, want that of All too", len(errs))
	}
	for _, err := range errs {
		wantError(t, err, "/nonexistent")
		if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%v", err)
		}
	}
}

// TestTooManyConnections: where the server takes no more connections, calls
// fail and say so, what has a connection works, and all does once there is room.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	role := "role_" + d.name
	d.exec(t, "CREATE ROLE "+role+" LOGIN CONNECTION LIMIT 2", "GRANT CREATE ON DATABASE "+d.name+" TO "+role)
	busy := mustOpen(t, d.as(role)+"&pool_max_conns=1")
	cachetest.Put(t, busy, cachetest.NewEntry("example.com"))
	l := watch(t, busy) // a second connection
	late := mustOpen(t, d.as(role))
	_, err := late.Get(t.Context(), "example.com")
	wantError(t, err, "too many connections for role")
	lw := &listener{}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { late.Watch(ctx, lw.changed) })
	defer wg.Wait()
	defer cancel()
	cachetest.Put(t, busy, cachetest.NewEntry("example.org"))
	l.wait(t, "example.org")
	if lw.has("") {
		t.Error("a Watch without a connection tells of something")
	}
	d.exec(t, "ALTER ROLE "+role+" CONNECTION LIMIT 3")
	lw.wait(t, "")
	cachetest.Put(t, busy, cachetest.NewEntry("example.net"))
	lw.wait(t, "example.net")
}

// TestReadOnly: a server that takes no writes is named as such, and left for
// the one that does.
func TestReadOnly(t *testing.T) {
	d := newDatabase(t)
	s := mustOpen(t, d.url())
	cachetest.Put(t, s, cachetest.NewEntry("example.com"))
	d.exec(t, "ALTER DATABASE "+d.name+" SET default_transaction_read_only = on",
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
	s.pool.Reset()
	wantError(t, s.Ping(t.Context()), "read-only")
	wantError(t, s.Put(t.Context(), cachetest.NewEntry("example.com")), "read-only", "hint: is it a standby")
	writable := d.url("options=-c%20default_transaction_read_only%3Doff")
	if err := admin(t.Context(), writable, "ALTER DATABASE "+d.name+" RESET default_transaction_read_only"); err != nil {
		t.Fatal(err)
	}
	cachetest.Put(t, s, cachetest.NewEntry("example.com")) // with a new connection
}

// TestSeveralHosts: of several hosts the one is used that is there, and can be
// written to.
func TestSeveralHosts(t *testing.T) {
	readOnly := ownServer(t, "default_transaction_read_only=on")
	d := newDatabase(t)
	hosts := "/nonexistent," + readOnly.dir + "," + os.Getenv(envServer)
	s := mustOpen(t, urlOf(hosts, "postgres", "schema="+d.name))
	cachetest.Put(t, s, cachetest.NewEntry("example.com"))
	want(t, s, mustGet(t, s, "example.com"))
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}
