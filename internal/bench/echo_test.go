package bench

import (
	"bufio"
	"net"
	"strconv"
)

// An EchoServer is what a server that answers netstrings over a socket costs in Go when it does nothing: it reads one
// with bufio, looks at nothing in it, and writes another, such as the daemon would. What stsmap needs beyond that is
// what stsmap itself costs.
type EchoServer struct {
	Addrs []string // where it listens
	Reply []byte   // a netstring
}

// Echo starts the server. It runs until the process ends.
func (*Worker) Echo(s EchoServer, _ *struct{}) error {
	for _, addr := range s.Addrs {
		l, err := net.Listen(networkOf(addr))
		if err != nil {
			return err
		}
		go func() {
			for {
				nc, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer nc.Close()
					_ = echo(nc, s.Reply)
				}()
			}
		}()
	}
	return nil
}

// echo answers until the connection ends.
func echo(nc net.Conn, reply []byte) error {
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
		if _, err := in.Discard(n + len(",")); err != nil {
			return err
		}
		if _, err := nc.Write(reply); err != nil {
			return err
		}
	}
}
