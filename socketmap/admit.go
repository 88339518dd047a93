package socketmap

import (
	"net"
	"time"
)

const (
	// minAge is the age below which a connection is not evicted. A client whose connection closes
	// repeats its request over a new one, and gives up if that closes too (util/dict_sockmap.c).
	minAge = time.Second

	// admitRetry is how often admit tries again while no connection can be evicted.
	admitRetry = 10 * time.Millisecond
)

// admit serves nc from l as soon as its listener has fewer than MaxConns connections, and evicts one for
// that. While none can be evicted nc is open and silent, and later connections wait in the kernel. Not
// to accept nc before would leave no reason to evict: only Accept tells that a client is waiting.
func (s *Server) admit(nc net.Conn, l net.Listener) {
	for !s.start(nc, l) {
		if s.evict(l) {
			continue
		}
		select {
		case <-time.After(admitRetry):
		case <-s.hard.Done():
			nc.Close()
			return
		}
	}
}

// start serves nc if its listener has fewer than MaxConns connections.
func (s *Server) start(nc net.Conn, l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns[l]) >= s.maxConns {
		return false
	}
	c := newConn(s, nc)
	s.conns[l][c] = struct{}{}
	s.running.Go(c.serve)
	return true
}

// remove ends the registration of a connection that is closed, or about to be.
func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conns := range s.conns {
		delete(conns, c)
	}
}

// evict closes the connection from l, or from all listeners if l is nil, that has waited longest for a
// request. It returns false if all that are old enough have a request. One that receives a request
// meanwhile is closed all the same: Postfix asks again.
//
// A search through all connections takes microseconds, and only when the listener is full. A list in
// the order of waiting would cost every request a lock.
func (s *Server) evict(l net.Listener) bool {
	var longest *conn
	var least int64
	s.mu.Lock()
	newest := s.now() - minAge
	for from, conns := range s.conns {
		if l != nil && l != from {
			continue
		}
		for c := range conns {
			since := c.waiting.Load()
			if since > 0 && c.accepted <= newest && (longest == nil || since < least) {
				longest, least = c, since
			}
		}
	}
	s.mu.Unlock()
	if longest == nil {
		return false
	}
	s.remove(longest) // now, so that another can take its place before its goroutine has ended
	s.evicted.Add(1)
	longest.nc.Close()
	return true
}
