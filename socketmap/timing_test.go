package socketmap

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A pipeListener hands out one end of pipes, on which time can be faked.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	close sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.close.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// dial returns the other end of a new pipe. After Close that is a closed one.
func (l *pipeListener) dial() net.Conn {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
	case <-l.done:
		there.Close()
	}
	return here
}

// isOpen reports whether l is not closed.
func (l *pipeListener) isOpen() bool {
	select {
	case <-l.done:
		return false
	default:
		return true
	}
}

// inBubble runs f with a server in a bubble, in which an hour takes no time.
func inBubble(t *testing.T, f func(t *testing.T, s *Server, l *pipeListener, log *lockedBuffer)) {
	synctest.Test(t, func(t *testing.T) {
		l, log := newPipeListener(), new(lockedBuffer)
		s := &Server{Handler: HandlerFunc(obey), Log: logTo(log)}
		start(t, s, l)
		f(t, s, l, log)
	})
}

// lifetime returns how long it takes until the server closes the connection.
func lifetime(t *testing.T, nc net.Conn) time.Duration {
	t.Helper()
	began := time.Now()
	if n, err := nc.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("read %d bytes, %v; want the connection to be closed", n, err)
	}
	return time.Since(began)
}

// A connection without a request lives for Idle, and not for long after, however often it was used and at
// what intervals (conformance D3-1). Closing it is no reason for a line in the log.
func TestIdle(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Server, l *pipeListener, log *lockedBuffer) {
		for _, interval := range []time.Duration{0, time.Second, 17 * time.Second, 100 * time.Second, 179 * time.Second} {
			for uses := range 12 {
				nc := l.dial()
				for range uses {
					time.Sleep(interval)
					send(t, nc, "6:OK one,")
					recv(t, nc, "6:OK one,")
				}
				if d := lifetime(t, nc); d < 180*time.Second || d > 203*time.Second {
					t.Errorf("after %d requests every %v: closed after %v", uses, interval, d)
				}
			}
		}
		if log.String() != "" || s.Stats().Malformed != 0 {
			t.Errorf("%+v, log: %s", s.Stats(), log.String())
		}
	})
}

// A request has to be complete within Timeout from its first byte, however steadily it comes in and
// wherever it stops.
func TestSlowRequest(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Server, l *pipeListener, log *lockedBuffer) {
		for i, text := range []string{"1", "10000:OK", "6:OK one"} {
			nc := l.dial()
			time.Sleep(time.Minute) // idle time does not count
			send(t, nc, text)
			if d := lifetime(t, nc); d != 10*time.Second {
				t.Errorf("%q: closed after %v", text, d)
			}
			if got := s.Stats().Malformed; got != uint64(i+1) {
				t.Errorf("malformed: %d", got)
			}
		}
		nc := l.dial()
		began := time.Now()
		for text := "10000:OK " + strings.Repeat("x", 9997) + ","; ; text = text[1:] {
			if _, err := io.WriteString(nc, text[:1]); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if d := time.Since(began); d > 11*time.Second {
			t.Errorf("byte by byte: closed after %v", d)
		}
		if got := strings.Count(log.String(), `reason="request not complete in time"`); got != 4 {
			t.Errorf("%d lines in the log, want 4:\n%s", got, log.String())
		}
	})
}

// A connection that once was slow, but not too slow, has its idle time again; and what arrived with another request
// has Timeout from when that is answered.
func TestSlowButComplete(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Server, l *pipeListener, log *lockedBuffer) {
		nc := l.dial()
		for range 5 {
			send(t, nc, "6:OK")
			time.Sleep(9 * time.Second)
			send(t, nc, " one,")
			recv(t, nc, "6:OK one,")
			time.Sleep(120 * time.Second)
		}
		send(t, nc, "6:OK one,6:O")
		recv(t, nc, "6:OK one,")
		time.Sleep(9 * time.Second)
		send(t, nc, "K two,")
		recv(t, nc, "6:OK two,")
		if d := lifetime(t, nc); d < 180*time.Second {
			t.Errorf("closed after %v", d)
		}
	})
}

// A client that does not take its reply is closed within Timeout, and has at least half of it.
func TestReplyNotTaken(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Server, l *pipeListener, log *lockedBuffer) {
		for i, pause := range []time.Duration{0, 4 * time.Second, 6 * time.Second, time.Minute} {
			nc := l.dial()
			send(t, nc, "6:OK one,")
			recv(t, nc, "6:OK one,")
			time.Sleep(pause)
			send(t, nc, "6:OK two,")
			time.Sleep(4 * time.Second)
			recv(t, nc, "6:OK") // part of it does not buy time
			time.Sleep(7 * time.Second)
			if d := lifetime(t, nc); d != 0 {
				t.Errorf("pause %v: still open after 11 s", pause)
			}
			if got := strings.Count(log.String(), "reply not taken in time"); got != i+1 {
				t.Errorf("%d lines in the log, want %d:\n%s", got, i+1, log.String())
			}
		}
	})
}

// A slow lookup is not the client's fault: no deadline counts while it runs.
func TestSlowLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, g := newPipeListener(), newGate()
		start(t, &Server{Handler: g}, l)
		nc := l.dial()
		send(t, nc, "5:map a,")
		time.Sleep(time.Hour)
		close(g.release)
		recv(t, nc, "9:NOTFOUND ,")
		if d := lifetime(t, nc); d < 180*time.Second {
			t.Errorf("closed after %v", d)
		}
	})
}
