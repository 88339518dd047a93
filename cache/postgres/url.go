package postgres

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"stsmap/cache/storeurl"
)

const (
	defaultSchema   = "stsmap"
	defaultMaxConns = 8
	connectTimeout  = 5 * time.Second
)

// A place is where in the database the store is, and whether Watch listens.
type place struct {
	schema string
	listen bool
}

// channel is the name of the channel of changes.
func (p place) channel() string { return p.schema + "_changes" }

// CheckURL returns what is wrong with a URL, or nil; it does not connect. Its
// errors never contain a password.
//
// A URL is as the library pgx reads it (pgxpool.ParseConfig), and as libpq does:
// postgres:// or postgresql://, one host or several, a TCP port or the directory
// of a socket as host, libpq's parameters (sslmode, sslrootcert,
// target_session_attrs, connect_timeout, application_name, options, …) and
// environment variables (PGPASSFILE, …), and pgx's parameters, among them
// pool_max_conns (default 8) and default_query_exec_mode, which must be exec
// behind a pooler that does not keep prepared statements. Parameters of this
// package are:
//
//   - schema, of the tables: lower-case letters, digits and "_"; default stsmap.
//   - listen, yes or no: whether to keep a connection that listens for changes.
//     With no, which is right behind a pooler that hands out connections for
//     single transactions, Watch has no hints.
//
// Unknown parameters are errors; the driver would send them to the server. With
// several hosts and no target_session_attrs, the one that takes writes is used.
func CheckURL(url string) error {
	_, _, err := parse(url)
	return err
}

// parse reads the URL.
func parse(text string) (*pgxpool.Config, place, error) {
	p := place{schema: defaultSchema}
	u, err := storeurl.Parse(text)
	if err != nil {
		return nil, p, fmt.Errorf("postgres: URL: %w", err)
	}
	config, err := p.read(u)
	if err != nil {
		return nil, p, fmt.Errorf("postgres: URL: %w", u.Redact(err))
	}
	return config, p, nil
}

// read reads u. Its errors may have a password.
func (p *place) read(u *storeurl.URL) (*pgxpool.Config, error) {
	if u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, fmt.Errorf("unknown scheme %q; must be postgres or postgresql", u.Scheme)
	}
	if u.Params.Has("schema") {
		p.schema = u.Take("schema")
	}
	if !isName(p.schema) {
		return nil, fmt.Errorf("invalid schema %q; must be up to 40 lower-case letters, digits and _, a letter first, and not pg_", p.schema)
	}
	listen := u.Take("listen")
	if p.listen = listen != "no"; p.listen && listen != "yes" && listen != "" {
		return nil, fmt.Errorf("invalid listen %q; must be yes or no", listen)
	}
	switch attrs := u.Params.Get("target_session_attrs"); attrs {
	case "", "any", "read-write", "primary":
	default:
		return nil, fmt.Errorf("invalid target_session_attrs %q; must be read-write, primary or any, for a store has to be written to", attrs)
	}
	config, err := pgxpool.ParseConfig(u.String())
	if err != nil {
		return nil, withoutURL(err)
	}
	return config, complete(config, u)
}

// withoutURL returns err without the URL that the driver puts in front of it.
func withoutURL(err error) error {
	text := err.Error()
	if i := strings.LastIndex(text, "`: "); i >= 0 {
		return errors.New(text[i+len("`: "):])
	}
	return err
}

// isName reports whether a schema may have this name.
func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != "" && len(s) <= 40 && !strings.HasPrefix(s, "pg_")
}

// complete sets what the URL does not, and refuses what the driver does not know.
func complete(config *pgxpool.Config, u *storeurl.URL) error {
	conn := config.ConnConfig
	for name := range u.Params {
		switch _, unknown := conn.RuntimeParams[name]; {
		case name == "application_name" || name == "options" || !unknown:
		case name == "ssl":
			return errors.New("ssl must be true (hint: use sslmode)")
		default:
			return fmt.Errorf("unknown parameter %q (hint: settings of the server go into options=-c%%20name%%3Dvalue)", name)
		}
	}
	if !u.Params.Has("pool_max_conns") {
		config.MaxConns = defaultMaxConns
	}
	if conn.ConnectTimeout == 0 {
		conn.ConnectTimeout = connectTimeout
	}
	if conn.RuntimeParams["application_name"] == "" {
		conn.RuntimeParams["application_name"] = "stsmap"
	}
	several := false
	for _, f := range conn.Fallbacks {
		several = several || f.Host != conn.Host || f.Port != conn.Port
	}
	if several && conn.ValidateConnect == nil {
		conn.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	return nil
}
