package stsfetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"stsmap/sts"
)

// A Host is what all addresses of a policy host did with the same request.
type Host struct {
	// Name is the policy host, "mta-sts.example.com".
	Name string
	// Alias is where its CNAMEs lead to; empty if there are none, or a proxy.
	Alias string
	// Proxy says that the proxy was asked, who alone knows the addresses.
	Proxy bool
	// Visits are in the order in which Policy would try the addresses. There
	// is one if there is a proxy, and 8 at most.
	Visits []Visit
}

// A Visit is what came of asking one address of a policy host, for people who
// want to know what Policy does not tell: it uses the first that answers.
type Visit struct {
	// Addr is the address; the zero Addr if there is a proxy.
	Addr netip.Addr
	// Connected says that there was a connection.
	Connected bool
	// Took is how long the visit lasted.
	Took time.Duration
	// Version is that of TLS, as in package tls; zero if there was none. Where
	// the handshake failed it is the highest that the host speaks of those too
	// old for MTA-STS.
	Version uint16
	// Certificates are those that the host sent, its own first, be they valid or
	// not.
	Certificates []*x509.Certificate
	// Status is that of the response; zero if there was none.
	Status int
	// Text is the policy as it was served, also if it is none; empty if none was.
	Text string
	// Policy is nil if Err is not.
	Policy *sts.Policy
	// Err is why there is no policy, an *Error; nil if there is one.
	Err error
}

// recordHandshake records how a handshake ended.
func (v *Visit) recordHandshake(conn *tls.Conn, err error) {
	if bad, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		v.Certificates = bad.UnverifiedCertificates
		return
	}
	if err == nil {
		state := conn.ConnectionState()
		v.Version, v.Certificates = state.Version, state.PeerCertificates
	}
}

// As returns a Fetcher that sends another User-Agent, and is like f otherwise.
func (f *Fetcher) As(userAgent string) *Fetcher {
	other := *f
	other.userAgent = userAgent
	return &other
}

// Visit asks every address of the policy host of domain, an A-label name without
// a trailing dot, for the policy, all at the same time. An error is an *Error
// and means that there was no address to ask; what goes wrong at one is said
// there. It takes no longer than two times Config.Timeout.
func (f *Fetcher) Visit(ctx context.Context, domain string) (Host, error) {
	h := Host{Name: "mta-sts." + domain}
	within, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	proxy, err := f.proxyFor(h.Name)
	if err != nil {
		return h, newError(within, domain, err)
	}
	if proxy != nil {
		h.Proxy, h.Visits = true, make([]Visit, 1)
	} else {
		answer, err := f.addresses(within, h.Name)
		if err != nil {
			return h, newError(within, domain, err)
		}
		if answer.Name != h.Name {
			h.Alias = answer.Name
		}
		addrs := interleave(answer.Records)
		for _, a := range addrs[:min(len(addrs), maxAddrs)] {
			h.Visits = append(h.Visits, Visit{Addr: a})
		}
	}
	var visits sync.WaitGroup
	for i := range h.Visits {
		visits.Go(func() { f.visit(ctx, domain, h.Name, &h.Visits[i]) })
	}
	visits.Wait()
	return h, nil
}

// visit asks one address.
func (f *Fetcher) visit(ctx context.Context, domain, host string, v *Visit) {
	within, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	began := time.Now()
	body, err := f.fetchFrom(within, host, v)
	v.Took = time.Since(began)
	if err != nil {
		e := newError(within, domain, err)
		if v.Err = e; e.Step == StepTLS {
			v.Version = f.legacyTLSVersion(ctx, host, v.Addr)
		}
		return
	}
	v.Text = string(body)
	if v.Policy, err = sts.ParsePolicy(body); err != nil {
		v.Err = &Error{Domain: domain, Step: StepSyntax, Err: err}
	}
}

func (f *Fetcher) fetchFrom(ctx context.Context, host string, v *Visit) ([]byte, error) {
	conn, err := f.dialTo(ctx, host, v.Addr)
	if err != nil {
		return nil, err
	}
	v.Connected = true
	return f.fetchOver(ctx, conn, host, v)
}

// dialTo connects to one address of host, or to host through the proxy.
func (f *Fetcher) dialTo(ctx context.Context, host string, addr netip.Addr) (net.Conn, error) {
	if addr.IsValid() {
		return f.dialAddr(ctx, addr)
	}
	return f.connect(ctx, host)
}

// legacyTLSVersion returns the version of TLS that a host speaks instead of one that
// may be used; zero if none. Nothing is sent to it after the handshake, so it
// does not matter who it is.
func (f *Fetcher) legacyTLSVersion(ctx context.Context, host string, addr netip.Addr) uint16 {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	conn, err := f.dialTo(ctx, host, addr)
	if err != nil {
		return 0
	}
	defer conn.Close()
	old := tls.Client(conn, &tls.Config{
		ServerName: host, InsecureSkipVerify: true,
		MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11,
	})
	if old.HandshakeContext(ctx) != nil {
		return 0
	}
	return old.ConnectionState().Version
}
