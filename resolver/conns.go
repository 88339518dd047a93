package resolver

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxConns is how many connections to one server take new queries.
	maxConns = 4

	// busyConn is how many queries a connection has under way before another one is opened. Where a
	// server answers in order, one slow answer delays as many (RFC 7766, Section 6.2.1.1).
	busyConn = 8

	// connIdle is how long a connection without queries stays open.
	connIdle = 10 * time.Second
)

// conns has the connections to a server over TLS. They stay open, and queries share them, each known by
// its id (RFC 7858, Section 3.4; RFC 7766, Section 6.2.1.1).
type conns struct {
	config *tls.Config

	mu   sync.Mutex
	open []*conn // those that take new queries
}

// A conn is one connection. A goroutine reads from it while queries wait; the last of these waits for
// the end of that goroutine.
type conn struct {
	ready chan struct{} // closed when dns and err are set
	dns   *dns.Conn
	err   error // why there is no connection

	// The rest is guarded by conns.mu.
	users   int                     // queries under way, those that wait for ready included
	waiting map[uint16]chan message // by the id of the query
	reader  chan struct{}           // closed when the goroutine ends; nil if none runs
	heard   time.Time               // when the last message came, or the connection was made
	retired bool                    // takes no new queries
	idle    *time.Timer             // closes the connection; nil if it has users
}

// A waiter is a query that was sent.
type waiter struct {
	answer chan message
	reader chan struct{} // of the conn, when it was sent
}

// A message is what a connection has for a query, or why it has nothing.
type message struct {
	data []byte
	err  error
}

// exchange asks s on a connection that is open, or on a new one. A connection of earlier queries may
// have been closed by the server meanwhile; then it asks once more (RFC 7766, Section 6.2.3).
func (cs *conns) exchange(ctx context.Context, r *Resolver, s *server, q *dns.Msg) (*dns.Msg, error) {
	data, shared, err := cs.ask(ctx, r, s, q)
	if err != nil && shared && ctx.Err() == nil {
		data, _, err = cs.ask(ctx, r, s, q)
	}
	if err != nil {
		return nil, err
	}
	return receiveStream(q, data)
}

// ask asks once. It reports whether the connection was one of other queries.
func (cs *conns) ask(ctx context.Context, r *Resolver, s *server, q *dns.Msg) (data []byte, shared bool, err error) {
	c, shared := cs.join()
	var w waiter
	defer func() { cs.leave(c, q.Id, w) }()
	if !shared {
		c.dns, c.err = r.dialTLS(ctx, s)
		cs.made(c)
	}
	select {
	case <-c.ready:
	case <-ctx.Done():
		return nil, shared, ctx.Err()
	}
	if err := cmp.Or(c.err, ctx.Err()); err != nil {
		return nil, shared, err
	}
	w = cs.register(c, q)
	if d, ok := ctx.Deadline(); ok {
		c.dns.SetWriteDeadline(d)
	}
	if err := c.dns.WriteMsg(q); err != nil {
		cs.retireAll()
		return nil, shared, err
	}
	select {
	case m := <-w.answer:
		return m.data, shared, m.err
	case <-ctx.Done():
		return nil, shared, ctx.Err()
	}
}

// join returns the connection with the fewest queries, or a new one, which the caller has to make.
func (cs *conns) join() (c *conn, shared bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, o := range cs.open {
		if c == nil || o.users < c.users {
			c = o
		}
	}
	shared = c != nil && (c.users < busyConn || len(cs.open) >= maxConns)
	if !shared {
		c = &conn{ready: make(chan struct{}), waiting: make(map[uint16]chan message)}
		cs.open = append(cs.open, c)
	}
	c.users++
	if c.idle != nil {
		c.idle.Stop()
		c.idle = nil
	}
	return c, shared
}

// made notes that c is a connection now, or never will be.
func (cs *conns) made(c *conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.heard = time.Now()
	if c.err != nil {
		cs.retire(c)
	}
	close(c.ready)
}

