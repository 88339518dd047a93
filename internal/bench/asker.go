package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// An asker is one connection with at most one request outstanding, as smtp(8) has it. It does less than
// socketmap.Client: a load generator shares the machine with what it measures.
type asker struct {
	nc   net.Conn
	size int // of the last reply
	buf  [4096]byte
}

func dial(addr string) (*asker, error) {
	network, where := networkOf(addr)
	nc, err := net.Dial(network, where)
	if err != nil {
		return nil, err
	}
	return &asker{nc: nc}, nil
}

// ask sends a request and returns the first letter of the reply's status.
func (a *asker) ask(request []byte) (status byte, err error) {
	if _, err := a.nc.Write(request); err != nil {
		return 0, err
	}
	n := 0
	for {
		m, err := a.nc.Read(a.buf[n:])
		if err != nil {
			return 0, err
		}
		n += m
		if start, size := extent(a.buf[:n]); size > 0 && n >= size {
			a.size = size
			return a.buf[start], nil
		}
	}
}

// extent returns where the payload of the netstring in b begins, and the size of the whole, 0 if that cannot be told
// yet.
func extent(b []byte) (start, size int) {
	n := 0
	for i, c := range b {
		if c == ':' {
			return i + 1, i + 1 + n + 1
		}
		n = n*10 + int(c-'0')
	}
	return 0, 0
}

// A series is many domains, or one if the pattern has no number.
type series struct {
	Pattern string // with %d, and %o for the number of an owner
	Low, N  int
}

func (s series) domain(i int) string {
	name := strings.Replace(s.Pattern, "%d", strconv.Itoa(s.Low+i), 1)
	return strings.Replace(name, "%o", strconv.Itoa((s.Low+i)%hostileOwners), 1)
}

// request is the lookup of a domain.
func request(domain string) []byte {
	return fmt.Appendf(nil, "%d:postfix %s,", len("postfix ")+len(domain), domain)
}

func (s series) requests() [][]byte {
	all := make([][]byte, s.N)
	for i := range all {
		all[i] = request(s.domain(i))
	}
	return all
}
