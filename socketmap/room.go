package socketmap

import "net"

// admit serves nc, which came from l, as soon as there is room for it. It makes room by retiring the connection that
// has waited longest for a request, and waits if there is none.
//
// Until then nc is open and silent, one for each listener, and others wait in the kernel. Not to
// accept it before there is room would leave nothing to make room for: whether somebody is waiting in
// the kernel can be found out only by accepting.
func (s *Server) admit(nc net.Conn, l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.conns) >= s.maxConns() && !s.stopping {
		// crowded before the search: a connection that becomes idle after it was searched
		// sees crowded, and wakes us.
		s.crowded.Add(1)
		s.retireLongest()
		s.room.Wait()
		s.crowded.Add(-1)
	}
	c := newConn(s, nc)
	c.from = l
	s.conns[c] = struct{}{}
	s.running.Go(c.run)
	if s.stopping {
		c.retire() // it may have sent a request already, and that one will be answered
	}
}

// remove is called by a connection that is closed.
func (s *Server) remove(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.room.Broadcast()
}

// wake makes all calls of admit look again. A connection calls it when it begins to wait for a request,
// or turns out not to leave yet, while others wait for room.
//
// The lock is what makes this reliable: a call of admit that has looked holds it until it waits.
func (s *Server) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room.Broadcast()
}

// makeRoom retires the connection that has waited longest for a request, if there is one.
func (s *Server) makeRoom() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retireLongest()
}

// retireLongest retires the connection that has waited longest for a request, unless there is none, or one
// is on its way out. s.mu must be held.
//
// A search through all of them costs microseconds, and only when the server is full. A list in the
// order of waiting would cost every request a lock.
func (s *Server) retireLongest() {
	var longest *conn
	var least int64
	for c := range s.conns {
		since := c.waiting.Load()
		if since == 0 {
			continue
		}
		if c.retired.Load() {
			return
		}
		if longest == nil || since < least {
			longest, least = c, since
		}
	}
	if longest != nil {
		s.evicted.Add(1)
		longest.retire()
	}
}
