package socketmap

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// hang is how long a test waits for what must happen, before it says that it does not. Nothing waits
// this long when all is well.
const hang = 30 * time.Second

// obey is the handler of most tests: the map name of a request says what to do, so that a dialogue needs
// no Go. "OK", "NOTFOUND", "TEMP", "TIMEOUT" and "PERM" answer that with the key as the text; "big" answers
// OK with as many letters as the key says; "status" answers with the status of that number; "panic" panics.
// "more" answers OK with the key, of which what follows the first "|" is appended; "more-big" is like "big".
func obey(_ context.Context, r Request) Reply {
	name, key := string(r.Map), string(r.Key)
	if status, ok := parseStatus(name); ok {
		return Reply{Status: status, Text: key}
	}
	n, _ := strconv.Atoi(key)
	switch name {
	case "big":
		return Reply{Status: OK, Text: strings.Repeat("x", n)}
	case "status":
		return Reply{Status: Status(n), Text: "text"}
	case "panic":
		panic("on request: " + key)
	case "more":
		text, rest, _ := strings.Cut(key, "|")
		return Reply{Status: OK, Text: text, More: appended(rest)}
	case "more-big":
		return Reply{Status: OK, More: appended(strings.Repeat("x", n))}
	}
	return Reply{Status: Perm, Text: "unknown map " + name}
}

// An appended is a part of a text. "panic" panics.
type appended string

func (a appended) AppendTo(b []byte) []byte {
	if a == "panic" {
		panic("on request")
	}
	return append(b, a...)
}

// A lockedBuffer is a log that can be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// logTo returns a logger to l.
func logTo(l io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// listen returns a listener on loopback, or on a socket in a directory of the test.
func listen(t testing.TB, network string) net.Listener {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// start serves l with s, and shuts s down when the test ends.
func start(t testing.TB, s *Server, l net.Listener) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), hang)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-ended; err != ErrServerClosed {
			t.Errorf("Serve: %v, want ErrServerClosed", err)
		}
		if n := s.Stats().Conns; n != 0 {
			t.Errorf("%d connections after Shutdown", n)
		}
	})
}

// dial connects to l, with a deadline that guards against hanging.
func dial(t testing.TB, l net.Listener) net.Conn {
	t.Helper()
	nc, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(hang))
	return nc
}

// send writes text.
func send(t testing.TB, nc net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(nc, text); err != nil {
		t.Fatalf("sending: %v", err)
	}
}

// recv reads exactly text.
func recv(t testing.TB, nc net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	n, err := io.ReadFull(nc, got)
	if string(got[:n]) != text {
		t.Fatalf("received %.200q (%v), want %.200q", got[:n], err, text)
	}
}

// recvClosed checks that the server closes the connection without sending more.
func recvClosed(t testing.TB, nc net.Conn) {
	t.Helper()
	rest, err := io.ReadAll(nc)
	if len(rest) > 0 || !isClosed(err) {
		t.Fatalf("received %.200q (%v), want the connection to be closed", rest, err)
	}
}

// isClosed reports whether err is how a closed connection shows. It is a reset if the server had not read
// everything, which to Postfix is the same (util/dict_sockmap.c).
func isClosed(err error) bool {
	return err == nil || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// eventually waits until ok, which is checked often.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(hang); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting: %s", what)
		}
	}
}

// TestPlain: wherever a byte stands and whatever is beside it, it is found.
func TestPlain(t *testing.T) {
	plain := func(b byte) bool { return b >= ' ' && b < 0x7f }
	for pair := range 1 << 16 {
		one, two := byte(pair>>8), byte(pair)
		for _, at := range []int{0, 6, 7, 15, 16} {
			text := []byte("a text of 18 bytes")
			text[at], text[at+1] = one, two
			if got := isPlain(text); got != (plain(one) && plain(two)) {
				t.Fatalf("%q: %t", text, got)
			}
		}
	}
}

// TestWithText: the text of a reply is the same for who reads it.
func TestWithText(t *testing.T) {
	for _, r := range []Reply{
		{Status: OK, Text: "ab"}, {Status: OK, Text: "a", More: appended("b")}, {Status: OK, More: appended("ab")},
	} {
		if got := r.WithText(); got != (Reply{Status: OK, Text: "ab"}) {
			t.Errorf("%v becomes %v", r, got)
		}
	}
}
