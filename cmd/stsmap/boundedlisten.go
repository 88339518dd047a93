package main

import (
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// newConnAge is the age from which a connection without a request is closed
	// in favour of others.
	newConnAge = time.Second
	// closeRetry is how often Accept of a full listener tries again.
	closeRetry = 50 * time.Millisecond
)

// A boundedListener has at most max connections at a time. For one more it
// closes the one that has been idle longest; if all have requests, it waits. It
// is for one http.Server, whose ConnState must be its method.
type boundedListener struct {
	net.Listener
	max    int
	closed chan struct{}
	once   sync.Once // of Close

	mu    sync.Mutex
	conns map[*boundedConn]time.Time // since when idle; zero while it is not
}

func newBoundedListener(l net.Listener, max int) *boundedListener {
	return &boundedListener{Listener: l, max: max, closed: make(chan struct{}), conns: make(map[*boundedConn]time.Time)}
}

// Accept implements net.Listener.
func (l *boundedListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &boundedConn{Conn: nc, listener: l}
	for !l.add(c) {
		if l.closeIdle() {
			continue
		}
		select {
		case <-time.After(closeRetry):
		case <-l.closed:
			nc.Close()
			return nil, net.ErrClosed
		}
	}
	return c, nil
}

// Close implements net.Listener.
func (l *boundedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// ConnState is for http.Server.
func (l *boundedListener) ConnState(nc net.Conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := nc.(*boundedConn)
	if _, open := l.conns[c]; !ok || !open {
		return
	}
	switch state {
	case http.StateIdle:
		l.conns[c] = time.Now()
	case http.StateActive:
		l.conns[c] = time.Time{}
	}
}

// add reports whether there was room for c.
func (l *boundedListener) add(c *boundedConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) >= l.max {
		return false
	}
	l.conns[c] = time.Now().Add(newConnAge)
	return true
}

// closeIdle closes the connection that has been idle longest, and reports whether
// there was one.
func (l *boundedListener) closeIdle() bool {
	l.mu.Lock()
	longest, least := (*boundedConn)(nil), time.Now()
	for c, since := range l.conns {
		if !since.IsZero() && since.Before(least) {
			longest, least = c, since
		}
	}
	l.mu.Unlock()
	if longest == nil {
		return false
	}
	longest.Close()
	return true
}

// A boundedConn is a connection of a boundedListener.
type boundedConn struct {
	net.Conn
	listener *boundedListener
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.conns, c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}
