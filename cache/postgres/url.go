package postgres

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	defaultSchema   = "stsmap"
	defaultMaxConns = 8
	connectTimeout  = 5 * time.Second
)

// A place is where in the database the store is, and how to hear of changes.
type place struct {
	schema string
	listen bool
}

// channel is what NOTIFY and LISTEN call the store.
func (p place) channel() string { return p.schema + "_changes" }

// CheckURL returns what is wrong with a URL, without connecting, or nil. Its
// errors never contain the password.
//
// A URL is as libpq understands it, postgres:// or postgresql://, with one host
// or several, a TCP port or the directory of a socket as host, and its
// parameters (sslmode, sslrootcert, target_session_attrs, connect_timeout,
// application_name, options, …), those of environment (PGPASSFILE and others),
// and those of the driver, pgx: pool_max_conns, 8 unless said otherwise, and
// default_query_exec_mode, which is exec behind a pooler that does not keep
// prepared statements. Ours are:
//
//   - schema, of the tables: lower-case letters, digits and "_"; default stsmap.
//   - listen, yes or no: whether to keep a connection that hears of changes at
//     once. With no, which is right behind a pooler that hands out connections
//     for single transactions, changes are asked for every two seconds alone.
//
// Unknown parameters are errors, where libpq has none of its own and the driver
// would send them to the server. With several hosts, and no
// target_session_attrs, the one is used that takes writes.
func CheckURL(url string) error {
	_, _, err := parse(url)
	return err
}

// A urlError says what is wrong with a URL. Its text is a constant, or was
// looked through for the password.
type urlError string

func (e urlError) Error() string { return "postgres: URL: " + string(e) }

// parse reads the URL.
func parse(text string) (*pgxpool.Config, place, error) {
	secrets, params, err := split(text)
	if err != nil {
		return nil, place{}, err
	}
	place, err := ours(params)
	if err == nil {
		err = checkParams(params)
	}
	var config *pgxpool.Config
	if err == nil {
		config, err = pgxpool.ParseConfig(text)
	}
	if err == nil {
		err = complete(config, params)
	}
	if err != nil {
		return nil, place, censor(err, secrets)
	}
	return config, place, nil
}

// split takes the URL apart as far as is needed to know what of it is secret,
// and refuses it where that is not certain: with a raw @, / or ? in a password,
// a part of it may end up as the name of a host or of a database, and as such in
// errors and questions to the DNS.
func split(text string) (secrets []string, params map[string]string, err error) {
	rest, ok := strings.CutPrefix(text, "postgresql://")
	if !ok {
		if rest, ok = strings.CutPrefix(text, "postgres://"); !ok {
			return nil, nil, urlError("does not begin with postgres:// or postgresql://")
		}
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		user := rest[:i]
		if strings.ContainsAny(user, "@/?# ") {
			return nil, nil, urlError("an @ that does not end the password, or one of / ? # @ and space before it (hint: within a password write %40 %2F %3F %23 %20)")
		}
		rest = rest[i+1:]
		_, password, _ := strings.Cut(user, ":")
		secrets = append(secrets, password)
	}
	_, query, _ := strings.Cut(rest, "?")
	params = make(map[string]string)
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		rawKey, rawValue, ok := strings.Cut(pair, "=")
		key, keyErr := url.PathUnescape(rawKey)
		value, valueErr := url.PathUnescape(rawValue)
		if !ok || keyErr != nil || valueErr != nil {
			return nil, nil, urlError("a parameter that is not name=value, or with a % that is not followed by two hexadecimal digits")
		}
		if key == "password" || key == "sslpassword" {
			secrets = append(secrets, rawValue)
		}
		if _, twice := params[key]; twice {
			return nil, nil, censor(fmt.Errorf("parameter %q is given twice", key), secrets)
		}
		params[key] = value
	}
	return secrets, params, nil
}

