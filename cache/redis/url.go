package redis

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	defaultPrefix = "stsmap"
	serverPort    = "6379"
	sentinelPort  = "26379"
	dialTimeout   = 2 * time.Second
	ioTimeout     = 3 * time.Second
	poolSize      = 16
)

// A place is what a URL says.
type place struct {
	kind             string // "", "sentinel", "cluster" or "unix"
	tls              bool
	user, password   string
	addrs            []string // a path for kind "unix"
	master           string   // for Sentinel
	db               int
	prefix           string
	ca, cert, key    string // files
	serverName       string
	sentinelUser     string
	sentinelPassword string
}

// CheckURL returns what is wrong with a URL, or nil; it does not connect. Its
// errors never contain a password.
//
//	redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]                     one server
//	redis+unix:///PATH                                             the same, on this host
//	redis+sentinel://[USER:PASSWORD@]HOST[:PORT],…/MASTER[/DB]     the master that Sentinel knows
//	redis+cluster://[USER:PASSWORD@]HOST[:PORT],…                  a Cluster, found by any of its nodes
//
// "rediss" instead of "redis" is TLS. The parameters are:
//
//   - prefix, of all keys: letters, digits, "-", "_" and "."; default stsmap.
//   - db, the number of the database, for redis+unix.
//   - ca_file, the trust anchors for TLS; default: the system's.
//   - cert_file and key_file, a client certificate.
//   - server_name, the name in the server's certificate, if it is not HOST.
//   - sentinel_username and sentinel_password, for the Sentinels themselves.
func CheckURL(text string) error {
	_, err := parse(text)
	return err
}

// wrong is an error about a URL, which has no part of it that may be a password.
func wrong(format string, args ...any) error {
	return fmt.Errorf("redis: URL: "+format, args...)
}

func parse(text string) (*place, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return nil, wrong("want redis://HOST")
	}
	p := &place{prefix: defaultPrefix}
	base, kind, _ := strings.Cut(scheme, "+")
	p.kind, p.tls = kind, base == "rediss"
	if base != "redis" && base != "rediss" || !slices.Contains([]string{"", "sentinel", "cluster", "unix"}, kind) || strings.HasSuffix(scheme, "+") {
		return nil, wrong("%q is no scheme; want redis, rediss, and +sentinel, +cluster or +unix after it", scheme)
	}
	if strings.Contains(rest, "#") {
		return nil, wrong("what follows # has no meaning; in a password it is written %%23")
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	if err := p.authority(authority); err != nil {
		return nil, err
	}
	if err := p.path(path); err != nil {
		return nil, err
	}
	if err := p.parameters(query); err != nil {
		return nil, err
	}
	if (p.cert == "") != (p.key == "") {
		return nil, wrong("cert_file and key_file belong together")
	}
	if !p.tls && (p.ca != "" || p.cert != "" || p.serverName != "") {
		return nil, wrong("ca_file, cert_file, key_file and server_name are for rediss")
	}
	return p, nil
}

// authority reads what stands before the path: who and where.
func (p *place) authority(text string) error {
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		user, password, both := strings.Cut(text[:at], ":")
		var err, err2 error
		p.user, err = url.PathUnescape(user)
		p.password, err2 = url.PathUnescape(password)
		if err != nil || err2 != nil {
			return wrong("user or password has a %% that is none of %%XX")
		}
		if !both {
			return wrong("what stands before the @ has no password; want USER:PASSWORD@ or :PASSWORD@")
		}
		text = text[at+1:]
	}
	if p.kind == "unix" {
		if text != "" {
			return wrong("redis+unix has no host; want redis+unix:///PATH")
		}
		return nil
	}
	port := serverPort
	if p.kind == "sentinel" {
		port = sentinelPort
	}
	for one := range strings.SplitSeq(text, ",") {
		host, own, err := net.SplitHostPort(one)
		if err != nil {
			host, own = strings.TrimSuffix(strings.TrimPrefix(one, "["), "]"), port
		}
		if n, err := strconv.ParseUint(own, 10, 16); err != nil || n == 0 {
			return wrong("%q is no port", own)
		}
		if host == "" || strings.ContainsAny(host, " []@") {
			return wrong("%q is no host", host)
		}
		p.addrs = append(p.addrs, net.JoinHostPort(host, own))
	}
	if p.kind == "" && len(p.addrs) > 1 {
		return wrong("has several hosts; want redis+sentinel or redis+cluster")
	}
	return nil
}

