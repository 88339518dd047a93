package stsfetch

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"
)

const (
	// budgetShare is the part of Config.Timeout that connecting may take, and the
	// TLS handshake as well: a third each. A third at least remains for the response.
	budgetShare = 3
	// maxHandshake limits what a host may send in the TLS handshake, in bytes.
	maxHandshake = 64 << 10
	// maxOverhead limits what a host may send besides the policy, in bytes:
	// handshake, header, framing, and what TLS adds to each record.
	maxOverhead = 96 << 10
	// receiveBuffer limits what the kernel receives before it is read, in bytes. If
	// the kernel chose the size, a fetch that ends early would have cost megabytes of
	// traffic.
	receiveBuffer = 40 << 10
)

// errWireLimit is the error of a meteredConn whose peer sent too much.
var errWireLimit = errors.New("too many bytes received")

// fetchOver fetches the policy file from host over conn, which it closes, and
// records in p what it sees on the way.
//
// The host is bounded in time: a part of the timeout for the handshake, and the
// deadline of ctx for the rest. It is bounded in bytes: maxOverhead and the
// largest policy.
func (f *Fetcher) fetchOver(ctx context.Context, conn net.Conn, host string, p *Probe) ([]byte, error) {
	defer conn.Close()
	// One deadline and one callback cover handshake and exchange; tls's own
	// HandshakeContext would start a goroutine for each fetch.
	deadline, bounded := ctx.Deadline()
	handshakeEnd := time.Now().Add(f.timeout / budgetShare)
	if bounded && deadline.Before(handshakeEnd) {
		handshakeEnd = deadline
	}
	conn.SetDeadline(handshakeEnd)
	defer interrupt(ctx, conn)()

	raw := &meteredConn{Conn: conn, left: maxHandshake}
	secured := tls.Client(raw, f.tlsConfig(host))
	err := secured.Handshake()
	p.recordHandshake(secured, err)
	switch {
	case err != nil && raw.left <= 0:
		return nil, stepErrf(StepTooLarge, "TLS handshake is larger than %d bytes", maxHandshake)
	case err != nil:
		return nil, f.handshakeError(err)
	}
	raw.left += maxOverhead - maxHandshake + f.maxSize
	conn.SetDeadline(deadline) // zero: none
	if err := ctx.Err(); err != nil {
		// The callback may have run before the deadline was moved.
		return nil, stepErr(StepHTTP, err)
	}
	body, toEOF, err := exchange(secured, host, f.userAgent, f.maxSize, p)
	switch {
	case err != nil && raw.left <= 0:
		return nil, stepErrf(StepTooLarge, "response is larger than %d bytes with what TLS adds", maxOverhead+f.maxSize)
	case err == nil && toEOF && raw.eof:
		return nil, stepErrf(StepHTTP, "policy ended early: the connection was cut")
	}
	return body, err
}

// interrupt ends all I/O on conn when ctx ends, until the function that it returns is
// called. That reports whether ctx has not ended, and otherwise waits until I/O was
// interrupted.
func interrupt(ctx context.Context, conn net.Conn) (stop func() bool) {
	interrupted := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		conn.SetDeadline(time.Unix(1, 0))
	})
	return func() bool {
		if cancel() {
			return true
		}
		<-interrupted
		return false
	}
}

// tlsConfig returns the settings for a connection to host.
func (f *Fetcher) tlsConfig(host string) *tls.Config {
	return &tls.Config{
		// ServerName is sent as SNI (RFC 8461, Section 7.1) and is the one
		// DNS-ID that the certificate must have (Section 3.3); crypto/x509
		// never falls back to the common name.
		ServerName: host,
		RootCAs:    f.anchors.Pool(),
		MinVersion: tls.VersionTLS12, // RFC 8461, Section 7.2
		NextProtos: []string{"http/1.1"},
		// Without the post-quantum hybrids, which come first by default. They
		// keep a secret from a later listener; here the answer is public, and
		// only the identity of the host has to be certain. Their keys cost a
		// twelfth of the time of a fetch, and make a first message of two
		// packets, which some firewalls do not let through.
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521},
	}
}

// A meteredConn bounds how many bytes are read from a connection, and records that
// the connection itself ended. crypto/tls reports that as io.EOF just as it does
// the peer's close_notify, out of kindness to old servers; but where the end of
// the connection is the end of the body, an attacker on the path would cut a
// policy short by it.
type meteredConn struct {
	net.Conn
	left int  // left is how many bytes may still be read.
	eof  bool // eof is whether the connection ended.
}

// Read implements net.Conn. Its error is errWireLimit once nothing may be read.
func (c *meteredConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errWireLimit
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	if err == io.EOF {
		c.eof = true
	}
	return n, err
}