// ours reads the parameters that are not the driver's.
func ours(params map[string]string) (place, error) {
	p := place{schema: defaultSchema, listen: true}
	if schema, ok := params["schema"]; ok {
		if !isName(schema) {
			return p, fmt.Errorf("schema=%s: want up to 40 lower-case letters, digits and _, a letter first, and not pg_", schema)
		}
		p.schema = schema
	}
	switch v, ok := params["listen"]; {
	case !ok || v == "yes":
	case v == "no":
		p.listen = false
	default:
		return p, fmt.Errorf("listen=%s: want yes or no", v)
	}
	return p, nil
}

// isName reports whether a schema can have this name without quotes.
func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != "" && len(s) <= 40 && !strings.HasPrefix(s, "pg_") && !isReserved(s)
}

// isReserved reports whether the server would take a name for a word of SQL:
// those of PostgreSQL 15's list that are not names of anything.
func isReserved(s string) bool {
	const words = ` all analyse analyze and any array as asc asymmetric authorization binary both case cast check
 collate collation column concurrently constraint create cross current_catalog current_date current_role
 current_schema current_time current_timestamp current_user default deferrable desc distinct do else end except
 false fetch for foreign freeze from full grant group having ilike in initially inner intersect into is isnull
 join lateral leading left like limit localtime localtimestamp natural not notnull null offset on only or order
 outer overlaps placing primary references returning right select session_user similar some symmetric table
 tablesample then to trailing true union unique user using variadic verbose when where window with `
	return strings.Contains(strings.ReplaceAll(words, "\n", " "), " "+s+" ")
}

// checkParams refuses what neither we nor the driver know.
func checkParams(params map[string]string) error {
	for key, value := range params {
		switch key {
		case "schema", "listen", "ssl",
			"host", "port", "dbname", "user", "password", "passfile", "connect_timeout", "service", "servicefile",
			"sslmode", "sslkey", "sslcert", "sslcertmode", "sslrootcert", "sslpassword", "sslsni", "sslnegotiation",
			"krbspn", "krbsrvname", "channel_binding", "require_auth",
			"min_protocol_version", "max_protocol_version", "application_name", "options",
			"default_query_exec_mode", "statement_cache_capacity", "description_cache_capacity",
			"pool_max_conns", "pool_min_conns", "pool_min_idle_conns", "pool_max_conn_lifetime",
			"pool_max_conn_lifetime_jitter", "pool_max_conn_idle_time", "pool_health_check_period", "pool_ping_timeout":
		case "target_session_attrs":
			switch value {
			case "any", "read-write", "primary":
			default:
				return fmt.Errorf("target_session_attrs=%s: want read-write, primary or any, for a store has to be written to", value)
			}
		default:
			return fmt.Errorf("unknown parameter %q (hint: settings of the server go into options=-c%%20name%%3Dvalue)", key)
		}
	}
	return nil
}

// complete sets what the URL does not.
func complete(config *pgxpool.Config, params map[string]string) error {
	conn := config.ConnConfig
	delete(conn.RuntimeParams, "schema")
	delete(conn.RuntimeParams, "listen")
	if _, ok := conn.RuntimeParams["ssl"]; ok {
		return errors.New("ssl is other than true (hint: use sslmode)")
	}
	if _, ok := params["pool_max_conns"]; !ok {
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

// censor makes the error that people see. The driver's quotes the URL, with the
// password struck out as best it can; here all of the URL is left out, and all
// of the text if there is a part of a password in it in spite of that.
func censor(err error, secrets []string) error {
	text := err.Error()
	if _, ok := errors.AsType[*pgconn.ParseConfigError](err); ok {
		if i := strings.LastIndex(text, "`: "); i >= 0 {
			text = text[i+len("`: "):]
		}
	}
	for _, secret := range secrets {
		decoded, err := url.PathUnescape(secret)
		if secret != "" && (strings.Contains(text, secret) || err == nil && strings.Contains(text, decoded)) {
			return urlError("not understood, and what is wrong cannot be said without the password")
		}
	}
	return urlError(text)
}
