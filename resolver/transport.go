package resolver

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"time"
)

// overUDP asks over UDP. The socket is new and connected, so that the port is random, and datagrams
// come only from the server (RFC 5452, Section 9.2). Those that do not match the question are passed
// over: to fail on them would let anyone who can send a datagram make the lookup fail.
func (r *Resolver) overUDP(ctx context.Context, q *query, s *server, until time.Time) error {
	conn, err := r.dial(ctx, "udp", s, until)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer guard(ctx, conn, until)()
	if _, err := conn.Write(q.sent[2:]); err != nil {
		return err
	}
	for {
		n, err := conn.Read(q.recv)
		if err != nil {
			return err
		}
		if !q.matches(q.recv[:n]) {
			continue
		}
		if n == len(q.recv) {
			q.recv[2] |= bitTC // the rest of the datagram is lost
		}
		return q.accept(q.recv[:n])
	}
}

// overStream asks over TCP, or over TLS.
func (r *Resolver) overStream(ctx context.Context, q *query, s *server, until time.Time) error {
	conn, err := r.dial(ctx, "tcp", s, until)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer guard(ctx, conn, until)()
	if s.tls != nil {
		conf := s.tls
		if r.roots != nil {
			conf = conf.Clone()
			conf.RootCAs = r.roots
		}
		tconn := tls.Client(conn, conf)
		if err := tconn.HandshakeContext(ctx); err != nil {
			return err
		}
		conn = tconn
	}
	if _, err := conn.Write(q.sent); err != nil {
		return err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return err
	}
	// Not the query's own buffer: that would grow to 64 KiB for good.
	data := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, data); err != nil {
		return err
	}
	if !q.matches(data) {
		return wireError("not to the question")
	}
	if err := q.accept(data); err != nil {
		return err
	}
	if q.reply.truncated {
		return wireError("truncated over TCP")
	}
	return nil
}

// guard ends what conn is doing at the given time, or when ctx ends. It returns what stops that, to be
// called before conn is closed. A goroutine runs only if ctx ends, and not for long.
func guard(ctx context.Context, conn net.Conn, until time.Time) (stop func() bool) {
	conn.SetDeadline(until)
	return context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
}

// dial opens a connection to s.
func (r *Resolver) dial(ctx context.Context, network string, s *server, until time.Time) (net.Conn, error) {
	if r.dialer == nil && network == "udp" {
		// No packet is sent for this, so it needs no timer; and no text is made of the address only
		// to be parsed again.
		return opened(new(net.Dialer).DialUDP(ctx, "udp", netip.AddrPort{}, s.addr))
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	if r.dialer != nil {
		return r.dialer(ctx, network, s.addr.String())
	}
	return opened(new(net.Dialer).DialTCP(ctx, network, netip.AddrPort{}, s.addr))
}

// opened makes a net.Conn of what a dialer returned, which is nil, and not a nil pointer, on failure.
func opened[C net.Conn](c C, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}
