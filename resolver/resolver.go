// Package resolver asks recursive resolvers for the few record types that mail needs, and reports how
// far the answer can be trusted. That a name or a record does not exist is an answer; an error means
// that nothing was learned, and always is an [*Error].
//
// It does not iterate from the root, validate signatures, remember answers, sort addresses or
// MX hosts, read /etc/hosts or apply search lists: that is up to the recursive resolver, or the caller.
// It does not log.
package resolver

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	defaultTimeout  = 5 * time.Second
	defaultAttempts = 2
	defaultConf     = "/etc/resolv.conf"
)

// Config is which servers to ask, and for how long. The zero Config asks the servers of /etc/resolv.conf.
type Config struct {
	// Servers are asked in this order, those first whose AD bit counts (TrustAD). Each is an address with or without a port ("192.0.2.1",
	// "192.0.2.1:5353", "::1", "[::1]:5353", "fe80::1%eth0"), or "tls://ADDRESS[:PORT]#NAME" for DNS
	// over TLS (RFC 7858, Section 3.1), where the certificate must be valid for NAME, or for ADDRESS
	// if there is no "#NAME". Empty means those of ResolvConf.
	Servers []string

	// ResolvConf is the file whose nameserver lines are used, and read again when it changes, if
	// Servers is empty. "" means /etc/resolv.conf. Its options are ignored, timeout and attempts in
	// favor of the fields here. So is trust-ad, on purpose: container engines copy it from the host
	// beside the address of another server. TrustAD says the same with intent.
	ResolvConf string

	// Timeout bounds one question with all its servers, attempts and CNAMEs. 0 means 5 s. The last
	// fifth is for servers that were silent, which are then asked without EDNS.
	Timeout time.Duration

	// Attempts is how often each server is asked, in rounds. 0 means twice. An attempt goes on while
	// the next ones run.
	Attempts int

	// TrustAD says whose AD bit counts (RFC 4035, Section 4.9.3): "auto", or "", that of servers on a
	// loopback address or over TLS, "yes" that of all, "no" that of none. For "auto", 127.0.0.11 is no
	// loopback address: there the forwarder of a container engine asks over the network.
	TrustAD string

	// Roots are the trust anchors for DNS over TLS; nil means the system's.
	Roots *x509.CertPool

	// Dial opens connections; network is "udp" or "tcp", addr an address with a port. TLS is put on
	// top by the Resolver. Reads of a "udp" connection must keep the borders of datagrams, and give
	// only those of addr. nil means a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// Observe is called with the result of each question, once for all its servers, attempts and
	// CNAMEs; nil means no calls. It is called concurrently, and before the answer is returned, so it
	// must be safe for that, and fast.
	Observe func(QueryResult)
}

// A QueryResult is the outcome of one question, for metrics.
type QueryResult struct {
	// Type is the record type, "TXT". Addr asks two questions, "A" and "AAAA".
	Type string

	// NXDomain and Empty are set for an answer that the name does not exist, or has no such record.
	NXDomain, Empty bool

	// Err is why nothing was learned; nil if there was an answer.
	Err *Error

	// Took is how long it lasted.
	Took time.Duration
}

// A Resolver asks questions. New returns one. It may be used concurrently, and has nothing to close: every
// query has a socket of its own, but over TLS, where connections without queries close themselves.
type Resolver struct {
	timeout  time.Duration
	attempts int
	trust    trust
	dialer   func(ctx context.Context, network, addr string) (net.Conn, error) // nil: a net.Dialer
	observe  func(QueryResult)                                                 // never nil

	began   time.Time    // what the moments below are counted from, immune to a clock that is set
	path    string       // of resolv.conf; "": the list never changes
	checked atomic.Int64 // when resolv.conf was last looked at
	list    atomic.Pointer[serverList]

	buffers sync.Pool // of *[readSize]byte
}

