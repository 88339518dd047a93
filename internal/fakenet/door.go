package fakenet

import (
	"context"
	"net"
	"sync"
)

// door is a listener through which connections that were accepted elsewhere reach a mail server.
type door struct {
	visitors chan *visitor
	shut     chan struct{}
	once     sync.Once
}

func newDoor() *door {
	return &door{visitors: make(chan *visitor), shut: make(chan struct{})}
}

// enter waits until the server takes the connection, or reports false if it takes none any more.
func (d *door) enter(v *visitor) bool {
	select {
	case d.visitors <- v:
		return true
	case <-d.shut:
		return false
	}
}

func (d *door) Accept() (net.Conn, error) {
	select {
	case v := <-d.visitors:
		return v, nil
	case <-d.shut:
		return nil, net.ErrClosed
	}
}

func (d *door) Close() error {
	d.once.Do(func() { close(d.shut) })
	return nil
}

func (d *door) Addr() net.Addr { return &net.TCPAddr{} }

// visitor is a connection that tells when the server is done with it.
type visitor struct {
	net.Conn
	left chan struct{}
	once sync.Once
}

func (v *visitor) Close() error {
	v.once.Do(func() { close(v.left) })
	return v.Conn.Close()
}

// stop closes the mail server's door, and waits for its sessions to end. The server must have been
// started. The door is closed here and not by Shutdown, which would count sessions while the server
// still adds to them.
func (x *exchanger) stop() {
	x.door.Close()
	<-x.served
	_ = x.server.Shutdown(context.Background()) // the error could only be that of a door closed twice
}
