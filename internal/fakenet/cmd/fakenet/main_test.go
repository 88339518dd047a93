package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"
)

// TestRun is the life of the program: ready, asked, reloaded twice, and ended.
func TestRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "world.txt")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("-- dns --\na.example. A 192.0.2.1\n")
	signals := make(chan os.Signal)
	out, stdout := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- run([]string{"-dir", dir, "-v", file}, stdout, stdout, signals)
		stdout.Close()
	}()
	lines := bufio.NewScanner(out) // errors too, so that whatever comes is seen
	next := func() string {
		t.Helper()
		if !lines.Scan() {
			t.Fatal("output has ended")
		}
		return lines.Text()
	}
	ready := next()
	addr, ca, _ := strings.Cut(strings.TrimPrefix(ready, "ready dns="), " ca=")
	if _, err := os.Stat(ca); err != nil {
		t.Errorf("%q: %v", ready, err)
	}
	ask := func() int {
		t.Helper()
		var reply *dns.Msg
		failed := make(chan error, 1)
		go func() {
			var err error
			reply, err = dns.Exchange(new(dns.Msg).SetQuestion("a.example.", dns.TypeA), addr)
			failed <- err
		}()
		if got := next(); got != "query a.example. A tcp=false" {
			t.Errorf("event %q", got)
		}
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
		return reply.Rcode
	}
	if got := ask(); got != dns.RcodeSuccess {
		t.Errorf("first world: %s", dns.RcodeToString[got])
	}
	write("-- dns --\na.example. MX\n")
	signals <- syscall.SIGHUP
	if got := next(); !strings.Contains(got, "line 2: ") {
		t.Errorf("bad world: %q", got)
	}
	write("")
	signals <- syscall.SIGHUP
	if got := next(); got != "reloaded" {
		t.Errorf("after reload: %q", got)
	}
	if got := ask(); got != dns.RcodeNameError {
		t.Errorf("second world: %s", dns.RcodeToString[got])
	}
	signals <- syscall.SIGTERM
	if got := <-status; got != 0 || lines.Scan() {
		t.Errorf("status %d, and last line %q", got, lines.Text())
	}
}

// TestUsage has a status and a complaint for each way not to start.
func TestUsage(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "bad.txt")
	if err := os.WriteFile(bad, []byte("-- dnss --\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{nil, 2, "wants one FILE"},
		{[]string{"-nonsense"}, 2, "nonsense"},
		{[]string{bad + "x"}, 1, "no such file"},
		{[]string{bad}, 1, "line 1: "},
	} {
		var stdout, stderr bytes.Buffer
		if got := run(c.args, &stdout, &stderr, nil); got != c.status || !strings.Contains(stderr.String(), c.want) || stdout.Len() > 0 {
			t.Errorf("%q: status %d, %q, %q", c.args, got, stdout.String(), stderr.String())
		}
	}
}
