package socketmap

import (
	"bytes"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzServer holds the server to its law: whatever bytes come in, in whatever pieces, it answers each of
// the well-formed requests before the first malformed one with one well-formed netstring, and nothing
// else; then comes the end.
func FuzzServer(f *testing.F) {
	for _, d := range dialogues(f) {
		var sent strings.Builder
		for _, line := range d.lines {
			word, arg, _ := strings.Cut(line, " ")
			if word != "send" && word != "drip" {
				continue
			}
			text, err := expand(arg)
			if err != nil {
				f.Fatal(err)
			}
			sent.WriteString(text)
		}
		f.Add([]byte(sent.String()), uint16(0))
		f.Add([]byte(sent.String()), uint16(7))
	}
	l := listen(f, "unix")
	start(f, &Server{Handler: HandlerFunc(obey)}, l)

	f.Fuzz(func(t *testing.T, sent []byte, piece uint16) {
		nc := dial(t, l)
		done := make(chan struct{})
		go func() {
			defer close(done)
			sendPieces(nc, sent, int(piece))
		}()
		got, err := io.ReadAll(nc)
		if !isClosed(err) {
			t.Fatalf("the end: %v", err)
		}
		nc.Close() // so that a writer the server no longer reads ends, too
		<-done
		replies := 0
		for ; len(got) > 0; replies++ {
			got = checkReply(t, got)
		}
		if want := countRequests(sent); replies != want {
			t.Fatalf("%d replies to %d requests", replies, want)
		}
	})
}

// sendPieces writes b in pieces, at once if the size is 0, and then ends the sending direction. It does not
// mind if the server has closed.
func sendPieces(nc net.Conn, b []byte, size int) {
	if size == 0 {
		size = max(1, len(b))
	}
	for len(b) > 0 {
		n := min(size, len(b))
		if _, err := nc.Write(b[:n]); err != nil {
			return
		}
		b = b[n:]
	}
	nc.(*net.UnixConn).CloseWrite()
}

// checkReply checks that b begins with a reply that Postfix takes as it is meant, and returns the rest.
// It shares no code with the package.
func checkReply(t *testing.T, b []byte) []byte {
	t.Helper()
	head := regexp.MustCompile(`^([1-9][0-9]*):(OK|NOTFOUND|TEMP|TIMEOUT|PERM) `).FindSubmatch(b)
	if head == nil {
		t.Fatalf("no reply: %.100q", b)
	}
	n, err := strconv.Atoi(string(head[1]))
	begin := len(head[1]) + 1
	if err != nil || n > 100000 || len(b) < begin+n+1 || b[begin+n] != ',' {
		t.Fatalf("no netstring: %.100q", b)
	}
	payload := b[begin : begin+n]
	if bytes.ContainsFunc(payload, func(r rune) bool { return r < ' ' || r == 0x7f }) || !utf8.Valid(payload) || string(payload) == "OK " {
		t.Fatalf("unfit payload: %.100q", payload)
	}
	return b[begin+n+1:]
}

// countRequests counts the well-formed requests at the start of b. It shares no code with the package.
func countRequests(b []byte) int {
	head := regexp.MustCompile(`^([1-9][0-9]{0,4}):`)
	for count := 0; ; count++ {
		m := head.FindSubmatch(b)
		if m == nil {
			return count
		}
		n, _ := strconv.Atoi(string(m[1]))
		b = b[len(m[0]):]
		if n > 10000 || len(b) <= n || b[n] != ',' || bytes.IndexByte(b[:n], ' ') < 1 {
			return count
		}
		b = b[n+1:]
	}
}
