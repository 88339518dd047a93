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

// A Host is the result of Fetcher.Probe: what each address of a policy host answers.
type Host struct {
	// Name is the policy host, "mta-sts.example.com".
	Name string
	// Alias is where its CNAMEs lead to; empty if there are none, or a proxy.
	Alias string
	// Proxy is whether the host was asked through the proxy, which resolves its
	// name.
	Proxy bool
	// Probes are in the order in which Policy would try the addresses. There
	// is one through a proxy, and at most 8.
	Probes []Probe
}

// A Probe is the result of a fetch from one address of a policy host. Policy does not
// give it: it uses the first address that answers.
type Probe struct {
	// Addr is the address; the zero Addr through a proxy.
	Addr netip.Addr
	// Connected is whether a connection was established.
	Connected bool
	// Took is the duration of the fetch.
	Took time.Duration
	// Version is the TLS version, as in package tls; zero if there was no
	// handshake. If the handshake failed, it is the highest version that the host
	// supports of those too old for MTA-STS.
	Version uint16
	// Certificates are those that the host sent, its own first, valid or not.
	Certificates []*x509.Certificate
	// Status is the HTTP status; zero if there was no response.
	Status int
	// Text is the body of the response, decoded, also if it is no valid policy;
	// empty if the fetch failed.
	Text string
	// Policy is nil if Err is not.
	Policy *sts.Policy
	// Err is why there is no policy, an *Error; nil if there is one.
	Err error
}

// recordHandshake records the result of a handshake.
func (p *Probe) recordHandshake(conn *tls.Conn, err error) {
	if bad, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		p.Certificates = bad.UnverifiedCertificates
		return
	}
	if err == nil {
		state := conn.ConnectionState()
		p.Version, p.Certificates = state.Version, state.PeerCertificates
	}
}

// As returns a copy of f that sends another User-Agent.
func (f *Fetcher) As(userAgent string) *Fetcher {
	other := *f
	other.userAgent = userAgent
	return &other
}

// Probe fetches the policy of domain, an A-label name without a trailing dot, from
// every address of its policy host, at the same time. An error is an *Error and means
// that no address was found; a failure at one address is in its Probe. It takes no
// longer than two times Config.Timeout.
func (f *Fetcher) Probe(ctx context.Context, domain string) (Host, error) {
	h := Host{Name: "mta-sts." + domain}
	within, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	proxy, err := f.proxyFor(h.Name)
	if err != nil {
		return h, newError(within, domain, err)
	}
	if proxy != nil {
		h.Proxy, h.Probes = true, make([]Probe, 1)
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
			h.Probes = append(h.Probes, Probe{Addr: a})
		}
	}
	var probes sync.WaitGroup
	for i := range h.Probes {
		probes.Go(func() { f.probeAddr(ctx, domain, h.Name, &h.Probes[i]) })
	}
	probes.Wait()
	return h, nil
}

// probeAddr fetches the policy from the address of p and records the result in p.
func (f *Fetcher) probeAddr(ctx context.Context, domain, host string, p *Probe) {
	within, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	began := time.Now()
	body, err := f.fetchFrom(within, host, p)
	p.Took = time.Since(began)
	if err != nil {
		e := newError(within, domain, err)
		if p.Err = e; e.Step == StepTLS {
			p.Version = f.legacyTLSVersion(ctx, host, p.Addr)
		}
		return
	}
	p.Text = string(body)
	if p.Policy, err = sts.ParsePolicy(body); err != nil {
		p.Err = &Error{Domain: domain, Step: StepSyntax, Err: err}
	}
}

// fetchFrom fetches the policy file from the address of p.
func (f *Fetcher) fetchFrom(ctx context.Context, host string, p *Probe) ([]byte, error) {
	conn, err := f.dialTo(ctx, host, p.Addr)
	if err != nil {
		return nil, err
	}
	p.Connected = true
	return f.fetchOver(ctx, conn, host, p)
}

// dialTo connects to one address of host, or to host through the proxy.
func (f *Fetcher) dialTo(ctx context.Context, host string, addr netip.Addr) (net.Conn, error) {
	if addr.IsValid() {
		return f.race(ctx, []netip.Addr{addr})
	}
	return f.connect(ctx, host)
}

// legacyTLSVersion returns the highest version of TLS that a host supports of those
// too old for MTA-STS; zero if none. Nothing is sent after the handshake, so the
// identity of the host does not matter.
func (f *Fetcher) legacyTLSVersion(ctx context.Context, host string, addr netip.Addr) uint16 {
	ctx, cancel := context.WithTimeout(ctx, f.timeout/budgetShare)
	defer cancel()
	conn, err := f.dialTo(ctx, host, addr)
	if err != nil {
		return 0
	}
	defer conn.Close()
	old := tls.Client(&meteredConn{Conn: conn, left: maxHandshake}, &tls.Config{
		ServerName: host, InsecureSkipVerify: true,
		MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11,
	})
	if old.HandshakeContext(ctx) != nil {
		return 0
	}
	return old.ConnectionState().Version
}
