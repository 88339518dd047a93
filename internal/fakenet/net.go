package fakenet

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Options say where a Net listens. The zero value suits a test: ephemeral ports on loopback, and
// nothing written.
type Options struct {
	// DNS is the address of the name server, for UDP and TCP on the same port; empty means
	// "127.0.0.1:0". It should name one address: an answer to a question that came in through a
	// wildcard address may leave from another.
	DNS string

	// HTTPSPort is the port of the policy hosts. With 0 every address has a port of its own, and
	// Dial finds it; an address that is not loopback is then served on 127.0.0.1.
	HTTPSPort int

	// SMTPPort is the same as HTTPSPort for the MX hosts.
	SMTPPort int

	// Dir is where ca.pem is written; empty means that it is not. The folder is created if need be.
	Dir string

	// Log, if not nil, is called with one line for every question, request and message, by many
	// goroutines at once.
	Log func(line string)
}

// Net is a small internet that runs until Close. Its methods may be called concurrently.
type Net struct {
	opts   Options
	ca     *authority
	world  atomic.Pointer[world]
	counts counters
	dns    *nameServer
	done   chan struct{} // closed by Close
	wg     sync.WaitGroup

	updating sync.Mutex // one Update or Close at a time

	mu        sync.Mutex // guards what follows
	closed    bool
	listeners map[endpoint]*listener
	conns     map[net.Conn]endpoint
}

// service is what an endpoint speaks. Its value is the well-known port, which Dial maps.
type service uint16

const (
	dnsTCP service = 53
	https  service = 443
	smtp25 service = 25
)

// endpoint is an address of the world, not of this machine: it may be served elsewhere.
type endpoint struct {
	service service
	addr    netip.Addr
}

// Start serves the world of the description. An error in the description names its line. An error to
// listen is that of package net, and leaves nothing open.
func Start(description string, o Options) (*Net, error) {
	ca, err := newAuthority()
	if err != nil {
		return nil, fmt.Errorf("fakenet: %w", err)
	}
	n := &Net{
		opts:      o,
		ca:        ca,
		done:      make(chan struct{}),
		listeners: make(map[endpoint]*listener),
		conns:     make(map[net.Conn]endpoint),
	}
	n.counts.init()
	if o.Dir != "" {
		if err := os.MkdirAll(o.Dir, 0o755); err != nil {
			return nil, fmt.Errorf("fakenet: %w", err)
		}
		if err := os.WriteFile(filepath.Join(o.Dir, "ca.pem"), n.CAPEM(), 0o644); err != nil {
			return nil, fmt.Errorf("fakenet: %w", err)
		}
	}
	addr := o.DNS
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	n.world.Store(&world{zone: newZone()})
	if n.dns, err = n.listenDNS(addr); err != nil {
		return nil, fmt.Errorf("fakenet: %w", err)
	}
	if err := n.Update(description); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// Update replaces the whole world at once; on an error the old one stays as it was. Listeners of
// addresses that stay are kept, and so are the connections to them, counters and certificates.
func (n *Net) Update(description string) error {
	n.updating.Lock()
	defer n.updating.Unlock()
	w, err := n.parse(description)
	if err != nil {
		return fmt.Errorf("fakenet: %w", err)
	}
	fresh, err := n.listenAll(w)
	if err != nil {
		return fmt.Errorf("fakenet: %w", err)
	}
	if !n.adopt(w, fresh) {
		closeAll(fresh)
		return fmt.Errorf("fakenet: %w", net.ErrClosed)
	}
	return nil
}

// listenAll opens what the new world needs and is not open yet.
func (n *Net) listenAll(w *world) (map[endpoint]*listener, error) {
	fresh := make(map[endpoint]*listener)
	for at, p := range w.places {
		if p.down || n.listener(at) != nil {
			continue
		}
		l, err := n.listen(at)
		if err != nil {
			closeAll(fresh)
			return nil, err
		}
		fresh[at] = l
	}
	return fresh, nil
}

func closeAll(listeners map[endpoint]*listener) {
	for _, l := range listeners {
		l.Close()
	}
}

// adopt makes w the world of n, with its new listeners, and closes those that w has no use for. It
// reports false if n is closed.
func (n *Net) adopt(w *world, fresh map[endpoint]*listener) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.world.Store(w)
	for at, l := range n.listeners {
		if p := w.places[at]; p != nil && !p.down || at == (endpoint{service: dnsTCP}) {
			continue
		}
		delete(n.listeners, at)
		l.Close()
		for c, from := range n.conns {
			if from == at {
				c.Close()
			}
		}
	}
	for at, l := range fresh {
		n.listeners[at] = l
		n.wg.Go(func() { n.accept(l) })
	}
	return true
}

