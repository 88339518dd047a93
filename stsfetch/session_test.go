package stsfetch

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// A cancellingConn cancels a fetch when the deadline of its handshake is replaced,
// and sets the new deadline after the fetch was interrupted.
type cancellingConn struct {
	net.Conn
	calls       atomic.Int32
	cancel      context.CancelFunc
	interrupted chan struct{}
}

func (c *cancellingConn) SetDeadline(t time.Time) error {
	switch c.calls.Add(1) {
	case 2: // the first is that of the handshake
		c.cancel()
		<-c.interrupted
	case 3:
		defer close(c.interrupted)
	}
	return c.Conn.SetDeadline(t)
}

// TestCancelAfterHandshake: a fetch that is cancelled between the handshake and the
// request ends, although the deadline is moved then.
func TestCancelAfterHandshake(t *testing.T) {
	h := &hostileHost{behave: func(io.Writer) {}}
	h.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := newWorld(t, "-- dns --\nmta-sts.example.com. A 9.9.9.1\n")
	f := w.fetcher(t, Config{Roots: h.roots, Timeout: hostileTimeout, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, h.listener.Addr().String())
		return &cancellingConn{Conn: conn, cancel: cancel, interrupted: make(chan struct{})}, err
	}})
	text, p, err := f.Policy(ctx, "example.com")
	want(t, checkError(t, text, p, err), StepHTTP, "context canceled")
	h.stop(t)
}

// A bufferedConn records the receive buffer that is asked for.
type bufferedConn struct {
	net.Conn
	bytes *atomic.Int64
}

func (c bufferedConn) SetReadBuffer(bytes int) error {
	c.bytes.Store(int64(bytes))
	return nil
}

// TestReceiveBuffer: the kernel receives little in advance, so that a host whose answer
// is decided costs no more traffic. On loopback the difference cannot be seen.
func TestReceiveBuffer(t *testing.T) {
	w := newWorld(t, addressWorld("9.9.9.1", ""))
	var bytes atomic.Int64
	f := w.fetcher(t, Config{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := w.dial(ctx, network, addr)
		return bufferedConn{conn, &bytes}, err
	}})
	want(t, fetch(t, f), "", "")
	if n := bytes.Load(); n <= 0 || n > 64<<10 {
		t.Errorf("the receive buffer has %d bytes", n)
	}
}
