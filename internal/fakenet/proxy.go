package fakenet

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
)

// ServeProxy accepts connections from l, and connects clients with policy hosts
// on CONNECT (RFC 9110, Section 9.3.6): for clients that can use no other port
// than 443. It returns when l is closed and all connections have ended.
func (n *Net) ServeProxy(l net.Listener) {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		running.Go(func() { n.serveConnect(client) })
	}
}

// serveConnect serves one client of the proxy.
func (n *Net) serveConnect(client net.Conn) {
	defer client.Close()
	in := bufio.NewReader(client)
	r, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	host, _, _ := net.SplitHostPort(r.RequestURI)
	server, err := net.Dial("tcp", n.HTTPSAddr(host))
	if err != nil {
		_, _ = io.WriteString(client, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		return
	}
	defer server.Close()
	_, _ = io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n")
	go func() { _, _ = io.Copy(server, in) }()
	_, _ = io.Copy(client, server)
}
