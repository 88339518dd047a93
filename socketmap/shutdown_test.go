package socketmap

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A gate is a handler that says when it was entered, and returns when it may, or when its context is done.
type gate struct {
	entered chan string
	release chan struct{}
}

func newGate() *gate { return &gate{make(chan string, 100), make(chan struct{})} }

func (g *gate) ServeSocketmap(ctx context.Context, r Request) Reply {
	g.entered <- string(r.Key)
	select {
	case <-g.release:
		return Reply{Status: NotFound}
	case <-ctx.Done():
		return Reply{Status: Temp, Text: "stopping"}
	}
}

// shutdown starts s.Shutdown, which has to end in time.
func shutdown(t *testing.T, s *Server, ctx context.Context) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(ctx) }()
	eventually(t, "Shutdown begins", s.isStopping)
	return ended
}

// Vector R08: an idle connection is closed at once, a request under way is answered, and so is one that
// has arrived behind it.
func TestShutdownGraceful(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		g := newGate()
		s := &Server{Handler: g}
		l := listen(t, network)
		start(t, s, l)
		idle, half, busy := dial(t, l), dial(t, l), dial(t, l)
		send(t, half, "6:map")
		send(t, busy, "5:map a,")
		<-g.entered
		send(t, busy, "5:map b,") // not read yet
		eventually(t, "three connections", func() bool { return s.Stats().Conns == 3 })

		ended := shutdown(t, s, context.Background())
		recvClosed(t, idle)
		recvClosed(t, half)
		select {
		case err := <-ended:
			t.Fatalf("Shutdown returned %v before the reply", err)
		default:
		}
		if _, err := net.Dial(l.Addr().Network(), l.Addr().String()); err == nil {
			t.Error("the listener is still open")
		}
		close(g.release)
		recv(t, busy, "9:NOTFOUND ,9:NOTFOUND ,")
		recvClosed(t, busy)
		if err := <-ended; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	}
}

// A connection that has not had a request has a second for it, also while the server stops: its client may
// repeat a request whose first connection was closed, and does so only once (conformance D3-3). That holds as
// well for one that was accepted just before.
func TestShutdownSparesNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Handler: HandlerFunc(obey)}
		l := newPipeListener()
		late, there := net.Pipe()
		start(t, s, l)
		start(t, s, &lateListener{newPipeListener(), func() <-chan struct{} { return s.quit }, there})
		nc := l.dial()
		synctest.Wait()
		ended := shutdown(t, s, t.Context())
		time.Sleep(900 * time.Millisecond)
		askOne(t, nc)
		askOne(t, late)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if lifetime(t, nc) != 0 || lifetime(t, late) != 0 {
			t.Error("a connection is open after Shutdown")
		}
	})
}

// A lateListener accepts one connection, when quit is closed.
type lateListener struct {
	*pipeListener
	quit func() <-chan struct{}
	nc   net.Conn
}

func (l *lateListener) Accept() (net.Conn, error) {
	<-l.quit()
	nc := l.nc
	if l.nc = nil; nc == nil {
		return nil, net.ErrClosed
	}
	return nc, nil
}

// When the context of Shutdown ends, those of the handlers do, and what they say then is not sent: it is
// no answer, and a client that gets none asks again.
func TestShutdownHard(t *testing.T) {
	g := newGate()
	s := &Server{Handler: g}
	l := listen(t, "tcp")
	start(t, s, l)
	busy := dial(t, l)
	send(t, busy, "5:map a,")
	<-g.entered
	ctx, cancel := context.WithCancel(t.Context())
	ended := shutdown(t, s, ctx)
	cancel()
	recvClosed(t, busy)
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	if n := s.Stats().Conns; n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// A handler that ignores its context cannot delay Shutdown.
func TestShutdownDisobeyed(t *testing.T) {
	release, entered := make(chan struct{}), make(chan struct{})
	s := &Server{Handler: HandlerFunc(func(context.Context, Request) Reply {
		close(entered)
		<-release
		return Reply{Status: NotFound}
	})}
	l := listen(t, "unix")
	start(t, s, l)
	nc := dial(t, l)
	send(t, nc, "5:map a,")
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	recvClosed(t, nc)
	if n := s.Stats().Conns; n != 1 {
		t.Errorf("%d connections are left, want that of the handler", n)
	}
	close(release)
}

// The socket of a listener that was passed to the process stays, so that systemd can go on with it.
func TestShutdownKeepsSocket(t *testing.T) {
	l := listen(t, "unix").(*net.UnixListener)
	l.SetUnlinkOnClose(false)
	s := &Server{Handler: HandlerFunc(obey)}
	ended := make(chan error)
	go func() { ended <- s.Serve(l) }()
	nc := dial(t, l)
	send(t, nc, "6:OK one,")
	recv(t, nc, "6:OK one,")
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != ErrServerClosed {
		t.Error(err)
	}
	if _, err := os.Stat(l.Addr().String()); err != nil {
		t.Error(err)
	}
}

// Vector R08 under load: each client sees whole netstrings only, and then the end.
func TestShutdownUnderLoad(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		s := &Server{Handler: HandlerFunc(answerFromCache)}
		l := listen(t, network)
		start(t, s, l)
		var answered atomic.Int64
		const clients = 40
		results := make(chan error, clients)
		for range clients {
			nc := dial(t, l)
			go func() { results <- askUntilClosed(nc, &answered) }()
		}
		eventually(t, "some load", func() bool { return answered.Load() > 1000 })
		ctx, cancel := context.WithTimeout(t.Context(), hang)
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("%s: Shutdown: %v", network, err)
		}
		cancel()
		for range clients {
			if err := <-results; err != nil {
				t.Errorf("%s: %v", network, err)
			}
		}
	}
}

// askUntilClosed asks until the connection is closed, which must not happen within a reply.
func askUntilClosed(nc net.Conn, answered *atomic.Int64) error {
	reply := make([]byte, len(benchReply))
	for {
		if _, err := io.WriteString(nc, benchRequest); err != nil {
			reply = reply[:1] // closed before: no reply is to come
		}
		n, err := io.ReadFull(nc, reply)
		switch {
		case err != nil && n == 0 && isClosed(err):
			return nil
		case err != nil:
			return errors.Join(errors.New("partial reply: "+string(reply[:n])), err)
		case string(reply) != benchReply:
			return errors.New("not a reply: " + string(reply))
		}
		answered.Add(1)
	}
}

// Vector R05: a client that closes its connection does not cancel the lookup, and does not affect others.
func TestClientLeavesDuringLookup(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		left, finished := make(chan struct{}), make(chan error, 1)
		entered := make(chan struct{})
		s := &Server{Handler: HandlerFunc(func(ctx context.Context, r Request) Reply {
			if string(r.Key) == "a" {
				close(entered)
				<-left
				// Long enough for the server to notice, if it looked.
				time.Sleep(20 * time.Millisecond)
				finished <- ctx.Err()
			}
			return Reply{Status: OK, Text: "may"}
		})}
		l := listen(t, network)
		start(t, s, l)
		nc := dial(t, l)
		send(t, nc, "5:map a,")
		<-entered
		nc.Close()
		close(left)
		if err := <-finished; err != nil {
			t.Errorf("%s: the lookup was cancelled: %v", network, err)
		}
		eventually(t, "the connection ends", func() bool { return s.Stats().Conns == 0 })
		other := dial(t, l)
		send(t, other, "5:map b,")
		recv(t, other, "6:OK may,")
	}
}