// Close ends every listener and connection, and waits for all goroutines of n. It may be called
// again.
func (n *Net) Close() {
	n.updating.Lock()
	defer n.updating.Unlock()
	n.mu.Lock()
	if !n.closed {
		n.closed = true
		close(n.done)
		n.dns.udp.Close()
		closeAll(n.listeners)
		for c := range n.conns {
			c.Close()
		}
	}
	n.mu.Unlock()
	n.wg.Wait()
}

// DNSAddr is the address of the name server, "127.0.0.1:5353", for UDP and TCP.
func (n *Net) DNSAddr() string { return n.dns.udp.LocalAddr().String() }

// HTTPSAddr returns where the policy host is served on this machine, "127.0.0.2:40123": its lowest address
// that is not down. It is empty if there is none.
func (n *Net) HTTPSAddr(host string) string {
	is := func(s *site) bool { return s.host(hostKey(host)) != nil }
	return n.where(https, addrsOf(n.world.Load().sites, is))
}

// SMTPAddr is the same as HTTPSAddr for an MX host.
func (n *Net) SMTPAddr(host string) string {
	return n.where(smtp25, n.world.Load().mxAddrs(hostKey(host)))
}

func (n *Net) where(s service, addrs []netip.Addr) string {
	for _, a := range addrs {
		if l := n.listener(endpoint{s, a}); l != nil {
			return l.Addr().String()
		}
	}
	return ""
}

// Dial is a net.Dialer for this world: port 443 of a policy host's address and port 25 of an MX
// host's lead to where they are really served, or to ECONNREFUSED if the host is down, or nowhere until
// ctx ends if it is silent; port 53 of a name server with a section of its own leads there. Any other
// address is dialled as it is.
func (n *Net) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return d.DialContext(ctx, network, addr)
	}
	at := endpoint{service(ap.Port()), ap.Addr().Unmap().WithZone("")}
	p := n.world.Load().places[at]
	if p != nil && p.silent {
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(ap), Err: ctx.Err()}
	}
	if l := n.listener(at); l != nil {
		if at.service != dnsTCP {
			network = "tcp" // of whatever family the address was
		}
		return d.DialContext(ctx, network, l.Addr().String())
	}
	if p != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(ap), Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	return d.DialContext(ctx, network, addr)
}

// Roots is a new pool with nothing but the root of this world's certificates.
func (n *Net) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(n.ca.root.cert)
	return pool
}

// CAPEM is the root certificate, PEM encoded.
func (n *Net) CAPEM() []byte { return n.ca.root.pem() }

// pause waits for d, and reports false if the Net was closed meanwhile.
func (n *Net) pause(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-n.done:
		return false
	}
}

// logf calls Options.Log, if there is one.
func (n *Net) logf(format string, args ...any) {
	if n.opts.Log != nil {
		n.opts.Log(fmt.Sprintf(format, args...))
	}
}

// listener is an open port, and the address of the world it stands for.
type listener struct {
	net.Listener
	at    endpoint
	serve func(net.Conn)
}

func (n *Net) listener(at endpoint) *listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.listeners[at]
}

// listen opens the port for an endpoint.
func (n *Net) listen(at endpoint) (*listener, error) {
	if at.service == dnsTCP {
		return n.listenView(at)
	}
	port := n.opts.HTTPSPort
	if at.service == smtp25 {
		port = n.opts.SMTPPort
	}
	addr := at.addr
	if port == 0 && !addr.IsLoopback() {
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	tcp, err := net.Listen("tcp", net.JoinHostPort(addr.String(), strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	l := &listener{Listener: tcp, at: at}
	switch at.service {
	case https:
		l.serve = n.httpsServer(at.addr)
	case smtp25:
		l.serve = func(c net.Conn) { n.serveSMTP(c, at.addr) }
	}
	return l, nil
}

// accept gives every connection a goroutine, until the listener is closed.
func (n *Net) accept(l *listener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // too many open files, most likely
			if !n.pause(5 * time.Millisecond) {
				return
			}
			continue
		}
		n.wg.Go(func() {
			defer c.Close()
			if n.track(c, l.at) {
				defer n.untrack(c)
				l.serve(c)
			}
		})
	}
}

func (n *Net) track(c net.Conn, at endpoint) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || n.listeners[at] == nil {
		return false
	}
	n.conns[c] = at
	return true
}

func (n *Net) untrack(c net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
}
