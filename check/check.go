// Package check examines a domain's setup for mail from this host, and reports
// what is wrong, why that matters and who has to act.
//
// It does not print: a Report is plain data. It does not decide what applies to
// mail either, and does not parse what domains publish: the parser, the fetch,
// the DNS queries, the decision and the reply are those of the daemon, so that
// the report is true for the daemon. It changes nothing, and connects to port
// 25 only with Config.SMTP.
package check

import (
	"context"
	"crypto/x509"
	"net"
	"time"

	"stsmap/cache"
	"stsmap/override"
	"stsmap/policy"
	"stsmap/postfix"
	"stsmap/postfix/postconf"
	"stsmap/resolver"
	"stsmap/stsfetch"
)

// Config says how a Checker works. It is copied by New.
type Config struct {
	// Resolver answers all questions but those to single name servers. It must
	// be set.
	Resolver *resolver.Resolver
	// Fetch retrieves policies. It must be set.
	Fetch *stsfetch.Fetcher
	// Policy says how decisions are made. Of it, Timeout, Defer, Strict and DANE
	// count, the latter without its Check; the rest is replaced.
	Policy policy.Config
	// DANE says that DANE is not switched off.
	DANE bool
	// Postfix is what asks the daemon here.
	Postfix Postfix
	// SMTP has MX hosts asked for STARTTLS on port 25, or on the port of the
	// next-hop. Without, no connection to an MX host is made.
	SMTP bool
	// NameServers has each authoritative name server asked for the record.
	NameServers bool
	// Dial connects to MX hosts and name servers; nil means a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Timeout bounds one Check; zero means a minute.
	Timeout time.Duration
	// Overrides are the exceptions of this host's administrator; nil means none.
	// NoOverrides is why they could not be read, or nil.
	Overrides   *override.Table
	NoOverrides error
	// Known returns the daemon's cached data about a domain; nil means that
	// there is no daemon to query.
	Known func(ctx context.Context, domain string) (Known, error)
}

// A Postfix describes the Postfix that sends the mail.
type Postfix struct {
	// Release is its mail_version; empty if that is not known.
	Release string
	// DNSSEC is why it does not look up DNSSEC; nil if it does.
	DNSSEC error
	// Map is how its lookups are answered.
	Map postfix.Map
	// Roots are the authorities that it trusts; nil means none, for the reason
	// NoRoots.
	Roots   *x509.CertPool
	NoRoots error
	// Trust is where they come from.
	Trust postconf.Trust
}

// Known is what the daemon on this host knows of a domain.
type Known struct {
	// Entry is nil if the domain is not cached.
	Entry *cache.Entry
	// Reply is the daemon's reply to Postfix, and Waits reports whether Postfix
	// defers mail then. Reply is empty if the daemon was not queried for it.
	Reply string
	Waits bool
	// Events tell what happened before, the latest first.
	Events []string
}

// A Checker checks domains. It may be used concurrently.
type Checker struct {
	c         Config
	release   postfix.Release
	validates func(context.Context) error // why the resolver does not validate
	slow      time.Duration
}

// New returns a Checker. It asks nothing yet.
func New(c Config) *Checker {
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.Timeout == 0 {
		c.Timeout = time.Minute
	}
	k := &Checker{c: c, slow: slow}
	k.release, _ = postfix.ParseRelease(c.Postfix.Release)
	k.validates = remembering(func(ctx context.Context) error { return c.Resolver.Validating(ctx) })
	return k
}

// Check looks at the domain of a key that Postfix would send, and returns what
// it found out, whatever that is. It takes no longer than Config.Timeout, and a
// moment.
func (k *Checker) Check(ctx context.Context, key string) *Report {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, k.c.Timeout)
	defer cancel()
	r := &Report{Schema: Schema, Key: cut(printable(key), 60), Findings: []Finding{}}
	hop, ok := postfix.NextHop(key, true)
	if !ok {
		r.add(notDomain(key))
		r.Verdict = Unknown
	} else {
		r.Domain = hop.Domain
		l := &look{Checker: k, Report: r, hop: hop, asked: newMemo(k.c.Resolver)}
		l.nameOf(key)
		l.gather(ctx)
		l.judge(ctx)
		r.sort()
		r.Verdict = r.verdict(l.blind)
	}
	r.Seconds = seconds(time.Since(began))
	return r
}

// seconds is a duration to the millisecond.
func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
