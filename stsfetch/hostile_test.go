package stsfetch

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hostileTimeout is Config.Timeout for hostile hosts. A third of it is the budget for
// connecting, and for the TLS handshake.
const hostileTimeout = 6 * time.Second

// maxTraffic is what a policy host can have received by this host, in bytes: all
// that is read, and what the kernel received meanwhile.
const maxTraffic = 256 << 10

// A hostileHost is a policy host that sends what costs the most.
type hostileHost struct {
	cert     tls.Certificate
	roots    *x509.CertPool
	listener net.Listener
	// raw acts on a connection, before TLS; nil for TLS and then behave.
	raw func(net.Conn)
	// behave acts after the request was read.
	behave  func(io.Writer)
	running sync.WaitGroup

	mu    sync.Mutex
	acked uint64 // bytes that the client's kernel received, of all connections
	fault error
}

func (h *hostileHost) start(t *testing.T) {
	t.Helper()
	h.cert, h.roots = selfIssued(t, []string{"mta-sts.example.com"})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.listener = l
	h.running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			h.running.Go(func() { h.serve(conn.(*net.TCPConn)) })
		}
	})
}

// stop waits until all connections are closed by the client, and returns the bytes
// that it received.
func (h *hostileHost) stop(t *testing.T) uint64 {
	t.Helper()
	h.listener.Close()
	h.running.Wait()
	if h.fault != nil {
		t.Error(h.fault)
	}
	return h.acked
}

func (h *hostileHost) serve(conn *net.TCPConn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	if h.raw != nil {
		h.raw(conn)
	} else if secured := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{h.cert}}); secured.Handshake() == nil {
		_, _ = secured.Read(make([]byte, 4096))
		h.behave(secured)
	}
	_, err := io.Copy(io.Discard, conn)
	h.mu.Lock()
	defer h.mu.Unlock()
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		h.fault = fmt.Errorf("the client did not close: %w", err)
	}
	h.acked += acked(conn)
}

// acked returns how many bytes the peer of conn has acknowledged.
func acked(conn *net.TCPConn) (n uint64) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = info.Bytes_acked
		}
	})
	return n
}

// says returns a behaviour: text, then stream.
func says(text string, stream func(io.Writer)) func(io.Writer) {
	return func(w io.Writer) {
		if _, err := io.WriteString(w, text); err == nil && stream != nil {
			stream(w)
		}
	}
}

// oneByteRecords writes text in TLS records of one byte, without end.
func oneByteRecords(text string) func(io.Writer) {
	return func(w io.Writer) {
		for i := 0; ; i = (i + 1) % len(text) {
			if _, err := io.WriteString(w, text[i:i+1]); err != nil {
				return
			}
		}
	}
}

// bomb returns size zeros, coded with gzip.
func bomb(t *testing.T, size int) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// hostileHosts are the cases of TestHostile.
func hostileHosts(t *testing.T) map[string]*struct {
	hostileHost
	step Step
	text string
} {
	const (
		ok      = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
		chunked = ok + "Transfer-Encoding: chunked\r\n\r\n"
	)
	letters := strings.Repeat("a", 16<<10)
	zip := bomb(t, 5<<20)
	type hosts = map[string]*struct {
		hostileHost
		step Step
		text string
	}
	return hosts{
		"endless chunks": {hostileHost{behave: says(chunked, forever("4000\r\n"+letters+"\r\n", 0))},
			StepTooLarge, "policy has more than 65536 bytes"},
		"endless chunks of one byte": {hostileHost{behave: says(chunked, forever(strings.Repeat("1\r\na\r\n", 1000), 0))},
			StepTooLarge, "policy has more than 65536 bytes with its chunks"},
		"endless chunk extension": {hostileHost{behave: says(chunked+"1;", forever(letters, 0))},
			StepHTTP, "policy ended early"},
		"1 TB announced": {hostileHost{behave: says(ok+"Content-Length: 1000000000000\r\n\r\n", forever(letters, 0))},
			StepTooLarge, "policy has 1000000000000 bytes, more than 65536"},
		"dribbling 404": {hostileHost{behave: says("HTTP/1.1 404 Not Found\r\nContent-Length: 1000000\r\n\r\n", forever("0123456789", 100*time.Millisecond))},
			StepStatus, "HTTP status is 404, not 200"},
		"1xx flood": {hostileHost{behave: forever(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 1000), 0)},
			StepTooLarge, "more than 16 informational responses (1xx)"},
		"1xx dribble": {hostileHost{behave: forever("HTTP/1.1 103 Early Hints\r\n\r\n", time.Second)},
			StepTimeout, "http: timed out: header is incomplete"},
		"header flood": {hostileHost{behave: says(ok, forever(strings.Repeat("X: y\r\n", 1000), 0))},
			StepTooLarge, "header is larger than 32768 bytes"},
		"header flood in one line": {hostileHost{behave: says(ok+"X: ", forever(letters, 0))},
			StepTooLarge, "header is larger than 32768 bytes"},
		"header dribble": {hostileHost{behave: says(ok, forever("X: y\r\n", 100*time.Millisecond))},
			StepTimeout, "http: timed out: header is incomplete"},
		"body dribble": {hostileHost{behave: says(ok+"Content-Length: 1000\r\n\r\n", forever("x", 100*time.Millisecond))},
			StepTimeout, "http: timed out: policy is incomplete"},
		"gzip bomb": {hostileHost{behave: says(fmt.Sprintf("%sContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", ok, len(zip), zip), nil)},
			StepTooLarge, "policy has more than 65536 bytes when its gzip coding is decoded"},
		"TLS records of one byte": {hostileHost{behave: oneByteRecords(ok + strings.Repeat("X: y\r\n", 10000))},
			StepTooLarge, "response is larger than 163840 bytes with what TLS adds"},
		"tarpit": {hostileHost{raw: func(net.Conn) {}},
			StepTimeout, "tls: timed out"},
		"silence after half a handshake": {hostileHost{raw: func(c net.Conn) { _, _ = io.WriteString(c, "\x16\x03\x03\x00\x50\x02\x00\x00\x4c") }},
			StepTimeout, "tls: timed out"},
		"handshake flood": {hostileHost{raw: func(c net.Conn) {
			// A ServerHello of 65535 bytes in records of one byte.
			_, _ = io.WriteString(c, "\x16\x03\x03\x00\x04\x02\x00\xff\xff")
			forever(strings.Repeat("\x16\x03\x03\x00\x01\x00", 1000), 0)(c)
		}}, StepTooLarge, "TLS handshake is larger than 65536 bytes"},
		"silence after the handshake": {hostileHost{behave: func(io.Writer) {}},
			StepTimeout, "http: timed out: no response"},
	}
}