// path reads what stands before the parameters.
func (p *place) path(text string) error {
	switch p.kind {
	case "unix":
		if text == "" {
			return wrong("redis+unix has no path")
		}
		path, err := url.PathUnescape(text)
		if err != nil {
			return wrong("the path has a %% that is none of %%XX")
		}
		p.addrs = []string{"/" + path}
		return nil
	case "cluster":
		if text != "" {
			return wrong("a Cluster has no databases to choose from")
		}
		return nil
	case "sentinel":
		p.master, text, _ = strings.Cut(text, "/")
		if p.master == "" {
			return wrong("has no name of a master; want redis+sentinel://HOST,HOST/MASTER")
		}
	}
	return p.database(text)
}

func (p *place) database(text string) error {
	if text == "" {
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return wrong("%q is no number of a database", text)
	}
	p.db = int(n)
	return nil
}

// parameters reads what follows the question mark.
func (p *place) parameters(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return wrong("the parameters cannot be read")
	}
	for name, all := range values {
		if len(all) > 1 {
			return wrong("%q is there twice", name)
		}
		value := all[0]
		switch name {
		case "prefix":
			if value == "" || strings.Trim(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
				return wrong("prefix %q is not made of letters, digits, - , _ and .", value)
			}
			p.prefix = value
		case "db":
			if p.kind != "unix" {
				return wrong("db is for redis+unix; elsewhere the database stands in the path")
			}
			if err := p.database(value); err != nil {
				return err
			}
		case "ca_file":
			p.ca = value
		case "cert_file":
			p.cert = value
		case "key_file":
			p.key = value
		case "server_name":
			p.serverName = value
		case "sentinel_username":
			p.sentinelUser = value
		case "sentinel_password":
			p.sentinelPassword = value
		default:
			return wrong("%q is no parameter", name)
		}
		if strings.HasPrefix(name, "sentinel_") && p.kind != "sentinel" {
			return wrong("%s is for redis+sentinel", name)
		}
	}
	return nil
}

// clients makes the driver's clients: one for calls, and one to watch with,
// which must not try again by itself, for then nobody would know that the
// server was another one meanwhile. Neither connects.
func (p *place) clients() (calls, watch redis.UniversalClient, err error) {
	secure, err := p.config()
	if err != nil {
		return nil, nil, err
	}
	const never = -1
	return p.client(secure, 1), p.client(secure, never), nil
}

func (p *place) client(secure *tls.Config, retries int) redis.UniversalClient {
	o := &redis.UniversalOptions{
		Addrs: p.addrs, DB: p.db, Username: p.user, Password: p.password, TLSConfig: secure,
		DialTimeout: dialTimeout, ReadTimeout: ioTimeout, WriteTimeout: ioTimeout, ContextTimeoutEnabled: true,
		PoolSize: poolSize, MaxRetries: retries, ClientName: "stsmap", DisableIdentity: true,
		MasterName: p.master, SentinelUsername: p.sentinelUser, SentinelPassword: p.sentinelPassword,
	}
	switch p.kind {
	case "sentinel":
		return redis.NewFailoverClient(o.Failover())
	case "cluster":
		return redis.NewClusterClient(o.Cluster())
	}
	simple := o.Simple()
	if p.kind == "unix" {
		simple.Network = "unix"
	}
	return redis.NewClient(simple)
}

// config is for TLS; nil is none.
func (p *place) config() (*tls.Config, error) {
	if !p.tls {
		return nil, nil
	}
	c := &tls.Config{ServerName: p.serverName, MinVersion: tls.VersionTLS12}
	if p.ca != "" {
		bundle, err := os.ReadFile(p.ca)
		if err != nil {
			return nil, fmt.Errorf("redis: ca_file: %w", err)
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(bundle) {
			return nil, fmt.Errorf("redis: ca_file: %s: no certificate in it; PEM is needed", p.ca)
		}
	}
	if p.cert != "" {
		pair, err := tls.LoadX509KeyPair(p.cert, p.key)
		if err != nil {
			return nil, fmt.Errorf("redis: cert_file: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
