// Package stsfetch gets what a policy domain publishes about MTA-STS: the
// record over DNS and the policy over HTTPS (RFC 8461, Sections 3.1 to 3.3).
//
// It tries once and remembers nothing: when to ask again, what a failure
// means and which policy applies are decided by package policy. It does not
// follow redirects, keep connections or cache responses, which RFC 8461,
// Section 3.3 forbids or has no use for, and it never dials an address that
// is not public unless it was told to.
//
// One retrieval is one connection and one GET. That is why the request is
// written by hand and only the response is parsed by net/http: a Transport
// would bring a pool, HTTP/2, cookies, redirects and environment proxies,
// each of which had to be switched off again.
package stsfetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"stsmap/resolver"
	"stsmap/sts"
)

// Config says how a Fetcher works. It is copied by New.
type Config struct {
	// Resolver answers for records and for the addresses of policy hosts.
	// It must be set.
	Resolver *resolver.Resolver
	// Roots are the trust anchors for policy hosts; nil means the system's.
	Roots *x509.CertPool
	// Dial opens a connection to the literal address of a policy host or of
	// the proxy; nil means a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Timeout bounds Policy as a whole; zero means 30 seconds. RFC 8461,
	// Section 3.3 suggests a minute, but Postfix waits no longer than 100
	// seconds for our answer.
	Timeout time.Duration
	// MaxSize is the largest policy accepted, in bytes after decoding; zero
	// means 65536 (RFC 8461, Section 3.3).
	MaxSize int
	// AllowPrivate lists networks that a policy host may be in although they
	// are not globally reachable; nil means none.
	AllowPrivate []netip.Prefix
	// Proxy is "" for none, "env" for what HTTPS_PROXY and NO_PROXY say, or
	// the URL of an HTTP proxy that understands CONNECT. Through a proxy it
	// is the proxy that resolves and dials the policy host, so it is also
	// the proxy that has to refuse private addresses. The name of the proxy
	// itself is looked up as the system does, in /etc/hosts too: it is the
	// administrator's and no stranger's.
	Proxy string
	// UserAgent is sent with each request; empty means "stsmap".
	UserAgent string
}

// A Fetcher retrieves records and policies. It may be used concurrently.
type Fetcher struct {
	resolver  *resolver.Resolver
	roots     *x509.CertPool
	dialer    func(ctx context.Context, network, addr string) (net.Conn, error)
	timeout   time.Duration
	maxSize   int
	allowed   []netip.Prefix
	proxy     func(*http.Request) (*url.URL, error)
	userAgent string
}

// New returns a Fetcher, or an error that names the setting that is wrong.
func New(c Config) (*Fetcher, error) {
	if c.Resolver == nil {
		return nil, errors.New("stsfetch: no resolver")
	}
	proxy, err := proxyFunc(c.Proxy)
	if err != nil {
		return nil, err
	}
	f := &Fetcher{
		resolver:  c.Resolver,
		roots:     c.Roots,
		dialer:    c.Dial,
		timeout:   c.Timeout,
		maxSize:   c.MaxSize,
		allowed:   c.AllowPrivate,
		proxy:     proxy,
		userAgent: c.UserAgent,
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

// A Record is what DNS says about a domain's MTA-STS record.
type Record struct {
	// ID is the version of the policy; empty means that there is no usable
	// record, and Why tells the reason.
	ID string
	// TTL is how long DNS allows to remember this answer, or this absence.
	TTL time.Duration
	// Why is nil for a usable record, and otherwise sts.ErrNoRecord,
	// sts.ErrManyRecords or a *sts.SyntaxError.
	Why error
	// Texts are the TXT records that were found, each with its strings joined.
	Texts []string
	// Name is where they were found: below the domain, or where CNAMEs lead to.
	Name string
}

// Record looks up the MTA-STS record of domain, an A-label name without a
// trailing dot (RFC 8461, Section 3.1). A missing or broken record is an
// answer, not an error: RFC 8461 treats both as "no policy available". The
// error is always an *Error and means that DNS said nothing.
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
// dot, and returns it as served and parsed (RFC 8461, Sections 3.2 and 3.3).
// The error is always an *Error. Nothing is returned beside an error: a
// response that is too long or cut short is a failed one, never a shorter
// policy.
func (f *Fetcher) Policy(ctx context.Context, domain string) (text string, p *sts.Policy, err error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	body, err := f.get(ctx, "mta-sts."+domain)
	if err != nil {
		return "", nil, f.failed(ctx, domain, err)
	}
	p, err = sts.ParsePolicy(body)
	if err != nil {
		return "", nil, &Error{Domain: domain, Step: StepSyntax, Err: err}
	}
	return string(body), p, nil
}

// failed gives err its final form: whatever the step, running out of time is
// told as such, since "timeout" is what an administrator can act on.
func (f *Fetcher) failed(ctx context.Context, domain string, err error) *Error {
	e := &Error{Domain: domain, Step: StepHTTP, Err: err}
	if s, ok := errors.AsType[*stepError](err); ok {
		e.Step, e.Err = s.step, s.err
	}
	if e.Step == StepCert {
		return e
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() && !errors.Is(ctx.Err(), context.Canceled) {
		e.Err = fmt.Errorf("%s: timed out", e.Step)
		e.Step = StepTimeout
	}
	return e
}

// get fetches the policy file from host, a name beginning with "mta-sts.".
func (f *Fetcher) get(ctx context.Context, host string) ([]byte, error) {
	conn, err := f.connect(ctx, host)
	if err != nil {
		return nil, err
	}
	return f.talk(ctx, conn, host, new(Visit))
}

// talk fetches the policy file from host over conn, which it closes, and notes
// in v what it sees on the way.
func (f *Fetcher) talk(ctx context.Context, conn net.Conn, host string, v *Visit) ([]byte, error) {
	defer conn.Close()
	// One deadline and one callback cover handshake and exchange; tls's own
	// HandshakeContext would start a goroutine for the same.
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	raw := &eofWatcher{Conn: conn}
	secured := tls.Client(raw, &tls.Config{
		// ServerName is sent as SNI (RFC 8461, Section 7.1) and is the one
		// DNS-ID that the certificate must have (Section 3.3); crypto/x509
		// never falls back to the common name.
		ServerName: host,
		RootCAs:    f.roots,
		MinVersion: tls.VersionTLS12, // RFC 8461, Section 7.2
		NextProtos: []string{"http/1.1"},
		// Without the post-quantum hybrids, which come first by default. They
		// keep a secret from a later listener; here the answer is public, and
		// only who gives it has to be certain. Their keys cost a twelfth of a
		// retrieval's time, and make a first message of two packets, which
		// some firewalls still stumble over.
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521},
	})
	err := secured.Handshake()
	v.shook(secured, err)
	if err != nil {
		return nil, handshakeError(err)
	}
	body, toEOF, err := exchange(secured, host, f.userAgent, f.maxSize, v)
	if err == nil && toEOF && raw.eof {
		return nil, atf(StepHTTP, "policy ended early: the connection was cut")
	}
	return body, err
}

// An eofWatcher notes that the connection itself ended. crypto/tls reports
// that as io.EOF just as it does the peer's close_notify, out of kindness to
// old servers; but where the end of the connection is the end of the body, it
// is how somebody on the way would cut a policy short.
type eofWatcher struct {
	net.Conn
	eof bool
}

func (w *eofWatcher) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err == io.EOF {
		w.eof = true
	}
	return n, err
}
