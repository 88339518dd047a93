package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrNewer is returned by every method of a Store if a later version of stsmap
// made the schema. The operator updates stsmap on this host, or gives it a schema
// of its own meanwhile.
var ErrNewer = errors.New("the schema is newer than this stsmap")

// stepFiles are 1.sql, 2.sql, …: each takes the schema to the next version. A
// published one is never changed.
//
//go:embed schema/*.sql
var stepFiles embed.FS

// recheck is how often the version of the schema is checked again, since
// another daemon may have been updated.
const recheck = time.Minute

// Setup returns SQL for an administrator of a database in which the role of the
// URL may not create a schema. The SQL creates the schema and its tables, and
// grants the role USAGE on the schema, and SELECT, INSERT, UPDATE and DELETE on
// the tables. Setup fails if the URL is wrong; it does not connect.
func Setup(url string) (string, error) {
	config, place, err := parse(url)
	if err != nil {
		return "", err
	}
	role := pgx.Identifier{config.ConnConfig.User}.Sanitize()
	const grants = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %[1]s TO %[2]s;\n"
	return "BEGIN;\n" + tables(place.schema) +
		fmt.Sprintf("GRANT USAGE ON SCHEMA %[1]s TO %[2]s;\n"+grants+"COMMIT;\n", pgx.Identifier{place.schema}.Sanitize(), role), nil
}

// tables returns the SQL that creates the schema and its tables.
func tables(schema string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE SCHEMA %s;\n\n", pgx.Identifier{schema}.Sanitize())
	for i, step := range steps() {
		fmt.Fprintf(&b, "%s\nINSERT INTO stsmap.version (version) VALUES (%d);\n", step, i+1)
	}
	return inSchema(schema, b.String())
}

func steps() []string {
	var all []string
	for {
		text, err := stepFiles.ReadFile(fmt.Sprintf("schema/%d.sql", len(all)+1))
		if err != nil {
			return all
		}
		all = append(all, string(text))
	}
}

// in returns a statement for the schema of this Store. Statements are written for
// a schema called stsmap.
func (s *Store) in(sql string) string { return inSchema(s.place.schema, sql) }

// inSchema quotes the name of the schema, since it may be a keyword of SQL.
func inSchema(schema, sql string) string {
	if schema == defaultSchema {
		return sql
	}
	return strings.ReplaceAll(sql, defaultSchema+".", pgx.Identifier{schema}.Sanitize()+".")
}

// ready returns nil once the schema is there and has the right version.
func (s *Store) ready(ctx context.Context) error {
	if s.good() {
		return nil
	}
	select {
	case s.gate <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.gate }()
	if s.good() {
		return nil
	}
	if err := prepare(ctx, s.pool, s.place.schema, steps()); err != nil {
		s.invalidate()
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checked = time.Now()
	return nil
}

func (s *Store) good() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.checked.IsZero() && time.Since(s.checked) < recheck
}

// invalidate makes the next call check the schema.
func (s *Store) invalidate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checked = time.Time{}
}

// A querier is a connection, a pool or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// A database is a connection or a pool.
type database interface {
	querier
	BeginTx(context.Context, pgx.TxOptions) (pgx.Tx, error)
}

// prepare takes the schema through the steps that it has not taken.
func prepare(ctx context.Context, db database, schema string, steps []string) error {
	// The version first: a role with few rights may do no more.
	version, err := versionOf(ctx, db, schema)
	if state := sqlState(err); state == "3F000" || state == "42P01" {
		version, err = 0, nil
	}
	if err == nil && version < len(steps) {
		// With a stricter isolation, which may be the server's default, a daemon
		// that waited for the lock would not see the steps taken meanwhile.
		err = pgx.BeginTxFunc(ctx, db, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
			version, err = migrate(ctx, tx, schema, steps)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("schema %s: %w", schema, err)
	}
	if version > len(steps) {
		return fmt.Errorf("schema %s: %w: version %d, not %d (hint: update stsmap on this host, or add schema=NAME to the URL)",
			schema, ErrNewer, version, len(steps))
	}
	return nil
}

const sqlVersion = `SELECT coalesce(max(version), 0) FROM stsmap.version`

func versionOf(ctx context.Context, db querier, schema string) (version int, err error) {
	err = db.QueryRow(ctx, inSchema(schema, sqlVersion)).Scan(&version)
	return version, err
}

const (
	sqlLock  = `SELECT pg_advisory_xact_lock(hashtextextended('stsmap schema ' || $1::text, 0))`
	sqlThere = `SELECT to_regnamespace($1::text) IS NOT NULL, to_regclass($1::text || '.version') IS NOT NULL`
	sqlStep  = `INSERT INTO stsmap.version (version) VALUES ($1::integer)`
)

// migrate takes the remaining steps, while other daemons wait, and returns the
// version of the schema.
func migrate(ctx context.Context, tx pgx.Tx, schema string, steps []string) (version int, err error) {
	if _, err := tx.Exec(ctx, sqlLock, schema); err != nil {
		return 0, err
	}
	var hasSchema, hasVersion bool
	if err := tx.QueryRow(ctx, sqlThere, schema).Scan(&hasSchema, &hasVersion); err != nil {
		return 0, err
	}
	// IF NOT EXISTS would need the right to create schemas even if an
	// administrator made an empty one for the role.
	if !hasSchema {
		if _, err := tx.Exec(ctx, "CREATE SCHEMA "+pgx.Identifier{schema}.Sanitize()); err != nil {
			return 0, err
		}
	}
	if hasVersion {
		if version, err = versionOf(ctx, tx, schema); err != nil {
			return 0, err
		}
	}
	for version < len(steps) {
		if _, err := tx.Exec(ctx, inSchema(schema, steps[version])); err != nil {
			return 0, fmt.Errorf("step %d: %w", version+1, err)
		}
		version++
		if _, err := tx.Exec(ctx, inSchema(schema, sqlStep), version); err != nil {
			return 0, err
		}
	}
	return version, nil
}
