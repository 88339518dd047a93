// Package stsfetch fetches what a policy domain publishes about MTA-STS: the
// record over DNS and the policy over HTTPS (RFC 8461, Sections 3.1 to 3.3).
//
// It tries once and caches no result: package policy decides when to fetch
// again, what a failure means and which policy applies. It does not follow
// redirects, keep connections or cache responses, which RFC 8461, Section 3.3
// forbids or has no use for, and it dials an address that is not public only
// if that is in Config.AllowPrivate.
//
// One fetch is one connection and one GET, so the request is written to the
// connection and the response is read from it, both by net/http. A Transport is
// not used: it reads on after the answer is decided, and its limits are those of
// a connection that is used again.
package stsfetch

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"time"

	"stsmap/resolver"
	"stsmap/sts"
)

// Config says how a Fetcher works. It is copied by New.
type Config struct {
	// Resolver resolves records and the addresses of policy hosts. It must be
	// set.
	Resolver *resolver.Resolver
	// Anchors are the trust anchors for policy hosts; nil means the system's.
	Anchors *Anchors
	// Roots are used instead of Anchors, and never change; nil means that Anchors
	// are used.
	Roots *x509.CertPool
	// Dial opens a connection to the literal address of a policy host or of
	// the proxy; nil means a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Timeout bounds Policy as a whole; zero means 30 seconds. Connecting and
	// the TLS handshake may take a third of it each. RFC 8461, Section 3.3
	// suggests a minute, but Postfix waits no longer than 100 seconds for a
	// reply.
	Timeout time.Duration
	// MaxSize is the largest policy accepted, in bytes after decoding; zero
	// means 65536 (RFC 8461, Section 3.3).
	MaxSize int
	// AllowPrivate lists networks that a policy host may be in although they
	// are not globally reachable; nil means none.
	AllowPrivate []netip.Prefix
	// Proxy is "" for none, "env" for what HTTPS_PROXY and NO_PROXY say, or
	// the URL of a proxy: "http" or "https" for one that understands CONNECT,
	// "socks5" for SOCKS. Through a proxy it is the proxy that resolves and
	// dials the policy host, so it is also the proxy that has to refuse
	// private addresses. The name of the proxy itself is looked up as the
	// system does, in /etc/hosts too: the administrator chose it.
	//
	// If HTTPS_PROXY is wrong, every fetch fails with the error of CheckProxy:
	// none is ever made without the proxy that was meant.
	Proxy string
	// UserAgent is sent with each request; empty means "stsmap".
	UserAgent string
}

// A Fetcher fetches records and policies. It may be used concurrently.
type Fetcher struct {
	resolver  *resolver.Resolver
	anchors   *Anchors
	dialer    func(ctx context.Context, network, addr string) (net.Conn, error)
	timeout   time.Duration
	maxSize   int
	allowed   []netip.Prefix
	guard     *guard
	nat64     *prefixFinder
	proxy     proxySetting
	proxyErr  error // proxyErr is why nothing may be fetched; nil usually.
	userAgent string
}

// New returns a Fetcher, or an error that names the setting that is wrong.
func New(c Config) (*Fetcher, error) {
	if c.Resolver == nil {
		return nil, errors.New("stsfetch: no resolver")
	}
	proxy, proxyErr := newProxySetting(c.Proxy)
	if proxyErr != nil && c.Proxy != "env" {
		return nil, proxyErr
	}
	f := &Fetcher{
		resolver:  c.Resolver,
		anchors:   c.Anchors,
		dialer:    c.Dial,
		timeout:   c.Timeout,
		maxSize:   c.MaxSize,
		allowed:   c.AllowPrivate,
		guard:     newGuard(),
		nat64:     &prefixFinder{resolver: c.Resolver},
		proxy:     proxy,
		proxyErr:  proxyErr,
		userAgent: c.UserAgent,
	}
	switch {
	case c.Roots != nil:
		f.anchors = fixedAnchors(c.Roots)
	case f.anchors == nil:
		f.anchors = SystemAnchors(nil)
	}
	if f.dialer == nil {
		// One short exchange needs no keep-alive probes.
		f.dialer = (&net.Dialer{KeepAlive: -1}).DialContext
	}
	if f.timeout == 0 {
		f.timeout = 30 * time.Second
	}
	if f.maxSize == 0 {
		f.maxSize = 64 << 10
	}
	if f.userAgent == "" {
		f.userAgent = "stsmap"
	}
	return f, nil
}

// A Record is the result of the lookup of a domain's MTA-STS record.
type Record struct {
	// ID is the version of the policy; empty means that there is no usable
	// record, for the reason Why.
	ID string
	// TTL is how long DNS allows this answer to be cached, also a negative one.
	TTL time.Duration
	// Why is nil for a usable record, and otherwise sts.ErrNoRecord,
	// sts.ErrManyRecords or a *sts.SyntaxError.
	Why error
	// Texts are the TXT records, each with its strings joined.
	Texts []string
	// Name is the owner of the records: below the domain, or where CNAMEs lead to.
	Name string
}

// Record looks up the MTA-STS record of domain, an A-label name without a
// trailing dot (RFC 8461, Section 3.1). A missing or broken record is an
// answer, not an error: RFC 8461 treats both as "no policy available". The
// error is always an *Error and means that the lookup failed.
func (f *Fetcher) Record(ctx context.Context, domain string) (Record, error) {
	answer, err := f.resolver.TXT(ctx, "_mta-sts."+domain)
	if err != nil {
		return Record{}, &Error{Domain: domain, Step: StepDNS, Err: err}
	}
	found := Record{TTL: answer.TTL, Texts: answer.Records, Name: answer.Name}
	if len(answer.Records) == 0 {
		found.Why = sts.ErrNoRecord
		return found, nil
	}
	rec, err := sts.ParseRecords(answer.Records)
	found.ID, found.Why = rec.ID, err
	return found, nil
}

// Policy downloads the policy of domain, an A-label name without a trailing
// dot, and returns it as served, decoded, and parsed (RFC 8461, Sections 3.2
// and 3.3). The error is always an *Error, and then text is empty and p nil: a
// response that is too long or cut short is a failed one, never a shorter
// policy.
func (f *Fetcher) Policy(ctx context.Context, domain string) (text string, p *sts.Policy, err error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	body, err := f.get(ctx, "mta-sts."+domain)
	if err != nil {
		return "", nil, newError(ctx, domain, err)
	}
	p, err = sts.ParsePolicy(body)
	if err != nil {
		return "", nil, &Error{Domain: domain, Step: StepSyntax, Err: err}
	}
	return string(body), p, nil
}

// get fetches the policy file from host, a name beginning with "mta-sts.".
func (f *Fetcher) get(ctx context.Context, host string) ([]byte, error) {
	conn, err := f.connect(ctx, host)
	if err != nil {
		return nil, err
	}
	return f.fetchOver(ctx, conn, host, new(Probe))
}
