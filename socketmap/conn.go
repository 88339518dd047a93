package socketmap

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A conn serves one connection, in one goroutine, which reads, calls the handler and writes.
//
// What it does for each request is kept to what cannot be avoided, since that is all a lookup in the
// cache consists of: no allocation, no lock, and no deadline. Times are durations since the server's
// epoch, because the monotonic clock alone is cheaper to read.
type conn struct {
	srv  *Server
	nc   net.Conn
	from net.Listener

	in    []byte // what was read; the unread part is in[:n]
	n     int
	small [512]byte // what in is, unless a request is larger

	began    time.Duration // when the incomplete request in the buffer began; 0 if there is none
	readBy   time.Duration // the read deadline, unless retired
	writeBy  time.Duration // the write deadline
	wrote    time.Duration // when the last write began
	lastLook bool          // look has been called

	// waiting is when the connection began to wait for a request, in nanoseconds since the epoch, or 0
	// from when the request has arrived as a whole until the reply is written.
	waiting atomic.Int64
	retired atomic.Bool // set by retire

	mu sync.Mutex // guards the order of setting retired and of setting the read deadline
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{srv: s, nc: nc}
	c.in = c.small[:]
	c.waiting.Store(int64(c.now()))
	return c
}

// now returns the time since the epoch, which is never 0.
func (c *conn) now() time.Duration { return max(1, time.Since(c.srv.epoch)) }

// retire makes the connection close as soon as it has answered what it has received. Any goroutine may
// call it, any number of times.
func (c *conn) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.retired.Swap(true) {
		c.nc.SetReadDeadline(time.Unix(1, 0))
	}
}

// setReadDeadline sets the deadline of the next reads, unless the connection is retired.
func (c *conn) setReadDeadline(at time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readBy = at
	if !c.retired.Load() {
		c.nc.SetReadDeadline(c.srv.epoch.Add(at))
	}
}

// run serves the connection until it is closed.
func (c *conn) run() {
	defer c.srv.remove(c)
	defer c.nc.Close()
	// One context for each connection, not the server's for all: what handlers derive from it
	// would be registered in one place, under one lock.
	ctx, cancel := context.WithCancel(c.srv.hard)
	defer cancel()

	for {
		req, size, reason := parseRequest(c.in[:c.n])
		switch {
		case reason != "":
			c.reject(reason)
			return
		case req.Map == nil:
			if err := c.fill(size); err != nil {
				c.hangUp(err)
				return
			}
		default:
			c.beginRequest()
			reply := c.ask(ctx, req)
			if ctx.Err() != nil {
				// The handler was cut short, so what it says may be no more than that. Postfix asks
				// again over a new connection (util/dict_sockmap.c), and then gets an answer.
				return
			}
			if err := c.write(reply); err != nil {
				c.hangUp(err)
				return
			}
			c.endRequest(size)
		}
	}
}

// beginRequest notes that a whole request has arrived.
func (c *conn) beginRequest() {
	c.began = 0
	c.waiting.Store(0)
	if c.retired.Load() && c.srv.crowded.Load() > 0 {
		c.srv.wake() // who retired this connection should try another
	}
}

// endRequest removes the request from the buffer. A buffer that was made for a large request goes with it.
func (c *conn) endRequest(size int) {
	c.n = copy(c.in, c.in[size:c.n])
	if len(c.in) > len(c.small) && c.n <= len(c.small) {
		copy(c.small[:], c.in[:c.n])
		c.in = c.small[:]
	}
	c.waiting.Store(int64(c.wrote))
	if c.srv.crowded.Load() > 0 {
		c.srv.wake()
	}
}

