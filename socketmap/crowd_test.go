package socketmap

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
)

// Vector R13, and conformance D3-7: as many as there are processes of Postfix, and as many as there may be.
func TestManyConnections(t *testing.T) {
	for _, n := range []int{300, 2000} {
		l := listen(t, "tcp")
		s := &Server{Handler: HandlerFunc(obey)}
		start(t, s, l)
		var conns []net.Conn
		for range n {
			conns = append(conns, dial(t, l))
		}
		for range 2 {
			for _, nc := range conns {
				send(t, nc, "6:OK one,")
			}
			for _, nc := range conns {
				recv(t, nc, "6:OK one,")
			}
		}
		got := s.Stats()
		got.Busy = 0 // a client can have its reply before the connection knows
		if got != (Stats{Conns: n}) || s.ConnsOn(l) != n {
			t.Errorf("%d connections: %+v", n, got)
		}
		for _, nc := range conns {
			nc.Close()
		}
	}
}

// allWait reports whether every connection waits for a request. A client can have its reply a moment earlier.
func (s *Server) allWait() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.waiting.Load() == 0 {
			return false
		}
	}
	return true
}

// At MaxConns the connection goes that has waited longest, and nobody is turned away (conformance D3-3).
func TestEviction(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		l := listen(t, network)
		s := &Server{Handler: HandlerFunc(obey), MaxConns: 3}
		start(t, s, l)
		ask := func(nc net.Conn) {
			t.Helper()
			send(t, nc, "6:OK one,")
			recv(t, nc, "6:OK one,")
			eventually(t, "all wait again", s.allWait)
		}
		a, b, c := dial(t, l), dial(t, l), dial(t, l)
		ask(a)
		ask(b)
		ask(c)
		ask(a) // so that b has waited longest
		d := dial(t, l)
		ask(d)
		recvClosed(t, b)
		ask(a)
		ask(d) // and now c
		ask(dial(t, l))
		recvClosed(t, c)
		ask(a)
		ask(d)
		if got := s.Stats(); got.Evicted != 2 || got.Conns != 3 {
			t.Errorf("%s: %+v", network, got)
		}
	}
}

// Connections that say nothing, or half a request, hold nobody up.
func TestEvictionOfSilentAndSlow(t *testing.T) {
	l := listen(t, "tcp")
	s := &Server{Handler: HandlerFunc(obey), MaxConns: 2}
	start(t, s, l)
	silent, slow := dial(t, l), dial(t, l)
	send(t, slow, "6:OK")
	for range 5 {
		nc := dial(t, l)
		send(t, nc, "6:OK one,")
		recv(t, nc, "6:OK one,")
	}
	recvClosed(t, silent)
	recvClosed(t, slow)
}

// While every connection has a request, the next one waits, and is served when one of them is answered.
func TestFullOfBusy(t *testing.T) {
	l := listen(t, "unix")
	release, entered := make(chan struct{}), make(chan struct{}, 2)
	s := &Server{MaxConns: 2, Handler: HandlerFunc(func(ctx context.Context, r Request) Reply {
		if string(r.Map) == "wait" {
			entered <- struct{}{}
			<-release
		}
		return Reply{Status: NotFound}
	})}
	start(t, s, l)
	a, b := dial(t, l), dial(t, l)
	send(t, a, "6:wait a,")
	send(t, b, "6:wait b,")
	<-entered
	<-entered
	c := dial(t, l)
	send(t, c, "4:go c,")
	eventually(t, "the next one waits", func() bool { return s.crowded.Load() == 1 })
	if got := s.Stats(); got.Conns != 2 || got.Busy != 2 || got.Evicted != 0 {
		t.Errorf("while all are busy: %+v", got)
	}
	close(release)
	recv(t, a, "9:NOTFOUND ,")
	recv(t, b, "9:NOTFOUND ,")
	recv(t, c, "9:NOTFOUND ,")
	if got := s.Stats(); got.Evicted != 1 {
		t.Errorf("after that: %+v", got)
	}
}

