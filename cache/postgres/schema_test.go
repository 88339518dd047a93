package postgres

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"stsmap/cache"
	"stsmap/cache/cachetest"
)

// TestTogether: ten daemons start on an empty database at the same time.
func TestTogether(t *testing.T) {
	for _, isolation := range []string{"read committed", "serializable"} {
		d := newDatabase(t)
		d.exec(t, fmt.Sprintf("ALTER DATABASE %s SET default_transaction_isolation = '%s'", d.name, isolation))
		var wg sync.WaitGroup
		for i := range 10 {
			s := mustOpen(t, d.url("pool_max_conns=2"))
			wg.Go(func() {
				for j := range 3 {
					if err := s.Put(t.Context(), cachetest.NewEntry(fmt.Sprintf("%d.%d.example", i, j))); err != nil {
						t.Errorf("%s: Put: %v", isolation, err)
					}
				}
			})
		}
		wg.Wait()
		if n := d.query(t, "SELECT count(*) FROM stsmap.entries"); n != "30" {
			t.Errorf("%s: %s entries, want 30", isolation, n)
		}
		if n := d.query(t, "SELECT count(*) FROM stsmap.version"); n != fmt.Sprint(len(steps())) {
			t.Errorf("%s: %s steps taken, want each once", isolation, n)
		}
	}
}

// TestNewer: a schema of a later version is left alone, and every call says so,
// also those of a daemon that was running when it was made.
func TestNewer(t *testing.T) {
	d := newDatabase(t)
	s := mustOpen(t, d.url())
	cachetest.Put(t, s, cachetest.NewEntry("example.com"))
	d.exec(t, "INSERT INTO stsmap.version (version) VALUES (99)")
	s.invalidate() // for what a minute would do
	for _, s := range []*Store{s, mustOpen(t, d.url())} {
		_, getErr := s.Get(t.Context(), "example.com")
		_, claimErr := s.Claim(t.Context(), "example.com", 1)
		for _, err := range []error{getErr, claimErr, s.Put(t.Context(), cachetest.NewEntry("example.com")), s.Ping(t.Context())} {
			wantError(t, err, "version 99, not 1", "hint: update stsmap")
			if !errors.Is(err, ErrNewer) {
				t.Errorf("%v is not ErrNewer", err)
			}
		}
	}
	d.exec(t, "DELETE FROM stsmap.version WHERE version = 99")
	want(t, s, mustGet(t, s, "example.com"))
}

func mustGet(t *testing.T, s *Store, domain string) cache.Entry {
	t.Helper()
	e, err := s.Get(t.Context(), domain)
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	return e
}

// TestSteps: steps are taken from where the schema is, each once; one that
// fails leaves nothing behind.
func TestSteps(t *testing.T) {
	d := newDatabase(t)
	conn, err := pgx.Connect(t.Context(), d.url())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	first := "CREATE TABLE stsmap.version (version integer PRIMARY KEY); CREATE TABLE stsmap.one ()"
	second := "CREATE TABLE stsmap.two (); CREATE TABLE stsmap.three ()"
	broken := "CREATE TABLE stsmap.four (); CREATE TABLE stsmap.one ()"
	for _, c := range []struct {
		steps  []string
		tables string
		fails  bool
	}{
		{[]string{first}, "one", false},
		{[]string{first}, "one", false},
		{[]string{first, second, broken}, "one", true},
		{[]string{first, second}, "one,three,two", false},
		{[]string{first}, "one,three,two", true}, // which is newer now
	} {
		err := prepare(t.Context(), conn, "mail_cache", c.steps)
		if (err != nil) != c.fails {
			t.Errorf("%d steps: %v", len(c.steps), err)
		}
		if err != nil && !strings.Contains(err.Error(), "mail_cache") {
			t.Errorf("%v does not name the schema", err)
		}
		tables := d.query(t, `SELECT string_agg(tablename, ',' ORDER BY tablename) FROM pg_tables
			WHERE schemaname = 'mail_cache' AND tablename <> 'version'`)
		if tables != c.tables {
			t.Errorf("%d steps: tables %s, want %s", len(c.steps), tables, c.tables)
		}
	}
}