// ask calls the handler and returns a reply that can be sent.
func (c *conn) ask(ctx context.Context, req Request) (out *replyBuffer) {
	defer func() {
		if p := recover(); p != nil {
			c.srv.panics.Add(1)
			c.srv.log().Error("panic in the handler", "remote", c.remote(),
				"map", string(req.Map), "key", string(req.Key), "panic", p, "stack", string(debug.Stack()))
			out = newInternalError()
		}
	}()
	r := c.srv.Handler.ServeSocketmap(ctx, req)
	out = c.srv.replies.Get().(*replyBuffer) // only now: a lookup can be slow
	if reason := out.encode(r); reason != "" {
		c.srv.unfit.Add(1)
		c.srv.log().Error("reply cannot be sent", "remote", c.remote(),
			"map", string(req.Map), "key", string(req.Key), "reason", reason)
		return newInternalError()
	}
	return out
}

// write sends a reply in a single write, so that it is not cut in two where everything is well. Replies
// to pipelined requests are not gathered: Postfix does not pipeline, and a reply that is
// ready should not wait for a lookup that may be slow.
func (c *conn) write(out *replyBuffer) error {
	defer c.srv.replies.Put(out)

	// A deadline for each reply would cost more than all the rest here. One that is renewed when
	// half of it is over gives a client no more than Timeout, and no less than half of it.
	c.wrote = c.now()
	if timeout := c.srv.timeout(); c.writeBy-c.wrote < timeout/2 {
		c.writeBy = c.wrote + timeout
		c.nc.SetWriteDeadline(c.srv.epoch.Add(c.writeBy))
	}
	_, err := c.nc.Write(out.netstring())
	return err
}

// Errors of fill that are no errors of the network.
var (
	errIdle = errors.New("idle for too long, or retired")
	errSlow = errors.New("request not complete in time")
)

// fill reads more of the request at the start of the buffer, whose size is given if it is known, and
// otherwise 0. It waits no longer than the deadlines allow.
func (c *conn) fill(size int) error {
	if size > len(c.in) {
		in := make([]byte, size)
		copy(in, c.in[:c.n])
		c.in = in
	}
	c.setDeadlines()
	n, err := c.nc.Read(c.in[c.n:])
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		n, err = c.look()
	}
	c.n += n
	if n > 0 {
		return nil // an error, if any, comes again
	}
	return err
}

// setDeadlines sees to it that the next read ends in time. Between requests it sets a deadline that is
// later than needed, by an eighth, and keeps it for as long as it is not too early: for a busy connection
// that means once in many requests.
func (c *conn) setDeadlines() {
	switch {
	case c.n == 0:
		idle := c.srv.idle()
		if now := time.Duration(c.waiting.Load()); c.readBy-now < idle {
			c.setReadDeadline(now + idle + idle/8)
		}
	case c.began == 0:
		c.began = c.now()
		c.setReadDeadline(c.began + c.srv.timeout())
	}
}

// look is called when the read deadline has passed: because nothing came in time, or because the connection
// was retired. In both cases a request may have arrived just then. Closing would tell the
// client to repeat it, and it does so only once, perhaps to a server that is no longer there. So look
// reads, once, what has arrived already; it cannot be made to go on with that.
func (c *conn) look() (n int, err error) {
	late := errIdle
	if c.n > 0 && !c.retired.Load() {
		late = errSlow
	}
	sc, ok := c.nc.(syscall.Conn)
	if !ok || c.lastLook {
		return 0, late
	}
	c.lastLook = true
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	// Control, because Read would return the deadline's error. The descriptor does not block.
	err = raw.Control(func(fd uintptr) { n, _ = syscall.Read(int(fd), c.in[c.n:]) })
	if err == nil && n <= 0 {
		err = late
	}
	return max(0, n), err
}

// reject notes that the client is to blame for the end of the connection.
func (c *conn) reject(reason string) {
	c.srv.malformed.Add(1)
	c.srv.log().Warn("malformed request", "remote", c.remote(), "reason", reason)
}

// hangUp notes why the connection ends, if that is worth noting: that the client went away, or was idle,
// is the ordinary course of things, even within a request.
func (c *conn) hangUp(err error) {
	switch {
	case errors.Is(err, errSlow):
		c.reject(err.Error())
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.srv.log().Warn("reply not taken in time", "remote", c.remote())
	}
}

// remote returns the address of the client; for Unix sockets it is usually "@" or empty.
func (c *conn) remote() string { return c.nc.RemoteAddr().String() }
