package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// An echoServer is what a server that answers netstrings over a socket costs in Go when it does nothing: it reads one
// with bufio, looks at nothing in it, and writes another that was made beforehand. What stsmap needs beyond that is
// what stsmap itself costs.
type echoServer struct{ reply []byte }

// An echoCall starts the server.
type echoCall struct {
	Addrs []string // where to listen
	Size  int      // of the reply, the whole netstring
}

func (s *echoServer) call(q echoCall, _ <-chan echoCall) (struct{}, error) {
	s.reply = netstringOf(q.Size)
	for _, addr := range q.Addrs {
		network, where := networkOf(addr)
		l, err := net.Listen(network, where)
		if err != nil {
			return struct{}{}, err
		}
		go s.accept(l) // until the process ends
	}
	return struct{}{}, nil
}

func (s *echoServer) accept(l net.Listener) {
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer nc.Close()
			_ = s.serve(nc)
		}()
	}
}

// serve answers until the connection ends.
func (s *echoServer) serve(nc net.Conn) error {
	in := bufio.NewReader(nc)
	for {
		digits, err := in.ReadSlice(':')
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(digits[:len(digits)-1]))
		if err != nil {
			return err
		}
		if _, err := in.Discard(n); err != nil {
			return err
		}
		if c, err := in.ReadByte(); err != nil || c != ',' {
			return io.ErrUnexpectedEOF
		}
		if _, err := nc.Write(s.reply); err != nil {
			return err
		}
	}
}

// netstringOf makes a reply of size bytes.
func netstringOf(size int) []byte {
	for digits := 1; ; digits++ {
		n := size - digits - 2
		if len(strconv.Itoa(n)) == digits {
			return fmt.Appendf(nil, "%d:OK %s,", n, bytes.Repeat([]byte("x"), n-3))
		}
	}
}

// networkOf splits an address as the configuration has it, "host:port" or "unix:/path".
func networkOf(addr string) (network, where string) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return "unix", path
	}
	return "tcp", addr
}