// TestHostile: a hostile policy host ends a fetch within its budget, costs at most
// maxTraffic, is described in the reason, and leaves neither a goroutine nor a
// descriptor.
func TestHostile(t *testing.T) {
	for name, c := range hostileHosts(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.start(t)
			w := newWorld(t, "-- dns --\nmta-sts.example.com. A 9.9.9.1\n")
			f := w.fetcher(t, Config{Roots: c.roots, Timeout: hostileTimeout, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, c.listener.Addr().String())
			}})
			runtime.LockOSThread() // its processor time is that of the client alone
			defer runtime.UnlockOSThread()
			cpu, began := threadTime(t), time.Now()
			e := fetch(t, f)
			took, cpu := time.Since(began), threadTime(t)-cpu
			want(t, e, c.step, c.text)
			if took > hostileTimeout+hostileTimeout/2 {
				t.Errorf("took %v, the timeout is %v", took, hostileTimeout)
			}
			if e != nil && strings.HasPrefix(e.Error(), "tls: timed out") && took >= hostileTimeout {
				t.Errorf("took %v, the budget of the handshake is %v", took, hostileTimeout/budgetShare)
			}
			checkNothingRuns(t)
			n := c.stop(t) // waits for the connection to be closed
			if n > maxTraffic {
				t.Errorf("the host got rid of %d bytes, more than %d", n, maxTraffic)
			}
			t.Logf("%-32s %8.3f s %9d bytes %8.1f ms CPU  %v", name, took.Seconds(), n, float64(cpu.Microseconds())/1000, e)
		})
	}
}

// checkNothingRuns fails if a goroutine that a fetch started runs on. Those of parallel
// tests end.
func checkNothingRuns(t *testing.T) {
	t.Helper()
	var running string
	for range 500 {
		all := make([]byte, 8<<20)
		all = all[:runtime.Stack(all, true)]
		running = ""
		for stack := range strings.SplitSeq(string(all), "\n\n") {
			fetches := strings.Contains(stack, "stsfetch.(*Fetcher)") || strings.Contains(stack, "stsfetch.interrupt")
			if fetches && !strings.Contains(stack, "stsfetch.TestHostile") {
				running = stack
			}
		}
		if running == "" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("still runs: %s", running)
}

// TestHostileDescriptors: a fetch from a hostile host leaves no descriptor open.
func TestHostileDescriptors(t *testing.T) {
	for _, name := range []string{"endless chunks", "handshake flood", "tarpit"} {
		c := hostileHosts(t)[name]
		c.start(t)
		w := newWorld(t, "-- dns --\nmta-sts.example.com. A 9.9.9.1\n")
		f := w.fetcher(t, Config{Roots: c.roots, Timeout: time.Second, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, c.listener.Addr().String())
		}})
		fetch(t, f)
		if n := descriptorsTo(t, c.listener.Addr()); n > 0 {
			t.Errorf("%s: %d connections are open", name, n)
		}
		c.stop(t)
	}
}

// descriptorsTo returns how many sockets of this process are connected to addr.
func descriptorsTo(t *testing.T, addr net.Addr) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		var fd int
		if _, err := fmt.Sscan(entry.Name(), &fd); err != nil {
			continue
		}
		if peer, err := unix.Getpeername(fd); err == nil {
			if peer, ok := peer.(*unix.SockaddrInet4); ok && peer.Port == addr.(*net.TCPAddr).Port {
				n++
			}
		}
	}
	return n
}

// threadTime returns the processor time of the thread of the caller.
func threadTime(t *testing.T) time.Duration {
	t.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