// Many more clients than connections, each of which repeats its request once, as Postfix does, and more often
// than that only if it was not even connected: all are served.
func TestThrashing(t *testing.T) {
	l := listen(t, "unix")
	s := &Server{Handler: HandlerFunc(obey), MaxConns: 4}
	start(t, s, l)
	done := make(chan error)
	const clients = 32
	for range clients {
		go func() { done <- resendLikePostfix(l, 50) }()
	}
	for range clients {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if s.Stats().Evicted == 0 {
		t.Error("no one was evicted")
	}
}

// resendLikePostfix makes n requests. Where the connection breaks it connects again and repeats the request.
func resendLikePostfix(l net.Listener, n int) error {
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	addr := "unix:" + l.Addr().String()
	c, err := Dial(ctx, addr)
	for i := 0; i < n; {
		if err != nil {
			return err
		}
		r, derr := c.Do(ctx, "OK", "one")
		if derr == nil && r == (Reply{Status: OK, Text: "one"}) {
			i++
			continue
		}
		if perr, ok := errors.AsType[*ProtocolError](derr); ok || ctx.Err() != nil {
			return errors.Join(derr, perr)
		}
		c.Close()
		c, err = Dial(ctx, addr)
	}
	return c.Close()
}

// A failingListener fails to accept at times.
type failingListener struct {
	net.Listener
	errs []error       // the next ones; nil is a success; only Accept uses it
	then chan struct{} // starve is asked after this is closed
	// starve reports whether there are too few descriptors; nil if there are always enough.
	starve func() bool
}

func (f *failingListener) Accept() (net.Conn, error) {
	if len(f.errs) > 0 {
		err := f.errs[0]
		f.errs = f.errs[1:]
		if err == nil {
			return f.Listener.Accept()
		}
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: err}
	}
	if f.starve != nil {
		<-f.then
		if f.starve() {
			return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
		}
	}
	return f.Listener.Accept()
}

// Serve outlives every error that can pass, and logs the changes only.
func TestAcceptErrors(t *testing.T) {
	log := new(lockedBuffer)
	s := &Server{Handler: HandlerFunc(obey), Log: logTo(log)}
	l := &failingListener{
		Listener: listen(t, "tcp"),
		errs:     []error{syscall.EMFILE, syscall.EMFILE, syscall.EMFILE, syscall.ENOBUFS, errors.New("what is this"), nil},
		then:     make(chan struct{}),
		starve:   func() bool { return s.Stats().Evicted == 0 },
	}
	start(t, s, l)
	a := dial(t, l)
	send(t, a, "6:OK one,")
	recv(t, a, "6:OK one,")
	eventually(t, "all wait again", s.allWait)
	close(l.then)
	// The lack of descriptors ends when a connection is found that nobody needs.
	recvClosed(t, a)
	b := dial(t, l)
	send(t, b, "6:OK one,")
	recv(t, b, "6:OK one,")
	eventually(t, "two recoveries", func() bool { return strings.Count(log.String(), "accepting connections again") == 2 })
	if got := strings.Count(log.String(), "cannot accept connections"); got != 4 {
		t.Errorf("%d lines about errors, want 4:\n%s", got, log.String())
	}
	if got := s.Stats().Evicted; got != 1 {
		t.Errorf("%d evicted, want 1", got)
	}
}

// Errors that cannot pass end Serve, and so does a listener that someone else closed.
func TestServeEnds(t *testing.T) {
	l := listen(t, "tcp")
	l.Close()
	s := &Server{Handler: HandlerFunc(obey)}
	if err := s.Serve(l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed listener: %v", err)
	}
	if err := s.Serve(&failingListener{Listener: listen(t, "tcp"), errs: []error{io.EOF}}); !errors.Is(err, io.EOF) {
		t.Errorf("end of file: %v", err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if err := s.Serve(listen(t, "tcp")); err != ErrServerClosed {
		t.Errorf("after Shutdown: %v", err)
	}
}