// An Answer is the result about one name. It has no Records if the name does not exist, or has no record
// of the type.
type Answer[T any] struct {
	// Records are in the order received.
	Records []T

	// Name is the name that Records belong to, or that has none: the one asked for, or the last of
	// its CNAMEs (RFC 1034, Section 3.6.2). It is in lower case and without the final dot.
	Name string

	// NXDomain is set if Name does not exist, for records of any type (RFC 8020, Section 2). With
	// CNAMEs it is about the last of them (RFC 6604, Section 3).
	NXDomain bool

	// Secure is set if every response that the answer is made of had the AD bit, and came from a server
	// that is trusted to set it (Config.TrustAD). It covers the absence of records too.
	Secure bool

	// Unknown is why it is unknown whether the answer is secure; nil if Secure says it. A server is
	// trusted, but an answer came only from one that is not. Code that needs Secure must treat this as
	// a failed lookup (RFC 7672, Section 2.1.1). Its Kind is Untrusted.
	Unknown *Error

	// TTL is the least along the chain of CNAMEs and of the Records. Without Records it is that of
	// the denial (RFC 2308, Section 5), or a minute if the server did not say.
	TTL time.Duration
}

// MX is one MX record (RFC 5321, Section 5.1).
type MX struct {
	// Host is in lower case and without the final dot; "" is the null MX (RFC 7505, Section 3).
	Host string

	// Pref is the preference: the lower, the sooner.
	Pref uint16
}

// TLSA is a certificate association as it was published (RFC 6698, Section 2.1), usable or not.
type TLSA struct {
	// Usage, Selector and Matching are not checked against the values that are defined.
	Usage, Selector, Matching uint8

	// Data is the octets of the association, of any length, perhaps none.
	Data []byte
}

// New returns a Resolver for c. It asks nothing yet, so that a server may start later. The error names
// what is invalid in c; a resolv.conf that is missing, or names no server, is none: then
// 127.0.0.1 is asked, as the C library does.
func New(c Config) (*Resolver, error) {
	t, err := parseTrust(c.TrustAD)
	if err != nil {
		return nil, err
	}
	if c.Timeout < 0 || c.Attempts < 0 {
		return nil, fmt.Errorf("timeout %v, attempts %d: neither may be negative", c.Timeout, c.Attempts)
	}
	r := &Resolver{
		timeout:  c.Timeout,
		attempts: c.Attempts,
		trust:    t,
		dialer:   c.Dial,
		observe:  c.Observe,
		began:    time.Now(),
	}
	if r.observe == nil {
		r.observe = func(QueryResult) {}
	}
	r.buffers.New = func() any { return new([readSize]byte) }
	if r.timeout == 0 {
		r.timeout = defaultTimeout
	}
	if r.attempts == 0 {
		r.attempts = defaultAttempts
	}
	if len(c.Servers) == 0 {
		r.path = c.ResolvConf
		if r.path == "" {
			r.path = defaultConf
		}
		r.list.Store(firstConf(r.path, t))
		return r, nil
	}
	l := new(serverList)
	for _, text := range c.Servers {
		s, err := parseServer(text, t, c.Roots)
		if err != nil {
			return nil, err
		}
		l.servers = append(l.servers, s)
	}
	r.list.Store(l)
	return r, nil
}

// TXT asks for TXT records. Each is the octets of one record, its strings joined without anything
// between them (RFC 8461, Section 3.1); nothing is escaped.
func (r *Resolver) TXT(ctx context.Context, name string) (Answer[string], error) {
	return lookup(ctx, r, name, dns.TypeTXT, decodeTXT)
}

// MX asks for MX records. One whose name cannot be the name of a host is left out, as Postfix
// does (`dns/dns_lookup.c`); if that leaves none, it is a Malformed error and not an answer.
func (r *Resolver) MX(ctx context.Context, name string) (Answer[MX], error) {
	return lookup(ctx, r, name, dns.TypeMX, decodeMX)
}

// TLSA asks for TLSA records. The name is the whole one, "_25._tcp.mx.example.com".
func (r *Resolver) TLSA(ctx context.Context, name string) (Answer[TLSA], error) {
	return lookup(ctx, r, name, dns.TypeTLSA, decodeTLSA)
}

// Alias asks for the CNAME record of the name itself, and does not follow it: the answer has the
// target, in lower case and without the final dot, or no records. Name is the name asked for, and
// Secure is about it alone, which Secure of a whole chain is not (RFC 7672, Section 2.1.3).
func (r *Resolver) Alias(ctx context.Context, name string) (Answer[string], error) {
	return lookup(ctx, r, name, dns.TypeCNAME, decodeAlias)
}

// NS asks for the name servers of a zone, in lower case and without the final dot. A name that is not the
// top of a zone has none.
func (r *Resolver) NS(ctx context.Context, name string) (Answer[string], error) {
	return lookup(ctx, r, name, dns.TypeNS, decodeAlias)
}
