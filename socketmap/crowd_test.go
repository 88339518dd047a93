package socketmap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
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

// inCrowd runs f in a bubble with a server that has max connections for each listener.
func inCrowd(t *testing.T, max int, h Handler, f func(t *testing.T, s *Server, l *pipeListener)) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		s := &Server{Handler: h, MaxConns: max}
		start(t, s, l)
		f(t, s, l)
	})
}

// askOne makes one request.
func askOne(t *testing.T, nc net.Conn) {
	t.Helper()
	send(t, nc, "6:OK one,")
	recv(t, nc, "6:OK one,")
}

// At MaxConns the connection that has waited longest is closed, and every new client is served
// (conformance D3-3).
func TestEviction(t *testing.T) {
	inCrowd(t, 3, HandlerFunc(obey), func(t *testing.T, s *Server, l *pipeListener) {
		var a, b, c, d net.Conn
		for _, nc := range []*net.Conn{&a, &b, &c, &a} {
			if *nc == nil {
				*nc = l.dial()
			}
			time.Sleep(time.Second)
			askOne(t, *nc)
		}
		d = l.dial() // b has waited longest
		askOne(t, d)
		recvClosed(t, b)
		time.Sleep(time.Second)
		askOne(t, a)
		askOne(t, d) // now c has
		askOne(t, l.dial())
		recvClosed(t, c)
		askOne(t, a)
		askOne(t, d)
		if got := s.Stats(); got.Evicted != 2 || got.Conns != 3 {
			t.Errorf("%+v", got)
		}
	})
}

// A connection is not evicted in its first second, and before its first request only after others, so
// that a client which repeats a request over a new connection is not closed twice (conformance D3-3).
func TestEvictionSparesNew(t *testing.T) {
	inCrowd(t, 2, HandlerFunc(obey), func(t *testing.T, s *Server, l *pipeListener) {
		a, silent := l.dial(), l.dial()
		askOne(t, a)
		began := time.Now()
		b := l.dial() // waits: all are new
		askOne(t, b)
		if d := time.Since(began); d < time.Second || d > time.Second+2*admitRetry {
			t.Errorf("served after %v, want a second", d)
		}
		recvClosed(t, a)
		time.Sleep(2 * time.Second)
		c := l.dial()
		askOne(t, c)
		recvClosed(t, b) // and not silent, which has waited longer
		time.Sleep(time.Second)
		askOne(t, silent)
		time.Sleep(time.Second)
		askOne(t, l.dial())
		recvClosed(t, c)
		if got := s.Stats(); got.Evicted != 3 {
			t.Errorf("%+v", got)
		}
	})
}

// Connections without a complete request are evicted, too.
func TestEvictionOfSilentAndSlow(t *testing.T) {
	inCrowd(t, 2, HandlerFunc(obey), func(t *testing.T, s *Server, l *pipeListener) {
		silent, slow := l.dial(), l.dial()
		send(t, slow, "6:OK")
		for range 5 {
			askOne(t, l.dial())
		}
		recvClosed(t, silent)
		recvClosed(t, slow)
	})
}

// Clients that open connections and send nothing, and open others when those are closed, cost other clients
// no request: every new connection has the time for its first one.
func TestEvictionUnderAttack(t *testing.T) {
	inCrowd(t, 8, HandlerFunc(obey), func(t *testing.T, s *Server, l *pipeListener) {
		for range 24 {
			go func() {
				for l.isOpen() {
					l.dial().Read(make([]byte, 1))
				}
			}()
		}
		for range 50 {
			nc := l.dial()
			time.Sleep(500 * time.Millisecond)
			askOne(t, nc)
			nc.Close()
		}
	})
}

// While every connection has a request, the next one waits, and is served when one of them is answered.
func TestFullOfBusy(t *testing.T) {
	release := make(chan struct{})
	wait := HandlerFunc(func(ctx context.Context, r Request) Reply {
		if string(r.Map) == "wait" {
			<-release
		}
		return Reply{Status: NotFound}
	})
	inCrowd(t, 2, wait, func(t *testing.T, s *Server, l *pipeListener) {
		release = make(chan struct{})
		a, b := l.dial(), l.dial()
		send(t, a, "6:wait a,")
		send(t, b, "6:wait b,")
		c := l.dial()
		written := make(chan error, 1)
		go func() {
			_, err := io.WriteString(c, "4:go c,")
			written <- err
		}()
		time.Sleep(time.Minute)
		if got := s.Stats(); got.Conns != 2 || got.Busy != 2 || got.Evicted != 0 {
			t.Errorf("while all are busy: %+v", got)
		}
		close(release)
		recv(t, a, "9:NOTFOUND ,")
		recv(t, b, "9:NOTFOUND ,")
		recv(t, c, "9:NOTFOUND ,")
		if err := <-written; err != nil {
			t.Error(err)
		}
		if got := s.Stats(); got.Evicted != 1 {
			t.Errorf("after that: %+v", got)
		}
	})
}

