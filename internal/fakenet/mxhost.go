package fakenet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"strings"

	"github.com/emersion/go-smtp"
	"github.com/miekg/dns"
)

// mxHost is one line of the smtp section.
type mxHost struct {
	name       string
	cert       certSpec
	maxTLS     uint16
	failTLS    bool
	requireTLS bool   // REQUIRETLS is offered
	moreNames  string // in the certificate, separated by commas
}

// mxAddrs are the addresses of an MX host.
func (w *world) mxAddrs(host string) []netip.Addr {
	return addrsOf(w.mxHosts, func(x *mxHost) bool { return x.name == host })
}

// mxHost reads a line of the smtp section.
func (p *parser) mxHost(fields []field) error {
	name, err := fields[0].hostname()
	if err != nil {
		return err
	}
	addrs, fields, err := p.world.hostPlaces(smtp25, fields[1:])
	if err != nil {
		return err
	}
	x := &mxHost{name: name, cert: certSpec{names: name}}
	for _, f := range fields {
		if err := x.read(f); err != nil {
			return err
		}
	}
	if x.moreNames != "" {
		x.cert.names += "," + x.moreNames
	}
	for _, addr := range addrs {
		if other := p.world.mxHosts[addr]; other != nil {
			return fmt.Errorf("address %s belongs to %s", addr, other.name)
		}
		p.world.mxHosts[addr] = x
	}
	return nil
}

// read takes one word of the line.
func (x *mxHost) read(f field) (err error) {
	switch f.key {
	case "cert":
		err = x.cert.read(f.value, x.name)
	case "direct":
		x.cert.direct = true
	case "tls":
		x.failTLS = f.value == "fail"
		if !x.failTLS {
			x.maxTLS, err = tlsVersion(f.value)
		}
	case "requiretls":
		x.requireTLS = true
	case "names":
		x.moreNames = f.value
	default:
		return f.unknown()
	}
	return err
}

// serveSMTP serves one connection as the MX host that is at that address now. It returns when the session
// is over.
func (n *Net) serveSMTP(c net.Conn, addr netip.Addr) {
	x := n.world.Load().mxHosts[addr]
	if x == nil {
		return
	}
	s := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &mailSession{net: n, host: x, conn: c}, nil
	}))
	s.Domain = x.name
	s.EnableSMTPUTF8 = true
	s.EnableREQUIRETLS = x.requireTLS
	s.MaxMessageBytes = 32 << 20
	s.ErrorLog = log.New(io.Discard, "", 0)
	if x.cert.kind != certNone {
		s.TLSConfig = n.tlsConfig(x.maxTLS, func(string) (certSpec, error) {
			if x.failTLS {
				return certSpec{}, errors.New("handshake refused")
			}
			return x.cert, nil
		})
		s.TLSConfig.NextProtos = nil
	}
	_ = s.Serve(newSingle(c)) // until c is closed
	_ = s.Shutdown(context.Background())
}

// mailSession is the dialogue on one connection.
type mailSession struct {
	net  *Net
	host *mxHost
	conn *smtp.Conn
	to   []string
}

func (s *mailSession) Reset() { s.to = nil }

func (s *mailSession) Logout() error { return nil }

func (s *mailSession) Mail(string, *smtp.MailOptions) error { return nil }

func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

func (s *mailSession) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m := Message{To: s.to, Data: data}
	var state tls.ConnectionState
	if state, m.TLS = s.conn.TLSConnectionState(); m.TLS {
		m.SNI = state.ServerName
	}
	s.net.counts.message(s.host.name, m)
	s.net.logf("message %s to=<%s> tls=%t sni=%s", s.host.name, strings.Join(m.To, ">,<"), m.TLS, m.SNI)
	return nil
}

// tlsaRequest is a !tlsa line, to be answered when the certificates are known.
type tlsaRequest struct {
	line                      int
	host                      string
	usage, selector, matching uint8
}

// askTLSA reads the words after !tlsa.
func (p *parser) askTLSA(line int, args []string) error {
	t := tlsaRequest{line: line}
	if _, err := fmt.Sscan(strings.Join(args, " "), &t.host, &t.usage, &t.selector, &t.matching); err != nil || len(args) != 4 {
		return errors.New("!tlsa: wants HOST USAGE SELECTOR MATCHING")
	}
	t.host = hostKey(t.host)
	p.tlsa = append(p.tlsa, t)
	return nil
}

// answerTLSA adds the records that match the MX hosts' certificates.
func (p *parser) answerTLSA() error {
	for _, t := range p.tlsa {
		addrs := p.world.mxAddrs(t.host)
		if len(addrs) == 0 {
			return atLine(t.line, fmt.Errorf("!tlsa: no such MX host %s", t.host))
		}
		rr, err := p.net.tlsa(p.world.mxHosts[addrs[0]].cert, t)
		if err != nil {
			return atLine(t.line, fmt.Errorf("!tlsa: %w", err))
		}
		p.world.add(rr)
	}
	return nil
}

// TLSA returns the data of a TLSA record, "3 1 1 0b9f…", that matches the certificate the MX host has
// now, for zones that are served elsewhere, as a !tlsa line does. It is an error if there is no such host,
// or if a number is unknown.
func (n *Net) TLSA(host string, usage, selector, matching uint8) (string, error) {
	w, t := n.world.Load(), tlsaRequest{host: hostKey(host), usage: usage, selector: selector, matching: matching}
	addrs := w.mxAddrs(t.host)
	if len(addrs) == 0 {
		return "", fmt.Errorf("fakenet: no such MX host %s", host)
	}
	rr, err := n.tlsa(w.mxHosts[addrs[0]].cert, t)
	if err != nil {
		return "", fmt.Errorf("fakenet: %w", err)
	}
	return strings.TrimPrefix(rr.String(), rr.Hdr.String()), nil
}

// tlsa makes the record for a certificate: the leaf for usages 1 and 3, its issuer for 0 and 2
// (RFC 7671, Section 5).
func (n *Net) tlsa(spec certSpec, t tlsaRequest) (*dns.TLSA, error) {
	cert, err := n.ca.leafX509(spec)
	if err != nil {
		return nil, err
	}
	if t.usage == 0 || t.usage == 2 {
		cert = n.ca.intermediate.cert
		if spec.direct {
			cert = n.ca.root.cert
		}
	}
	rr := &dns.TLSA{}
	if err := rr.Sign(int(t.usage), int(t.selector), int(t.matching), cert); err != nil {
		return nil, err
	}
	rr.Hdr = dns.RR_Header{Name: "_25._tcp." + t.host + ".", Rrtype: dns.TypeTLSA, Class: dns.ClassINET, Ttl: 300}
	return rr, nil
}