// register has the answer to q delivered, and q a new id if another query has its id. It starts the
// goroutine that reads, if there is none.
func (cs *conns) register(c *conn, q *dns.Msg) waiter {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c.waiting[q.Id] != nil {
		q.Id = dns.Id()
	}
	answer := make(chan message, 1)
	c.waiting[q.Id] = answer
	if c.reader == nil {
		c.reader = make(chan struct{})
		go cs.read(c, c.reader)
	}
	return waiter{answer: answer, reader: c.reader}
}

// read delivers messages until no query waits, or the connection fails. Messages that no query waits
// for are skipped: those queries have ended.
func (cs *conns) read(c *conn, done chan struct{}) {
	defer close(done)
	for more := true; more; {
		data, err := c.dns.ReadMsgHeader(nil)
		if err != nil {
			cs.retireAll()
		}
		more = cs.deliver(c, data, err)
	}
}

// deliver reports whether queries wait for more.
func (cs *conns) deliver(c *conn, data []byte, err error) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if err != nil {
		for _, answer := range c.waiting {
			answer <- message{err: err}
		}
		clear(c.waiting)
	} else {
		c.heard = time.Now()
		id := binary.BigEndian.Uint16(data)
		if answer := c.waiting[id]; answer != nil {
			answer <- message{data: data}
			delete(c.waiting, id)
		}
	}
	if len(c.waiting) == 0 {
		c.reader = nil
	}
	return len(c.waiting) > 0
}

// leave ends a query; w is zero if it was not sent. The last query of a connection leaves it idle. It
// closes it if an answer is still missing, since the next message would be that one or none.
func (cs *conns) leave(c *conn, id uint16, w waiter) {
	cs.mu.Lock()
	if c.waiting[id] == w.answer { // after its answer, another query may have its id
		delete(c.waiting, id)
	}
	c.users--
	ends := c.users == 0 && (c.retired || c.reader != nil)
	if ends {
		cs.retire(c)
	} else if c.users == 0 {
		var timer *time.Timer
		timer = time.AfterFunc(connIdle, func() { cs.closeIdle(c, &timer) })
		c.idle = timer
	}
	wait := w.reader != nil && (ends || c.reader != w.reader)
	cs.mu.Unlock()
	if ends && c.dns != nil {
		c.dns.Close()
	}
	if wait {
		<-w.reader
	}
}

// closeIdle closes c if no query has used it since timer was set.
func (cs *conns) closeIdle(c *conn, timer **time.Timer) {
	cs.mu.Lock()
	ends := c.idle == *timer
	if ends {
		cs.retire(c)
	}
	cs.mu.Unlock()
	if ends {
		c.dns.Close()
	}
}

// retire gives c no new queries. The caller holds mu.
func (cs *conns) retire(c *conn) {
	c.retired = true
	cs.open = slices.DeleteFunc(cs.open, func(o *conn) bool { return o == c })
}

// retireAll retires all connections that were made: where one failed, the server has most likely closed
// the others as well.
func (cs *conns) retireAll() { cs.retireIf(func(c *conn) bool { return !c.heard.IsZero() }) }

// retireSilent retires the connections on which nothing has come since a moment, so that the next query
// does not wait for a connection that is dead.
func (cs *conns) retireSilent(since time.Time) {
	cs.retireIf(func(c *conn) bool { return !c.heard.After(since) })
}

func (cs *conns) retireIf(cond func(*conn) bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, c := range slices.Clone(cs.open) {
		if cond(c) {
			cs.retire(c)
		}
	}
}

// dialTLS opens a connection to s, whose certificate must be valid (RFC 8310, Section 8.1).
func (r *Resolver) dialTLS(ctx context.Context, s *server) (*dns.Conn, error) {
	c, err := r.dial(ctx, "tcp", s)
	if err != nil {
		return nil, err
	}
	t := tls.Client(c, s.conns.config)
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return &dns.Conn{Conn: t}, nil
}