// The clients of one listener, however many, take nothing from those of another.
func TestListenersShareNothing(t *testing.T) {
	release := make(chan struct{})
	s := &Server{MaxConns: 3, Handler: HandlerFunc(func(ctx context.Context, r Request) Reply {
		if string(r.Map) == "wait" {
			<-release
		}
		return Reply{Status: NotFound}
	})}
	crowded, private := listen(t, "tcp"), listen(t, "unix")
	start(t, s, crowded)
	start(t, s, private)
	for range 10 {
		send(t, dial(t, crowded), "6:wait a,")
	}
	eventually(t, "the listener is full", func() bool { return s.Stats().Busy == 3 })
	for range 3 {
		nc := dial(t, private)
		send(t, nc, "4:go b,")
		recv(t, nc, "9:NOTFOUND ,")
	}
	if s.ConnsOn(crowded) != 3 || s.ConnsOn(private) != 3 || s.Stats().Evicted != 0 {
		t.Errorf("%d and %d connections, %+v", s.ConnsOn(crowded), s.ConnsOn(private), s.Stats())
	}
	close(release)
}

// With many more clients than connections all are served, although each repeats a request only once, as
// Postfix does, and lets 100 ms pass between connecting and asking.
func TestThrashing(t *testing.T) {
	inCrowd(t, 4, HandlerFunc(obey), func(t *testing.T, s *Server, l *pipeListener) {
		const clients = 32
		done := make(chan error, clients)
		for range clients {
			go func() { done <- resendLikePostfix(l, 50) }()
		}
		for range clients {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if s.Stats().Evicted == 0 {
			t.Error("no connection was evicted")
		}
	})
}

// resendLikePostfix makes n requests with pauses. Where a connection breaks it connects again and repeats the
// request, once.
func resendLikePostfix(l *pipeListener, n int) error {
	connect := func() *Client {
		c := &Client{nc: l.dial(), buf: make([]byte, 512)}
		time.Sleep(100 * time.Millisecond)
		return c
	}
	c := connect()
	for range n {
		time.Sleep(250 * time.Millisecond)
		r, err := c.Do(context.Background(), "OK", "one")
		if err != nil {
			c.Close()
			c = connect()
			r, err = c.Do(context.Background(), "OK", "one")
		}
		if err != nil || r != (Reply{Status: OK, Text: "one"}) {
			return fmt.Errorf("closed twice: %v, %w", r, err)
		}
	}
	return c.Close()
}

// A failingListener fails to accept at times.
type failingListener struct {
	net.Listener
	fail func() error // called by Accept; nil is a success
}

func (f *failingListener) Accept() (net.Conn, error) {
	if err := f.fail(); err != nil {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: err}
	}
	return f.Listener.Accept()
}

// Serve outlives every temporary error. It logs each once, also where accept fails and succeeds in turns, and
// the recovery after recoveryTime.
func TestAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, l := new(lockedBuffer), newPipeListener()
		s := &Server{Handler: HandlerFunc(obey), Log: logTo(log)}
		errs := []error{nil, syscall.EMFILE, syscall.EMFILE, nil, syscall.EMFILE, nil, syscall.EMFILE, nil,
			syscall.ENOBUFS, errors.New("what is this"), nil, nil, syscall.EMFILE}
		start(t, s, &failingListener{Listener: l, fail: func() error {
			if len(errs) == 0 {
				return nil
			}
			err := errs[0]
			errs = errs[1:]
			return err
		}})
		for range 5 {
			askOne(t, l.dial())
		}
		time.Sleep(recoveryTime)
		askOne(t, l.dial())
		askOne(t, l.dial())
		synctest.Wait()
		if got := strings.Count(log.String(), "cannot accept connections"); got != 4 {
			t.Errorf("%d lines about errors, want 4:\n%s", got, log.String())
		}
		if got := strings.Count(log.String(), "accepting connections again"); got != 1 {
			t.Errorf("%d lines about recoveries, want 1:\n%s", got, log.String())
		}
	})
}

// A lack of descriptors ends when an idle connection is found, also one of another listener.
func TestAcceptEvicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Handler: HandlerFunc(obey)}
		l, other := newPipeListener(), newPipeListener()
		start(t, s, other)
		a := other.dial()
		askOne(t, a)
		time.Sleep(2 * time.Second)
		start(t, s, &failingListener{Listener: l, fail: func() error {
			if s.Stats().Evicted == 0 {
				return syscall.EMFILE
			}
			return nil
		}})
		askOne(t, l.dial())
		recvClosed(t, a)
		if got := s.Stats().Evicted; got != 1 {
			t.Errorf("%d evicted, want 1", got)
		}
	})
}

// Errors that cannot pass end Serve, and so does a listener that someone else closed.
func TestServeEnds(t *testing.T) {
	l := listen(t, "tcp")
	l.Close()
	s := &Server{Handler: HandlerFunc(obey)}
	if err := s.Serve(l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed listener: %v", err)
	}
	if err := s.Serve(&failingListener{Listener: listen(t, "tcp"), fail: func() error { return io.EOF }}); !errors.Is(err, io.EOF) {
		t.Errorf("end of file: %v", err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if err := s.Serve(listen(t, "tcp")); err != ErrServerClosed {
		t.Errorf("after Shutdown: %v", err)
	}
}
