package redis

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/redis/go-redis/v9"

	"stsmap/cache/storeurl"
)

const (
	defaultPrefix = "stsmap"
	sentinelPort  = "26379"
)

// A place is what a URL says: one of three kinds of server, and whose keys.
type place struct {
	server   *redis.Options // nil, as all but one of these three
	sentinel *redis.FailoverOptions
	cluster  *redis.ClusterOptions

	user   string
	db     int
	prefix string
	tls    *tls.Config // nil: none
}

// CheckURL returns what is wrong with a URL, or nil; it does not connect. Its
// errors never contain a password. A URL is as the library go-redis reads it
// (ParseURL, ParseFailoverURL, ParseClusterURL), with more schemes:
//
//	redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]                          one server
//	redis+unix://[[USER]:PASSWORD@]/PATH[?db=DB]                        the same, on this host
//	redis+sentinel://[USER:PASSWORD@]HOST[:PORT][/DB]?master_name=NAME  the master that Sentinel knows
//	redis+cluster://[[USER]:PASSWORD@]HOST[:PORT]                       a Cluster, found by any of its nodes
//
// "rediss" instead of "redis" is TLS. Parameters of the library are, among
// others:
//
//   - addr=HOST:PORT, once for each further Sentinel or node.
//   - username and password of the master; those before the @ are for Sentinel.
//   - dial_timeout (default 2s), read_timeout and write_timeout (3s), pool_size
//     (16), max_retries (1).
//
// Parameters of this package are:
//
//   - prefix, of all keys: letters, digits, "-", "_" and "."; default stsmap.
//   - ca_file, the trust anchors for TLS; default: the system's.
//   - cert_file and key_file, a client certificate.
//   - server_name, the name in the server's certificate, if it is not HOST.
//
// Those that would read from a replica, which may be behind, or would trust any
// certificate, are refused.
func CheckURL(text string) error {
	_, err := parse(text)
	return err
}

func parse(text string) (*place, error) {
	u, err := storeurl.Parse(text, "addr")
	if err != nil {
		return nil, fmt.Errorf("redis: URL: %w", err)
	}
	p := &place{}
	if err := u.Redact(p.read(u)); err != nil {
		return nil, fmt.Errorf("redis: URL: %s", strings.TrimPrefix(err.Error(), "redis: "))
	}
	return p, nil
}

// read reads u. Its errors may have a password.
func (p *place) read(u *storeurl.URL) error {
	base, kind, _ := strings.Cut(u.Scheme, "+")
	if err := p.readOwn(u, base == "rediss"); err != nil {
		return err
	}
	scheme := u.Scheme
	if u.Scheme = base; kind == "unix" {
		u.Scheme = kind
	}
	plain, err := url.Parse(u.String())
	if err != nil {
		return err
	}
	if _, hasPassword := plain.User.Password(); plain.User != nil && !hasPassword {
		return errors.New("no password before the @; must be USER:PASSWORD@ or :PASSWORD@")
	}
	if strings.Contains(plain.Host, ",") {
		return errors.New("several hosts; must be one, and a parameter addr=HOST:PORT for each other")
	}
	switch scheme {
	case "redis", "rediss", "redis+unix":
		return p.readServer(u)
	case "redis+sentinel", "rediss+sentinel":
		return p.readSentinel(u, plain)
	case "redis+cluster", "rediss+cluster":
		return p.readCluster(u, plain)
	}
	return fmt.Errorf("unknown scheme %q; must be redis, redis+unix, redis+sentinel, redis+cluster, or rediss, rediss+sentinel, rediss+cluster for TLS", scheme)
}

func (p *place) readServer(u *storeurl.URL) error {
	o, err := redis.ParseURL(u.String())
	if err != nil {
		return err
	}
	o.TLSConfig, o.ContextTimeoutEnabled, o.DisableIdentity = p.tls, true, true
	p.server, p.user, p.db = o, o.Username, o.DB
	return nil
}

func (p *place) readSentinel(u *storeurl.URL, plain *url.URL) error {
	if u.Params.Get("master_name") == "" {
		return errors.New("no master_name; must be redis+sentinel://HOST:PORT?master_name=NAME")
	}
	o, err := redis.ParseFailoverURL(u.String())
	if err != nil {
		return err
	}
	if plain.Port() == "" { // the library takes that of a server
		o.SentinelAddrs[0] = net.JoinHostPort(plain.Hostname(), sentinelPort)
	}
	o.TLSConfig, o.ContextTimeoutEnabled, o.DisableIdentity = p.tls, true, true
	p.sentinel, p.user, p.db = o, o.Username, o.DB
	return nil
}

func (p *place) readCluster(u *storeurl.URL, plain *url.URL) error {
	if strings.Trim(plain.Path, "/") != "" {
		return errors.New("a Cluster has only one database; must be redis+cluster://HOST:PORT")
	}
	o, err := redis.ParseClusterURL(u.String())
	if err != nil {
		return err
	}
	o.TLSConfig, o.ContextTimeoutEnabled, o.DisableIdentity = p.tls, true, true
	p.cluster, p.user = o, o.Username
	return nil
}

// readOwn takes the parameters that are not the library's out of u, and adds our
// defaults to those that are.
func (p *place) readOwn(u *storeurl.URL, secure bool) error {
	p.prefix = defaultPrefix
	if u.Params.Has("prefix") {
		p.prefix = u.Take("prefix")
	}
	if p.prefix == "" || strings.Trim(p.prefix, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
		return fmt.Errorf("invalid prefix %q; must be letters, digits, dots, - and _", p.prefix)
	}
	for _, name := range []string{"skip_verify", "read_only", "replica_only", "use_disconnected_replicas", "route_by_latency", "route_by_latency_tolerance", "route_randomly"} {
		if u.Params.Has(name) {
			return fmt.Errorf("%s is not supported: a store must be authenticated, and must not be behind", name)
		}
	}
	for name, value := range map[string]string{
		"client_name": "stsmap", "dial_timeout": "2s", "read_timeout": "3s", "write_timeout": "3s", "pool_size": "16", "max_retries": "1",
	} {
		if !u.Params.Has(name) {
			u.Params.Set(name, value)
		}
	}
	name, ca, cert, key := u.Take("server_name"), u.Take("ca_file"), u.Take("cert_file"), u.Take("key_file")
	switch {
	case (cert == "") != (key == ""):
		return errors.New("cert_file and key_file belong together")
	case secure:
		return p.readTLS(name, ca, cert, key)
	case name+ca+cert != "":
		return errors.New("ca_file, cert_file, key_file and server_name are for rediss")
	}
	return nil
}

// readTLS reads the files for TLS. Without a name, that of each host is used.
func (p *place) readTLS(name, ca, cert, key string) error {
	p.tls = &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12}
	if ca != "" {
		bundle, err := os.ReadFile(ca)
		if err != nil {
			return fmt.Errorf("ca_file: %w", err)
		}
		if p.tls.RootCAs = x509.NewCertPool(); !p.tls.RootCAs.AppendCertsFromPEM(bundle) {
			return fmt.Errorf("ca_file: %s: no certificate found; must be PEM", ca)
		}
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return fmt.Errorf("cert_file: %w", err)
		}
		p.tls.Certificates = []tls.Certificate{pair}
	}
	return nil
}

// client returns a client for the server. It does not connect.
func (p *place) client() redis.UniversalClient {
	switch {
	case p.sentinel != nil:
		return redis.NewFailoverClient(p.sentinel)
	case p.cluster != nil:
		return redis.NewClusterClient(p.cluster)
	}
	return redis.NewClient(p.server)
}
