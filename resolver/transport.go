package resolver

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// readSize is how much of a datagram is read: some servers send more than udpSize.
const readSize = dns.DefaultMsgSize

// overUDP asks over UDP. The socket is new and connected, so that the port is random, and datagrams
// come only from the server (RFC 5452, Section 9.2). Those that do not match the query are skipped: to
// fail on them would let anyone who can send a datagram make the lookup fail.
func (r *Resolver) overUDP(ctx context.Context, s *server, q *dns.Msg) (*dns.Msg, error) {
	c, err := r.dial(ctx, "udp", s)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer guard(ctx, c)()
	buf := r.buffers.Get().(*[readSize]byte)
	defer r.buffers.Put(buf)
	data, err := q.PackBuffer(buf[:])
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(data); err != nil {
		return nil, err
	}
	for {
		n, err := c.Read(buf[:])
		if err != nil {
			return nil, err
		}
		if n == readSize {
			buf[2] |= 0x02 // TC: the rest of the datagram is lost
		}
		if m, err := receive(q, buf[:n]); err != errMismatch {
			return m, err
		}
	}
}

// overTCP asks over TCP, on a connection of its own.
func (r *Resolver) overTCP(ctx context.Context, s *server, q *dns.Msg) (*dns.Msg, error) {
	c, err := r.dial(ctx, "tcp", s)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer guard(ctx, c)()
	conn := &dns.Conn{Conn: c}
	if err := conn.WriteMsg(q); err != nil {
		return nil, err
	}
	data, err := conn.ReadMsgHeader(nil)
	if err != nil {
		return nil, err
	}
	return receiveStream(q, data)
}

// receiveStream is receive for a stream, which has nothing but responses to our queries.
func receiveStream(q *dns.Msg, data []byte) (*dns.Msg, error) {
	m, err := receive(q, data)
	if err == errMismatch {
		err = wireError(err.Error())
	}
	return m, err
}

// guard ends what conn is doing when ctx ends. It returns what stops that, to be called before conn is
// closed. A goroutine runs only if ctx ends, and not for long.
func guard(ctx context.Context, conn net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
}

// dial opens a connection to s.
func (r *Resolver) dial(ctx context.Context, network string, s *server) (net.Conn, error) {
	switch {
	case r.dialer != nil:
		return r.dialer(ctx, network, s.addr.String())
	case network == "udp":
		return netConn(new(net.Dialer).DialUDP(ctx, network, netip.AddrPort{}, s.addr))
	}
	return netConn(new(net.Dialer).DialTCP(ctx, network, netip.AddrPort{}, s.addr))
}

// netConn makes a net.Conn of what a dialer returned, which is nil, and not a nil pointer, on failure.
func netConn[C net.Conn](c C, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}
