package stsfetch

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// An origin is a policy host that sends bytes as they are, and keeps what it
// was sent.
type origin struct {
	response    []byte
	stream      func(io.Writer) // writes on after response, until that fails; nil for nothing
	abort, open bool
	roots       *x509.CertPool
	cert        tls.Certificate
	listener    net.Listener
	running     sync.WaitGroup

	mu    sync.Mutex
	seen  []seen
	fault error
}

// seen is one connection.
type seen struct {
	request []byte // up to the empty line
	after   []byte // what the client sent after the response
	state   tls.ConnectionState
}

func newOrigin(t *testing.T, o *origin, names ...string) *origin {
	t.Helper()
	o.cert, o.roots = selfIssued(t, names)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.listener = l
	o.running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			o.running.Go(func() { o.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		o.running.Wait()
		if o.fault != nil {
			t.Error(o.fault)
		}
	})
	return o
}

// selfIssued returns a certificate for names that is its own authority.
func selfIssued(t *testing.T, names []string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// serve answers one connection and waits until the client has closed it.
func (o *origin) serve(raw net.Conn) {
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(time.Minute)) // a client that never closes fails the test
	conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{o.cert}, NextProtos: []string{"h2", "http/1.1"}})
	var s seen
	var buf [4096]byte
	for !bytes.Contains(s.request, []byte("\r\n\r\n")) {
		n, err := conn.Read(buf[:])
		s.request = append(s.request, buf[:n]...)
		if err != nil {
			o.fail(fmt.Errorf("after %q: %w", s.request, err))
			return
		}
	}
	s.state = conn.ConnectionState()
	// The client may have had enough before it has heard everything.
	_, _ = conn.Write(o.response)
	if o.stream != nil {
		o.stream(conn)
	}
	if o.abort {
		raw.(*net.TCPConn).CloseWrite()
	} else if !o.open {
		conn.CloseWrite()
	}
	after, err := io.ReadAll(conn)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		o.fail(fmt.Errorf("the client did not close: %w", err))
	}
	s.after = after
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, s)
}

func (o *origin) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fault = err
}

// fetcher returns a Fetcher for which the only address of example.com's policy
// host leads to o.
func (o *origin) fetcher(t *testing.T) *Fetcher {
	w := newWorld(t, "-- dns --\nmta-sts.example.com. A 9.9.9.1\n")
	return w.fetcher(t, Config{Roots: o.roots, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, o.listener.Addr().String())
	}})
}

// connections waits until o has nothing to do any more, and returns what it saw.
func (o *origin) connections() []seen {
	o.listener.Close()
	o.running.Wait()
	return o.seen
}

// TestRequest: the bytes on the wire. One connection, one request, nothing by
// which a cache could answer (RFC 8461, Section 3.3), the name in SNI (Section
// 7.1), and no other protocol than HTTP/1.1.
func TestRequest(t *testing.T) {
	o := newOrigin(t, &origin{open: true, response: []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nETag: \"x\"\r\nContent-Length: " +
		strconv.Itoa(len(policyText)) + "\r\n\r\n" + policyText)}, "mta-sts.example.com")
	f := o.fetcher(t)
	for range 2 { // the second is like the first: no cache, no kept connection
		want(t, fetch(t, f), "", "")
	}
	conns := o.connections()
	if len(conns) != 2 {
		t.Fatalf("%d connections for two retrievals", len(conns))
	}
	const request = "GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: mta-sts.example.com\r\nUser-Agent: stsmap\r\nConnection: close\r\n" +
		"Accept: text/plain\r\nAccept-Encoding: identity\r\n\r\n"
	for _, s := range conns {
		if string(s.request) != request {
			t.Errorf("request\n%s\nwant\n%s", s.request, request)
		}
		if len(s.after) > 0 {
			t.Errorf("after the response came %q", s.after)
		}
		if s.state.ServerName != "mta-sts.example.com" || s.state.NegotiatedProtocol != "http/1.1" || s.state.DidResume {
			t.Errorf("SNI %q, protocol %q, resumed %t", s.state.ServerName, s.state.NegotiatedProtocol, s.state.DidResume)
		}
	}
}

// TestResponses runs testdata/responses.txt.
func TestResponses(t *testing.T) {
	for _, c := range readResponses(t) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin(t, &origin{response: c.sent, abort: c.abort, open: c.open}, "mta-sts.example.com")
			want(t, fetch(t, o.fetcher(t)), c.step, c.text)
			if n := len(o.connections()); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

type response struct {
	name        string
	sent        []byte
	abort, open bool
	step        Step
	text        string
}

func readResponses(t *testing.T) (all []*response) {
	t.Helper()
	data, err := os.ReadFile("testdata/responses.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		if word == "case" {
			name, _, _ := strings.Cut(rest, ":")
			all = append(all, &response{name: name})
			continue
		}
		if err := all[len(all)-1].read(word, rest); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return all
}

func (r *response) read(word, rest string) (err error) {
	times := 1
	switch word {
	case "times":
		number, text, _ := strings.Cut(rest, " ")
		if times, err = strconv.Atoi(number); err != nil {
			return err
		}
		rest = text
		fallthrough
	case "send":
		var text string
		text, err = strconv.Unquote(rest)
		r.sent = append(r.sent, strings.Repeat(text, times)...)
	case "policy":
		r.sent = append(r.sent, policyText...)
	case "abort":
		r.abort = true
	case "open":
		r.open = true
	case "step":
		r.step = Step(rest)
	case "error":
		r.text, err = strconv.Unquote(rest)
	default:
		err = fmt.Errorf("unknown word %q", word)
	}
	return err
}

func parseLeaf(c tls.Certificate) (*x509.Certificate, error) {
	return x509.ParseCertificate(c.Certificate[0])
}