// TestRights: what roles may do to the database, and what a store can do then.
func TestRights(t *testing.T) {
	grants := `GRANT USAGE ON SCHEMA stsmap TO %[1]s; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA stsmap TO %[1]s`
	for _, c := range []struct {
		name, sql string
		errors    []string // of Ping; none: all works
	}{
		{"none", "", []string{"schema stsmap", "permission denied", "hint: let an administrator"}},
		{"may create schemas", "GRANT CREATE ON DATABASE %[2]s TO %[1]s", nil},
		{"has an empty schema", "CREATE SCHEMA stsmap AUTHORIZATION %[1]s", nil},
		{"has tables without rights", tables(defaultSchema) + "GRANT USAGE ON SCHEMA stsmap TO %[1]s; GRANT SELECT ON stsmap.version TO %[1]s",
			[]string{"lacks rights", "INSERT on stsmap.entries", "SELECT on stsmap.claims", "hint: "}},
		{"may not delete", tables(defaultSchema) + grants + "; REVOKE DELETE ON stsmap.claims FROM %[1]s", []string{"lacks rights: DELETE on stsmap.claims (hint"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDatabase(t)
			role := "role_" + d.name
			d.exec(t, "CREATE ROLE "+role+" LOGIN")
			if c.sql != "" {
				d.exec(t, strings.NewReplacer("%[1]s", role, "%[2]s", d.name).Replace(c.sql))
			}
			s := mustOpen(t, d.as(role))
			err := s.Ping(t.Context())
			if c.errors != nil {
				wantError(t, err, c.errors...)
				return
			}
			if err != nil {
				t.Fatalf("Ping: %v", err)
			}
			useAll(t, s)
		})
	}
}

// TestSetup: with what is printed, a role that may not create a schema can do
// everything.
func TestSetup(t *testing.T) {
	for _, schema := range []string{"", "&schema=site_policies", "&schema=user"} {
		d := newDatabase(t)
		role := "Role " + d.name
		d.exec(t, "CREATE ROLE "+pgx.Identifier{role}.Sanitize()+" LOGIN")
		url := d.as("Role%20"+d.name) + schema
		sql, err := Setup(url)
		if err != nil {
			t.Fatal(err)
		}
		d.exec(t, sql)
		s := mustOpen(t, url)
		if err := s.Ping(t.Context()); err != nil {
			t.Errorf("%s: %v", url, err)
		}
		useAll(t, s)
	}
	if sql, err := Setup("postgres://u:secret@h/d?schema=1;drop"); err == nil || sql != "" || strings.Contains(err.Error(), "secret") {
		t.Error(sql, err)
	}
}

// useAll calls every method that needs rights.
func useAll(t *testing.T, s *Store) {
	t.Helper()
	e := cachetest.NewEntry("example.com")
	cachetest.Put(t, s, e, e)
	want(t, s, e)
	_, dueErr := s.Due(t.Context(), e.Refresh, 1, 1)
	_, claimErr := s.Claim(t.Context(), "example.org", 1)
	err := errors.Join(dueErr, claimErr, s.sweep(t.Context(), e.Expires), s.Release(t.Context(), "example.org"),
		s.Touch(t.Context(), map[string]time.Time{e.Domain: e.Used.Add(1e12)}), s.Delete(t.Context(), e.Domain))
	for _, allErr := range s.All(t.Context()) {
		err = errors.Join(err, allErr)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestSchemaRemoved: a running daemon makes the tables again if they, or the
// database, are replaced by nothing.
func TestSchemaRemoved(t *testing.T) {
	d := newDatabase(t)
	s := mustOpen(t, d.url())
	cachetest.Put(t, s, cachetest.NewEntry("example.com"))
	d.exec(t, "DROP SCHEMA stsmap CASCADE")
	if err := s.Put(t.Context(), cachetest.NewEntry("example.com")); err == nil {
		t.Error("Put without a table succeeded")
	}
	cachetest.Put(t, s, cachetest.NewEntry("example.org"))
	wantNone(t, s, "example.com")
}

// TestSchemas: two stores in one database do not know of each other.
func TestSchemas(t *testing.T) {
	d := newDatabase(t)
	a, b := mustOpen(t, d.url()), mustOpen(t, d.url("schema=other"))
	cachetest.Put(t, a, cachetest.NewEntry("example.com"))
	wantNone(t, b, "example.com")
	cachetest.Put(t, b, cachetest.NewEntry("example.org"))
	wantNone(t, a, "example.org")
	if ok, err := a.Claim(t.Context(), "example.net", 1e12); !ok || err != nil {
		t.Error(ok, err)
	}
	if ok, err := b.Claim(t.Context(), "example.net", 1e12); !ok || err != nil {
		t.Error(ok, err)
	}
}
