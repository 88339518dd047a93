package fakenet

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// nameServer answers over UDP and TCP on one port.
type nameServer struct {
	udp *net.UDPConn
}

// The sizes of messages: what RFC 1035, Section 2.3.4, allows a client without EDNS, and what the DNS
// Flag Day 2020 made the custom of servers.
const (
	plainSize = 512
	ednsSize  = 1232
)

// listenDNS opens the port and starts to answer. An ephemeral port that TCP got may be taken for UDP, so
// that needs some tries.
func (n *Net) listenDNS(addr string) (*nameServer, error) {
	var err error
	for range 20 {
		var tcp net.Listener
		if tcp, err = net.Listen("tcp", addr); err != nil {
			return nil, err
		}
		var udp net.PacketConn
		if udp, err = net.ListenPacket("udp", tcp.Addr().String()); err != nil {
			tcp.Close()
			continue
		}
		s := &nameServer{udp: udp.(*net.UDPConn)}
		_ = s.udp.SetReadBuffer(1 << 20) // as much as the system grants will do
		at := endpoint{service: dnsTCP}
		l := &listener{Listener: tcp, at: at, serve: func(c net.Conn) { n.serveTCP(c, at.addr) }}
		n.listeners[at] = l
		n.wg.Go(func() { n.accept(l) })
		n.wg.Go(func() { n.serveUDP(s.udp, at.addr) })
		return s, nil
	}
	return nil, err
}

// listenView opens the ports of a name server that has answers of its own, at
// an address that Dial knows.
func (n *Net) listenView(at endpoint) (*listener, error) {
	var err error
	for range 20 {
		var tcp net.Listener
		if tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, err
		}
		var udp net.PacketConn
		if udp, err = net.ListenPacket("udp", tcp.Addr().String()); err != nil {
			tcp.Close()
			continue
		}
		n.wg.Go(func() { n.serveUDP(udp.(*net.UDPConn), at.addr) })
		return &listener{Listener: both{tcp, udp}, at: at, serve: func(c net.Conn) { n.serveTCP(c, at.addr) }}, nil
	}
	return nil, err
}

// both are the two ports of a name server, which are closed together.
type both struct {
	net.Listener
	udp net.PacketConn
}

func (b both) Close() error {
	b.udp.Close()
	return b.Listener.Close()
}

// serveUDP answers in the loop itself what need not wait: that is faster than a goroutine a question.
func (n *Net) serveUDP(c *net.UDPConn, view netip.Addr) {
	buf := make([]byte, 64<<10)
	for {
		size, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		t := n.handle(buf[:size], false, view)
		n.deliver(t, func() {
			for _, packet := range t.packets {
				_, _ = c.WriteToUDPAddrPort(packet, from)
			}
		})
	}
}

// serveTCP answers questions in the order in which they are ready, not that in which they came
// (RFC 7766, Section 6.2.1.1).
func (n *Net) serveTCP(c net.Conn, view netip.Addr) {
	var mu sync.Mutex // one message at a time
	var pending sync.WaitGroup
	defer pending.Wait()
	defer c.Close() // before the wait: what is pending has nobody to go to
	var prefix [2]byte
	for {
		if _, err := io.ReadFull(c, prefix[:]); err != nil {
			return
		}
		packet := make([]byte, binary.BigEndian.Uint16(prefix[:]))
		if _, err := io.ReadFull(c, packet); err != nil {
			return
		}
		t := n.handle(packet, true, view)
		if t.hangUp {
			return
		}
		pending.Go(func() {
			if !n.pause(t.delay) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, packet := range t.packets {
				_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...))
			}
		})
	}
}

// deliver calls send after the delay of t.
func (n *Net) deliver(t treatment, send func()) {
	if t.delay == 0 {
		send()
		return
	}
	n.wg.Go(func() {
		if n.pause(t.delay) {
			send()
		}
	})
}

// treatment is what a question gets.
type treatment struct {
	packets [][]byte
	delay   time.Duration
	hangUp  bool
}

