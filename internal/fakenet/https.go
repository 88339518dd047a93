package fakenet

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
)

// wellKnown is the one path that exists (RFC 8461, Section 3.3).
const wellKnown = "/.well-known/mta-sts.txt"

// httpsServer returns what serves the connections to a policy host's address. It is written by hand on
// crypto/tls, since the server shares the machine with what is measured, and net/http costs as much
// again as the request.
func (n *Net) httpsServer(addr netip.Addr) func(net.Conn) {
	base := n.tlsConfig(0, func(sni string) (certSpec, error) {
		s := n.world.Load().sites[addr]
		if s == nil {
			return certSpec{}, errors.New("address has left the world")
		}
		h := s.greeter(hostKey(sni))
		if h == nil {
			return certSpec{}, errors.New("address has no such host")
		}
		return h.cert, nil
	})
	plain := base.GetCertificate
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		s := n.world.Load().sites[addr]
		if s == nil {
			return nil, errors.New("address has left the world")
		}
		h := s.greeter(hostKey(hello.ServerName))
		if h == nil {
			return nil, errors.New("address has no such host")
		}
		n.counts.handshake(h.name)
		if h.stall == stallTLS {
			hold(hello.Conn)
		}
		if h.failTLS || h.stall == stallTLS || h.needSNI && hostKey(hello.ServerName) != h.name {
			return nil, errors.New("handshake refused")
		}
		if h.maxTLS != 0 {
			c := n.tlsConfig(h.maxTLS, nil)
			c.GetCertificate = plain
			return c, nil
		}
		return nil, nil
	}
	return func(c net.Conn) {
		if s := n.world.Load().sites[addr]; s == nil || s.mute {
			hold(c)
			return
		}
		n.serveHTTPS(c, addr, base)
	}
}

// tlsConfig is the configuration of all servers. Sessions are not resumed, so that every connection
// verifies the certificate of its time. The curves leave out the post-quantum hybrid, which would cost
// more than all the rest of a handshake.
func (n *Net) tlsConfig(highest uint16, choose func(sni string) (certSpec, error)) *tls.Config {
	c := &tls.Config{
		MaxVersion:             highest,
		SessionTicketsDisabled: true,
		CurvePreferences:       []tls.CurveID{tls.X25519, tls.CurveP256},
		NextProtos:             []string{"http/1.1"},
	}
	if highest != 0 && highest < tls.VersionTLS12 {
		c.MinVersion = tls.VersionTLS10
	}
	if choose != nil {
		c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			spec, err := choose(hello.ServerName)
			if err != nil {
				return nil, err
			}
			return n.ca.leaf(spec)
		}
	}
	return c
}

// hold keeps a connection without answering, until the client or Close ends it.
func hold(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// serveHTTPS does one handshake, and answers requests until the client has no more.
func (n *Net) serveHTTPS(raw net.Conn, addr netip.Addr, conf *tls.Config) {
	c := tls.Server(raw, conf)
	if err := c.Handshake(); err != nil {
		return
	}
	in := bufio.NewReaderSize(c, 2048)
	for {
		r, err := readRequest(in)
		if err != nil {
			_ = c.Close()
			return
		}
		n.counts.request(r.host)
		if n.opts.Log != nil {
			n.logf("request %s %s %s", r.host, r.method, r.path)
		}
		var h *policyHost
		if s := n.world.Load().sites[addr]; s != nil {
			h = s.host(r.host)
		}
		if h == nil || r.path != wellKnown {
			h = nowhere()
		}
		if h.shuns != "" && strings.HasPrefix(r.agent, h.shuns) {
			h = forbidden()
		}
		if !n.respond(c, raw, h, r) {
			return
		}
		if r.last {
			_ = c.Close()
			return
		}
	}
}

// nowhere is the host that has nothing.
func nowhere() *policyHost {
	return &policyHost{
		head: []byte("HTTP/1.1 404 Fakenet\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\n"),
		body: []byte("not found\n"),
	}
}

// forbidden is the host that does not like its visitor.
func forbidden() *policyHost {
	return &policyHost{head: []byte("HTTP/1.1 403 Fakenet\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n")}
}

// respond sends the answer of h, and reports whether the connection can go on.
func (n *Net) respond(c *tls.Conn, raw net.Conn, h *policyHost, r request) bool {
	if !n.pause(h.delay) {
		return false
	}
	if h.reset {
		if tcp, ok := raw.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		return false
	}
	if h.stall == stallHeaders {
		hold(raw)
		return false
	}
	body := h.body
	if r.method == "HEAD" {
		body = nil
	}
	if h.cut || h.stall == stallBody {
		body = body[:len(body)/2]
	}
	if h.drip > 0 {
		if !n.drip(c, h, body) {
			return false
		}
	} else if _, err := c.Write(append(h.head[:len(h.head):len(h.head)], body...)); err != nil {
		return false
	}
	if h.stall == stallBody {
		hold(raw)
	}
	return !h.cut && h.stall == ""
}

// drip sends the body a byte at a time.
func (n *Net) drip(c *tls.Conn, h *policyHost, body []byte) bool {
	if _, err := c.Write(h.head); err != nil {
		return false
	}
	for i := range body {
		if !n.pause(h.drip) {
			return false
		}
		if _, err := c.Write(body[i : i+1]); err != nil {
			return false
		}
	}
	return true
}

// request is as much of an HTTP request as matters here.
type request struct {
	method, path, host string
	agent              string
	last               bool // the client wants the connection closed
}

var errRequest = errors.New("malformed request")

// readRequest reads the head of a request. Bodies are not expected: a GET has none.
func readRequest(in *bufio.Reader) (request, error) {
	var r request
	line, err := readLine(in)
	if err != nil {
		return r, err
	}
	method, rest, _ := bytes.Cut(line, []byte(" "))
	path, version, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		return r, errRequest
	}
	r.method, r.path = string(method), string(path)
	r.last = string(version) == "HTTP/1.0"
	for {
		line, err := readLine(in)
		if err != nil || len(line) == 0 {
			return r, err
		}
		key, value, _ := bytes.Cut(line, []byte(":"))
		switch value := string(bytes.TrimSpace(value)); {
		case bytes.EqualFold(key, []byte("Host")):
			if host, _, err := net.SplitHostPort(value); err == nil {
				value = host
			}
			r.host = hostKey(value)
		case bytes.EqualFold(key, []byte("User-Agent")):
			r.agent = value
		case bytes.EqualFold(key, []byte("Connection")):
			r.last = r.last || strings.EqualFold(value, "close")
		}
	}
}

// readLine returns a line without its end, valid until the next read.
func readLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}
