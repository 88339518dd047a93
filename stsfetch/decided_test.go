package stsfetch

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// decidedWithin bounds a fetch whose answer is decided by the first bytes of the
// response. The fetches here have a timeout of decidedTimeout, so a fast machine
// is not needed to tell one from the other.
const decidedWithin, decidedTimeout = 10 * time.Second, 30 * time.Second

// A countingConn counts the bytes that are read.
type countingConn struct {
	net.Conn
	n *atomic.Int64
}

func (c countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// forever returns a stream of text without end, with a pause after each.
func forever(text string, pause time.Duration) func(io.Writer) {
	return func(w io.Writer) {
		for {
			if _, err := io.WriteString(w, text); err != nil {
				return
			}
			time.Sleep(pause)
		}
	}
}

// TestDecided: once status, header or size decide the answer, the connection is
// closed, and no more is read than was needed for that.
func TestDecided(t *testing.T) {
	const maxSize = 4096
	header := func(status int, more string) string {
		return fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\n%s\r\n", status, http.StatusText(status), more)
	}
	const chunked = "Transfer-Encoding: chunked\r\n"
	letters := strings.Repeat("a", 16<<10)
	for _, c := range []struct {
		name, response string
		stream         func(io.Writer)
		step           Step
	}{
		{"404 that drips its body", header(404, "Content-Length: 1000000\r\n"), forever("0123456789", time.Second), StepStatus},
		{"404 with an endless body", header(404, chunked), forever("4000\r\n"+letters+"\r\n", 0), StepStatus},
		{"redirect with an endless body", header(302, "Location: https://example.com/\r\n"+chunked), forever("4000\r\n"+letters+"\r\n", 0), StepRedirect},
		{"another type with an endless body", "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + chunked + "\r\n", forever("4000\r\n"+letters+"\r\n", 0), StepContentType},
		{"1 TB announced", header(200, "Content-Length: 1000000000000\r\n"), forever(letters, 0), StepTooLarge},
		{"1 TB announced that drips", header(200, "Content-Length: 1000000000000\r\n"), forever("0123456789", time.Second), StepTooLarge},
		{"larger than MaxSize by one, then silence", header(200, chunked) + "1001\r\n" + letters[:maxSize+1] + "\r\n", nil, StepTooLarge},
		{"endless chunks", header(200, chunked), forever("4000\r\n"+letters+"\r\n", 0), StepTooLarge},
		{"endless chunks of one byte", header(200, chunked), forever(strings.Repeat("000000001\r\na\r\n", 1000), 0), StepTooLarge},
		{"endless chunks of one byte after a large header", header(200, chunked+strings.Repeat("X: "+letters[:1000]+"\r\n", 31)), forever(strings.Repeat("000000001\r\na\r\n", 1000), 0), StepTooLarge},
		{"endless until the end of the connection", header(200, ""), forever(letters, 0), StepTooLarge},
		{"endless header", "HTTP/1.1 200 OK\r\n", forever("X: y\r\n"+strings.Repeat("X: y\r\n", 1000), 0), StepTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin(t, &origin{response: []byte(c.response), stream: c.stream, open: true}, "mta-sts.example.com")
			var n atomic.Int64
			w := newWorld(t, "-- dns --\nmta-sts.example.com. A 9.9.9.1\n")
			f := w.fetcher(t, Config{Roots: o.roots, MaxSize: maxSize, Timeout: decidedTimeout, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, o.listener.Addr().String())
				return countingConn{conn, &n}, err
			}})
			began := time.Now()
			want(t, fetch(t, f), c.step, "")
			if took := time.Since(began); took > decidedWithin {
				t.Errorf("the fetch took %v", took)
			}
			o.connections() // the host sees that the connection is closed, or fails the test
			if n := n.Load(); n > maxSize+64<<10 {
				t.Errorf("read %d bytes for a policy of at most %d", n, maxSize)
			}
		})
	}
}

// TestFraming: the largest policy is accepted from a host that sends each line in a
// chunk of its own, and in a TLS record of its own.
func TestFraming(t *testing.T) {
	const maxSize = 64 << 10
	const header = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
	var chunks []string
	size := 0
	for line := range strings.Lines(policyText + strings.Repeat("mx: mx1.example.com\n", maxSize)) {
		if size += len(line); size > maxSize {
			break
		}
		chunks = append(chunks, fmt.Sprintf("%x\r\n%s\r\n", len(line), line))
	}
	o := newOrigin(t, &origin{response: []byte(header), open: true, stream: func(w io.Writer) {
		for _, chunk := range append(chunks, "0\r\n\r\n") {
			_, _ = io.WriteString(w, chunk)
		}
	}}, "mta-sts.example.com")
	text, _, err := o.fetcher(t).Policy(t.Context(), "example.com")
	if err != nil || len(text) < maxSize-100 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

// A stuckConn is a connection to a peer that stops reading: when stuck is set,
// Write waits until the connection is closed, or for decidedTimeout.
type stuckConn struct {
	net.Conn
	stuck  *atomic.Bool
	closed chan struct{}
	once   *sync.Once
}

func (c stuckConn) Write(p []byte) (int, error) {
	if c.stuck.Load() {
		select {
		case <-c.closed:
		case <-time.After(decidedTimeout):
		}
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

func (c stuckConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestDecidedProxy: a proxy that no longer reads cannot hold a fetch by not
// taking the close_notify of the outer TLS connection.
func TestDecidedProxy(t *testing.T) {
	var stuck atomic.Bool
	o := newOrigin(t, &origin{open: true, stream: func(w io.Writer) {
		stuck.Store(true)
		_, _ = io.WriteString(w, "HTTP/1.1 404 Not Found\r\nContent-Length: 1000\r\n\r\n")
	}}, "mta-sts.example.com")
	cert, _ := selfIssued(t, []string{"127.0.0.1"})
	leaf, err := parseLeaf(cert)
	if err != nil {
		t.Fatal(err)
	}
	o.roots.AddCert(leaf)
	w := newWorld(t, "")
	p := newProxy(t, &proxy{world: w, to: o.listener.Addr().String()}, &tls.Config{Certificates: []tls.Certificate{cert}})
	f := w.fetcher(t, Config{Proxy: "https://" + p.addr, Roots: o.roots, Timeout: decidedTimeout, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		return stuckConn{conn, &stuck, make(chan struct{}), new(sync.Once)}, err
	}})
	began := time.Now()
	want(t, fetch(t, f), StepStatus, "404")
	if took := time.Since(began); took > decidedWithin {
		t.Errorf("the fetch took %v", took)
	}
}
