package socketmap

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// A conn serves one connection, in one goroutine, which reads, calls the handler and writes.
//
// A lookup in the cache consists of little else than what conn does for a request. So that is kept to
// what cannot be avoided: no allocation, no lock, and no deadline. Times are durations since the
// server's epoch, because the monotonic clock alone is cheaper to read.
type conn struct {
	srv *Server
	nc  net.Conn

	in    []byte // input buffer; in[:n] is not processed yet
	n     int
	small [512]byte // in, unless a request is larger

	accepted time.Duration // when the server began to serve the connection
	began    time.Duration // when the incomplete request in the buffer began; 0 if there is none
	readBy   time.Duration // the read deadline, unless the server stops
	writeBy  time.Duration // the write deadline
	wrote    time.Duration // when the last write began; accepted before the first one
	final    bool          // the last read before the end was made

	// waiting is since when the connection has waited for a request, in nanoseconds since the epoch; 0
	// while a request is being answered. Before its first request a connection counts as waiting only
	// from Timeout after it was accepted, so that it is evicted after others.
	waiting atomic.Int64
}

// finalWait is how long a connection waits for a request that is arriving when the server stops.
const finalWait = 100 * time.Millisecond

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{srv: s, nc: nc}
	c.in = c.small[:]
	c.accepted = s.now()
	c.wrote = c.accepted
	c.waiting.Store(int64(c.accepted + s.timeout))
	return c
}

// serve answers requests until the connection is closed.
func (c *conn) serve() {
	defer c.srv.remove(c)
	defer c.nc.Close()
	// One context for each connection, not the server's for all: contexts that handlers derive from
	// it would be registered in one place, under one lock.
	ctx, cancel := context.WithCancel(c.srv.hard)
	defer cancel()

	for {
		req, size, reason := parseRequest(c.in[:c.n])
		switch {
		case reason != "":
			c.logMalformed(reason)
			return
		case req.Map == nil:
			if !c.read(size) {
				return
			}
		default:
			c.began = 0
			c.waiting.Store(0)
			reply := c.answer(ctx, req)
			// When the context is cancelled, the reply may be due to that only. Postfix asks again
			// over a new connection (util/dict_sockmap.c), and then gets an answer.
			if ctx.Err() != nil || !c.write(reply) {
				return
			}
			c.consume(size)
			c.waiting.Store(int64(c.wrote))
		}
	}
}

// consume removes a request from the buffer. A buffer that was made for a large request is dropped.
func (c *conn) consume(size int) {
	c.n = copy(c.in, c.in[size:c.n])
	if len(c.in) > len(c.small) && c.n <= len(c.small) {
		copy(c.small[:], c.in[:c.n])
		c.in = c.small[:]
	}
}

// answer calls the handler and returns a reply that can be sent.
func (c *conn) answer(ctx context.Context, req Request) (out *replyBuffer) {
	defer func() {
		if p := recover(); p != nil {
			c.srv.panics.Add(1)
			c.srv.log.Error("panic in the handler", "remote", c.remote(),
				"map", string(req.Map), "key", string(req.Key), "panic", p, "stack", string(debug.Stack()))
			out = newInternalError()
		}
	}()
	r := c.srv.Handler.ServeSocketmap(ctx, req)
	out = c.srv.replies.Get().(*replyBuffer) // only now: a lookup can be slow
	if reason := out.encode(r); reason != "" {
		c.srv.unfit.Add(1)
		c.srv.log.Error("reply cannot be sent", "remote", c.remote(),
			"map", string(req.Map), "key", string(req.Key), "reason", reason)
		return newInternalError()
	}
	return out
}

// write sends a reply, and reports whether the client has taken it. It makes a single write, so that the
// reply is not split. Replies to pipelined requests are not gathered: Postfix does not pipeline, and a
// reply should not wait for a lookup that may be slow.
func (c *conn) write(out *replyBuffer) bool {
	defer c.srv.replies.Put(out)

	// A deadline for each reply would cost more than all the rest here. One that is renewed when
	// half of it is over gives a client no more than Timeout, and no less than half of it.
	c.wrote = c.srv.now()
	if c.writeBy-c.wrote < c.srv.timeout/2 {
		c.writeBy = c.wrote + c.srv.timeout
		c.nc.SetWriteDeadline(c.srv.epoch.Add(c.writeBy))
	}
	_, err := c.nc.Write(out.netstring())
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.srv.log.Warn("reply not taken in time", "remote", c.remote())
	}
	return err == nil
}

// read reads more of the request at the start of the buffer, whose length is size, or 0 if that is not
// known yet. It returns false if the connection ends: without a log line if the client closed it, even
// within a request, or was idle.
func (c *conn) read(size int) bool {
	if size > len(c.in) {
		c.in = append(make([]byte, 0, size), c.in[:c.n]...)[:size]
	}
	// Between requests the deadline is later than needed, by an eighth, and stays while it is not too
	// early: a busy connection sets it once in many requests.
	if idle := c.srv.idle; c.n == 0 && c.readBy-c.wrote < idle {
		c.setReadDeadline(c.wrote + idle + idle/8)
	} else if c.n > 0 && c.began == 0 {
		c.began = c.srv.now()
		c.setReadDeadline(c.began + c.srv.timeout)
	}
	n, err := c.nc.Read(c.in[c.n:])
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		switch stopping := c.srv.isStopping(); {
		case stopping && !c.final:
			n = c.finalRead()
		case !stopping && c.n > 0:
			c.logMalformed("request not complete in time")
		}
	}
	c.n += n
	return n > 0 // an error, if any, comes again
}

// setReadDeadline sets the read deadline, unless the server stops.
func (c *conn) setReadDeadline(at time.Duration) {
	c.readBy = at
	c.nc.SetReadDeadline(c.srv.epoch.Add(at))
	if c.srv.isStopping() { // then the line above may have replaced the deadline that Shutdown set
		c.nc.SetReadDeadline(longAgo())
	}
}

// finalRead reads again after Shutdown has interrupted a read: a request may have arrived, or be arriving.
// A client repeats a request only once, so a connection without a first request stays open until it is
// as old as minAge.
func (c *conn) finalRead() int {
	c.final = true
	by := c.srv.now() + finalWait
	if c.wrote == c.accepted {
		by = max(by, c.accepted+minAge)
	}
	c.nc.SetReadDeadline(c.srv.epoch.Add(by))
	n, _ := c.nc.Read(c.in[c.n:])
	return n
}

// longAgo returns a deadline that interrupts reads.
func longAgo() time.Time { return time.Unix(1, 0) }

// logMalformed logs and counts that the connection ends because of what the client sent.
func (c *conn) logMalformed(reason string) {
	c.srv.malformed.Add(1)
	c.srv.log.Warn("malformed request", "remote", c.remote(), "reason", reason)
}

// remote returns the address of the client; for Unix sockets it is usually "@" or empty.
func (c *conn) remote() string { return c.nc.RemoteAddr().String() }