// handle turns a packet into its treatment, which does not refer to the packet any more.
func (n *Net) handle(packet []byte, tcp bool, view netip.Addr) treatment {
	var query dns.Msg
	if err := query.Unpack(packet); err != nil || query.Response {
		return treatment{}
	}
	reply := new(dns.Msg)
	reply.SetReply(&query)
	reply.Authoritative = true
	reply.RecursionAvailable = query.RecursionDesired // for those who take us for a resolver
	room := plainSize
	opt := query.IsEdns0()
	if opt != nil {
		reply.SetEdns0(ednsSize, opt.Do())
		room = max(room, int(opt.UDPSize()))
	}
	if tcp {
		room = dns.MaxMsgSize
	}
	switch {
	case query.Opcode != dns.OpcodeQuery:
		reply.Rcode = dns.RcodeNotImplemented
	case len(query.Question) != 1:
		reply.Rcode = dns.RcodeFormatError
	case opt != nil && opt.Version() != 0:
		reply.Rcode = dns.RcodeBadVers
	case query.Question[0].Qclass != dns.ClassINET:
		reply.Rcode = dns.RcodeRefused
	default:
		return n.treat(&query, reply, room, tcp, view)
	}
	return treatment{packets: pack(reply, room)}
}

// treat answers a well-formed question, as far as its faults allow.
func (n *Net) treat(query, reply *dns.Msg, room int, tcp bool, view netip.Addr) treatment {
	world := n.world.Load()
	w := world.zone
	if z := world.views[view]; z != nil {
		w = z
	}
	q := query.Question[0]
	name := dns.CanonicalName(q.Name)
	n.counts.query(name, q.Qtype)
	if n.opts.Log != nil {
		n.logf("query %s %s tcp=%t", name, dns.Type(q.Qtype), tcp)
	}
	e := w.effects(name, q.Qtype)
	t := treatment{delay: e.delay, hangUp: tcp && e.hangUp}
	if e.silent || t.hangUp {
		return t
	}
	reply.Rcode = e.rcode
	switch e.rcode {
	case dns.RcodeSuccess:
		w.answer(q, e.bare, reply)
	case dns.RcodeNameError:
		reply.Ns = w.soa(name)
	}
	if e.authentic && reply.Rcode != dns.RcodeServerFailure {
		// RFC 6840, Section 5.8: only for those who asked.
		opt := query.IsEdns0()
		reply.AuthenticatedData = query.AuthenticatedData || opt != nil && opt.Do()
	}
	if e.truncate && !tcp {
		reply.Truncated = true
		reply.Answer, reply.Ns = nil, nil
	}
	t.packets = pack(reply, room)
	if e.garbage && len(t.packets) > 0 {
		t.packets[0] = spoil(t.packets[0])
	}
	if e.wrongID && len(t.packets) > 0 {
		wrong := append([]byte(nil), t.packets[0]...)
		wrong[0] ^= 0x55
		t.packets = append([][]byte{wrong}, t.packets...)
	}
	return t
}

// effects are the faults on a question, and the delay of bulk domains.
func (z *zone) effects(name string, qtype uint16) effects {
	e := z.faults.on(name, qtype)
	for _, b := range z.bulks {
		if b.dnsDelay > e.delay && b.covers(name) {
			e.delay = b.dnsDelay
		}
	}
	return e
}

// pack brings a reply into at most room bytes.
func pack(reply *dns.Msg, room int) [][]byte {
	reply.Compress = true
	if !reply.Truncated {
		reply.Truncate(room)
	}
	packet, err := reply.Pack()
	if err != nil { // a record that the description should not have got through the parser
		reply.Rcode = dns.RcodeServerFailure
		reply.Answer, reply.Ns = nil, nil
		if packet, err = reply.Pack(); err != nil {
			return nil
		}
	}
	return [][]byte{packet}
}

// spoil keeps the header, so that a client takes the packet for its answer, and breaks off within the
// question.
func spoil(packet []byte) []byte {
	return append(packet[:12:12], 0x3f, 'x', 0xff)
}
