package fakenet

import (
	"crypto/tls"
	"errors"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// wellKnown is the one path that exists (RFC 8461, Section 3.3).
const wellKnown = "/.well-known/mta-sts.txt"

// httpsServer returns a function that serves one connection to the address of policy hosts.
func (n *Net) httpsServer(addr netip.Addr) func(net.Conn) {
	config := n.siteTLS(addr)
	server := &http.Server{
		Handler:  http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n.answer(w, r, addr) }),
		ErrorLog: log.New(io.Discard, "", 0),
	}
	return func(c net.Conn) {
		if s := n.world.Load().sites[addr]; s == nil || s.acceptOnly {
			blackhole(c)
			return
		}
		_ = server.Serve(tls.NewListener(newSingle(c), config)) // until c is closed
	}
}

// siteTLS is the configuration of an address of policy hosts, which chooses the host by SNI.
func (n *Net) siteTLS(addr netip.Addr) *tls.Config {
	hostFor := func(sni string) (*policyHost, error) {
		if s := n.world.Load().sites[addr]; s != nil {
			if h := s.hostForSNI(hostKey(sni)); h != nil {
				return h, nil
			}
		}
		return nil, errors.New("no host at this address")
	}
	base := n.tlsConfig(0, func(sni string) (certSpec, error) {
		h, err := hostFor(sni)
		if err != nil {
			return certSpec{}, err
		}
		return h.cert, nil
	})
	certificate := base.GetCertificate
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		h, err := hostFor(hello.ServerName)
		if err != nil {
			return nil, err
		}
		n.counts.handshake(h.name)
		if h.stall == stallTLS {
			blackhole(hello.Conn)
		}
		if h.failTLS || h.stall == stallTLS || h.needSNI && hostKey(hello.ServerName) != h.name {
			return nil, errors.New("handshake refused")
		}
		if h.maxTLS == 0 {
			return nil, nil
		}
		c := n.tlsConfig(h.maxTLS, nil)
		c.GetCertificate = certificate
		return c, nil
	}
	return base
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

// blackhole keeps a connection without a response, until the client or Close ends it.
func blackhole(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// answer answers one request at the address of policy hosts. A panic with http.ErrAbortHandler closes the
// connection.
func (n *Net) answer(w http.ResponseWriter, r *http.Request, addr netip.Addr) {
	name := r.Host
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	name = hostKey(name)
	n.counts.request(name)
	n.logf("request %s %s %s", name, r.Method, r.RequestURI)
	var h *policyHost
	if s := n.world.Load().sites[addr]; s != nil && r.RequestURI == wellKnown {
		h = s.host(name)
	}
	switch {
	case h == nil:
		http.NotFound(w, r)
		return
	case h.blockUserAgent != "" && strings.HasPrefix(r.UserAgent(), h.blockUserAgent):
		w.WriteHeader(http.StatusForbidden)
		return
	case !n.pause(h.delay):
		panic(http.ErrAbortHandler)
	case h.reset:
		resetConn(w)
		return
	case h.stall == stallHeaders:
		<-r.Context().Done() // the client or Close has ended the connection
		panic(http.ErrAbortHandler)
	}
	n.respond(w, r, h)
}

// resetConn ends the connection with a TCP reset.
func resetConn(w http.ResponseWriter) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err) // HTTP/1.1 can always be hijacked
	}
	under := c.(*tls.Conn).NetConn().(*servedConn)
	_ = under.Conn.(*net.TCPConn).SetLinger(0)
	_ = under.Close()
}

// respond sends the response of h.
func (n *Net) respond(w http.ResponseWriter, r *http.Request, h *policyHost) {
	body := h.body
	maps.Copy(w.Header(), h.header)
	switch {
	case h.status == http.StatusNoContent || h.status == http.StatusNotModified:
		body = nil // RFC 9110, Section 6.4.1
	case !h.chunked:
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(h.status)
	if h.truncate || h.stall == stallBody {
		body = body[:len(body)/2]
	}
	piece := len(body)
	switch {
	case h.drip > 0:
		piece = 1
	case h.chunked:
		piece = 32 // so that even a small policy has several
	}
	out := http.NewResponseController(w)
	for part := range slices.Chunk(body, max(piece, 1)) {
		if !n.pause(h.drip) {
			panic(http.ErrAbortHandler)
		}
		if _, err := w.Write(part); err != nil {
			return
		}
		if (h.chunked || h.drip > 0) && out.Flush() != nil {
			return
		}
	}
	if !h.truncate && h.stall != stallBody {
		return
	}
	_ = out.Flush()
	if h.stall == stallBody {
		<-r.Context().Done()
	}
	panic(http.ErrAbortHandler)
}
