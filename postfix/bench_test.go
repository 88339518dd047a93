package postfix_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"stsmap/cache"
	"stsmap/policy"
	"stsmap/postfix"
	"stsmap/socketmap"
	"stsmap/sts"
	"stsmap/stsfetch"
)

// benchRequest asks for the policy that cachedPolicy puts into memory.
const benchRequest = "25:postfix mail.example.com.,"

// noNetwork is a fetcher for an engine that does not fetch.
type noNetwork struct{}

func (noNetwork) Record(context.Context, string) (stsfetch.Record, error) {
	return stsfetch.Record{}, errors.New("no network")
}

func (noNetwork) Policy(context.Context, string) (string, *sts.Policy, error) {
	return "", nil, errors.New("no network")
}

// policyText returns a policy with n MX hosts.
func policyText(n int) string {
	var b strings.Builder
	b.WriteString("version: STSv1\r\nmode: enforce\r\n")
	for i := range n {
		fmt.Fprintf(&b, "mx: mx%d.mail.example.com\r\n", i+1)
	}
	b.WriteString("max_age: 604800\r\n")
	return b.String()
}

// cachedServer returns a server that has a policy with n MX hosts in memory.
func cachedServer(b *testing.B, n int, attributes bool) *socketmap.Server {
	store, now := cache.NewMemory(10), time.Now()
	err := store.Put(b.Context(), cache.Entry{
		Domain: "mail.example.com", ID: "1", Policy: policyText(n), Fetched: now, Expires: now.Add(7 * 24 * time.Hour),
		Checked: now, Recheck: now.Add(time.Hour), Refresh: now.Add(24 * time.Hour), Used: now,
	})
	if err != nil {
		b.Fatal(err)
	}
	engine := policy.New(policy.Config{Store: store, Fetch: noNetwork{}, Render: postfix.Render})
	b.Cleanup(engine.Close)
	var known atomic.Bool
	known.Store(attributes)
	return &socketmap.Server{Handler: &postfix.Handler{Engine: engine, Attributes: &known}}
}

// serveOn serves l with s until the benchmark ends.
func serveOn(b *testing.B, s *socketmap.Server, l net.Listener) {
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	b.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			b.Error(err)
		}
		if err := <-done; !errors.Is(err, socketmap.ErrServerClosed) {
			b.Error(err)
		}
	})
}

// eachPolicy runs f for policies with 1 and 5 MX hosts, and both forms of replies.
func eachPolicy(b *testing.B, f func(b *testing.B, s *socketmap.Server)) {
	for _, n := range []int{1, 5} {
		for _, attributes := range []bool{false, true} {
			b.Run(fmt.Sprintf("mx=%d/attributes=%t", n, attributes), func(b *testing.B) {
				f(b, cachedServer(b, n, attributes))
			})
		}
	}
}

// BenchmarkAnswer is what the program itself does for a cached answer, from one
// read to the next, without the system calls.
func BenchmarkAnswer(b *testing.B) {
	eachPolicy(b, func(b *testing.B, s *socketmap.Server) {
		l := &askingListener{conn: make(chan net.Conn), closed: make(chan struct{})}
		serveOn(b, s, l)
		first := &askingConn{left: 2, done: make(chan struct{})} // the first answer is not cached
		l.conn <- first
		<-first.done
		c := &askingConn{left: b.N, done: make(chan struct{})}
		b.ReportAllocs()
		b.ResetTimer()
		l.conn <- c
		<-c.done
		b.ReportMetric(float64(c.wrote)/float64(b.N), "reply-B")
	})
}

// BenchmarkLookup is a cached lookup over a socket, both ends together.
func BenchmarkLookup(b *testing.B) {
	eachPolicy(b, func(b *testing.B, s *socketmap.Server) {
		l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
		if err != nil {
			b.Fatal(err)
		}
		serveOn(b, s, l)
		nc, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		defer nc.Close()
		request, reply := []byte(benchRequest), make([]byte, 2000)
		n := 0
		ask := func() {
			if _, err = nc.Write(request); err == nil {
				n, err = nc.Read(reply) // the server writes a reply at once
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		ask()
		b.ReportAllocs()
		for b.Loop() {
			ask()
		}
		if !strings.Contains(string(reply[:n]), ":OK secure match=mx1.mail.example.com") {
			b.Errorf("got %q", reply[:n])
		}
	})
}

// An askingListener accepts the connections that it is given.
type askingListener struct {
	conn   chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *askingListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *askingListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *askingListener) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// An askingConn makes the same request again and again, and counts the bytes of
// the replies.
type askingConn struct {
	left, wrote int
	once        sync.Once
	done        chan struct{} // closed with the connection
}

func (c *askingConn) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	c.left--
	return copy(p, benchRequest), nil
}

func (c *askingConn) Write(p []byte) (int, error) {
	c.wrote += len(p)
	return len(p), nil
}

func (c *askingConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}

func (c *askingConn) LocalAddr() net.Addr              { return &net.UnixAddr{Net: "unix"} }
func (c *askingConn) RemoteAddr() net.Addr             { return &net.UnixAddr{Net: "unix"} }
func (c *askingConn) SetDeadline(time.Time) error      { return nil }
func (c *askingConn) SetReadDeadline(time.Time) error  { return nil }
func (c *askingConn) SetWriteDeadline(time.Time) error { return nil }
