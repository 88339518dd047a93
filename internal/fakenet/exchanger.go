package fakenet

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/miekg/dns"
)

// exchanger is one line of the smtp section, and its mail server. A new world has new servers, even for
// lines that stay the same; sessions with an old server go on until their client ends them.
type exchanger struct {
	name    string
	cert    certSpec
	maxTLS  uint16
	failTLS bool
	delay   time.Duration // of the greeting
	refuse  *smtp.SMTPError
	keeps   bool // it offers REQUIRETLS
	down    bool
	silent  bool // nobody answers, see Net.Dial

	server *smtp.Server
	door   *door
	served chan struct{} // closed when the server takes no more connections
}

// exchangerAddrs are the addresses of an MX host.
func (w *world) exchangerAddrs(host string) []netip.Addr {
	var addrs []netip.Addr
	for addr, x := range w.exchangers {
		if x.name == host {
			addrs = append(addrs, addr)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}

// exchanger reads a line of the smtp section.
func (p *parser) exchanger(fields []field) error {
	name, err := fields[0].hostname()
	if err != nil {
		return err
	}
	x := &exchanger{name: name, cert: certSpec{names: name}}
	var addrs []netip.Addr
	var more string
	for _, f := range fields[1:] {
		switch f.key {
		case "addr":
			var addr netip.Addr
			addr, err = f.addr()
			addrs = append(addrs, addr)
		case "names":
			more = "," + f.value
		default:
			err = x.read(f)
		}
		if err != nil {
			return err
		}
	}
	if len(addrs) == 0 {
		return errors.New("MX host without addr=")
	}
	x.cert.names += more
	for _, addr := range addrs {
		if other := p.world.exchangers[addr]; other != nil {
			return fmt.Errorf("address %s belongs to %s", addr, other.name)
		}
		own := *x
		own.server, own.door = p.net.mailServer(&own), newDoor()
		own.served = make(chan struct{})
		p.world.exchangers[addr] = &own
	}
	return nil
}

// read takes one word of the line.
func (x *exchanger) read(f field) (err error) {
	switch f.key {
	case "cert":
		direct := x.cert.direct
		x.cert, err = kindOf(f.value, x.name)
		x.cert.direct = direct
	case "direct":
		x.cert.direct = true
	case "tls":
		x.failTLS = f.value == "fail"
		if !x.failTLS {
			x.maxTLS, err = tlsVersion(f.value)
		}
	case "delay":
		x.delay, err = f.duration()
	case "reject":
		x.refuse = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "rejected by fakenet"}
	case "defer":
		x.refuse = &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "deferred by fakenet"}
	case "requiretls":
		x.keeps = true
	case "down":
		x.down = true
	case "silent":
		x.silent = true
	default:
		return f.unknown()
	}
	return err
}

// mailServer makes the server of an MX host. It does not run yet.
func (n *Net) mailServer(x *exchanger) *smtp.Server {
	s := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &mailSession{net: n, host: x, conn: c}, nil
	}))
	s.Domain = x.name
	s.EnableSMTPUTF8 = true
	s.EnableREQUIRETLS = x.keeps
	s.MaxMessageBytes = 32 << 20
	s.ErrorLog = log.New(io.Discard, "", 0)
	if x.cert.kind == certNone {
		return s
	}
	s.TLSConfig = n.tlsConfig(x.maxTLS, func(string) (certSpec, error) {
		if x.failTLS {
			return certSpec{}, errors.New("handshake refused")
		}
		return x.cert, nil
	})
	s.TLSConfig.NextProtos = nil
	return s
}

// start lets all mail servers run.
func (w *world) start() {
	for _, x := range w.exchangers {
		go func() { // its owner is stop, which waits for it
			defer close(x.served)
			_ = x.server.Serve(x.door) // the error is that of the closed door
		}()
	}
}

// serveSMTP hands a connection to the mail server at that address, and returns when the session is
// over.
func (n *Net) serveSMTP(c net.Conn, addr netip.Addr) {
	for {
		x := n.world.Load().exchangers[addr]
		if x == nil || !n.pause(x.delay) {
			return
		}
		v := &visitor{Conn: c, left: make(chan struct{})}
		if x.door.enter(v) {
			<-v.left
			return
		}
		if n.world.Load().exchangers[addr] == x { // the world has not changed: it ends
			return
		}
	}
}

// mailSession is the dialogue on one connection.
type mailSession struct {
	net  *Net
	host *exchanger
	conn *smtp.Conn
	from string
	tls  bool // demanded with REQUIRETLS
	to   []string
}

func (s *mailSession) Reset() { s.from, s.tls, s.to = "", false, nil }

func (s *mailSession) Logout() error { return nil }

func (s *mailSession) Mail(from string, o *smtp.MailOptions) error {
	s.from, s.tls = from, o.RequireTLS
	return nil
}

func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if s.host.refuse != nil {
		return s.host.refuse
	}
	s.to = append(s.to, to)
	return nil
}

func (s *mailSession) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m := Message{Helo: s.conn.Hostname(), From: s.from, RequireTLS: s.tls, To: s.to, Data: data}
	var state tls.ConnectionState
	if state, m.TLS = s.conn.TLSConnectionState(); m.TLS {
		m.SNI = state.ServerName
	}
	return s.net.keep(s.host.name, m)
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
		addrs := p.world.exchangerAddrs(t.host)
		if len(addrs) == 0 {
			return atLine(t.line, fmt.Errorf("!tlsa: no such MX host %s", t.host))
		}
		rr, err := p.net.tlsa(p.world.exchangers[addrs[0]].cert, t)
		if err != nil {
			return atLine(t.line, fmt.Errorf("!tlsa: %w", err))
		}
		p.world.add(rr)
	}
	return nil
}

// TLSA returns the data of a TLSA record, "3 1 1 0b9f…", that matches the certificate the MX host has
// now, for zones that are served elsewhere. It makes them as a !tlsa line does, and only fails for a host
// that is not there and for numbers that mean nothing.
func (n *Net) TLSA(host string, usage, selector, matching uint8) (string, error) {
	w, t := n.world.Load(), tlsaRequest{host: hostKey(host), usage: usage, selector: selector, matching: matching}
	addrs := w.exchangerAddrs(t.host)
	if len(addrs) == 0 {
		return "", fmt.Errorf("fakenet: no such MX host %s", host)
	}
	rr, err := n.tlsa(w.exchangers[addrs[0]].cert, t)
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
