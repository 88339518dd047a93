package fakenet

import (
	"net"
	"sync"
)

// single is a net.Listener for one connection that was accepted elsewhere. Serving it returns when that
// connection is closed, so that the owner of the connection can wait for a server of another package.
type single struct {
	conn   chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newSingle(c net.Conn) *single {
	s := &single{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	s.conn <- &servedConn{c, s}
	return s
}

// Accept returns the connection, and net.ErrClosed once that is closed.
func (s *single) Accept() (net.Conn, error) {
	select {
	case c := <-s.conn:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Close does nothing: the connection ends the listener.
func (s *single) Close() error { return nil }

func (s *single) Addr() net.Addr { return &net.TCPAddr{} }

// servedConn is the connection of a single.
type servedConn struct {
	net.Conn
	listener *single
}

func (c *servedConn) Close() error {
	err := c.Conn.Close()
	c.listener.once.Do(func() { close(c.listener.closed) })
	return err
}
