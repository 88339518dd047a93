package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"stsmap/socketmap"
)

// A process is a daemon of its own process that serves a TCP socket, which the
// test keeps as systemd does, and answers all of example.net by an override.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  string // path
	addr string
}

// startProcess starts a daemon that asks dns, after the commands of a shell.
func startProcess(t *testing.T, l *net.TCPListener, dns, shell string) *process {
	t.Helper()
	dir := t.TempDir()
	conf := fmt.Sprintf("[dns]\nservers = [%q]\ntimeout = \"8s\"\n[cache]\nstore = \"memory:\"\n[overrides]\nfile = %q\n"+
		"[admin]\nsocket = \"\"\nlisten = \"\"\n[dane]\nmode = \"off\"\n[postfix]\nrelease = \"3.7.0\"\n", dns, filepath.Join(dir, "o.toml"))
	for name, text := range map[string]string{"s.toml": conf, "o.toml": "[[override]]\ndomain = \".example.net\"\naction = \"exempt\"\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	socket, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	p := &process{t: t, log: filepath.Join(dir, "log"), addr: l.Addr().String()}
	log, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command("sh", "-c", shell+`LISTEN_PID=$$ exec stsmap serve --config "$0"`, filepath.Join(dir, "s.toml"))
	p.cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=lookup")
	p.cmd.ExtraFiles = []*os.File{socket}
	p.cmd.Stderr = log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	})
	return p
}

// terminate sends SIGTERM.
func (p *process) terminate() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
}

// wait waits until the daemon has ended, and returns its log.
func (p *process) wait() string {
	p.t.Helper()
	if err := p.cmd.Wait(); err != nil {
		p.t.Error(err)
	}
	log, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(log)
}

// ask asks on a new connection, which stays open until the test ends.
func (p *process) ask(ctx context.Context, name, key string) (socketmap.Reply, error) {
	p.t.Helper()
	client, err := socketmap.Dial(ctx, p.addr)
	if err != nil {
		return socketmap.Reply{}, err
	}
	p.t.Cleanup(func() { client.Close() })
	return client.Do(ctx, name, key)
}

// tcpListener returns a listener on loopback.
func tcpListener(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// A denyingDNS answers that no name exists.
type denyingDNS struct {
	addr    string
	silent  atomic.Bool   // it does not answer
	queries chan struct{} // one for each query, as far as there is room
}

// startDNS starts a denyingDNS.
func startDNS(t *testing.T) *denyingDNS {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &denyingDNS{addr: pc.LocalAddr().String(), queries: make(chan struct{}, 1)}
	server := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		select {
		case d.queries <- struct{}{}:
		default:
		}
		if !d.silent.Load() {
			_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeNameError))
		}
	})}
	ended := make(chan error, 1)
	go func() { ended <- server.ActivateAndServe() }()
	t.Cleanup(func() {
		pc.Close()
		<-ended
	})
	return d
}

// TestRestartWithSlowLookup: a lookup that waits for the network does not hold up
// a restart. Its connection is closed without an answer, and Postfix gets one when
// it asks again, once. A client that connects meanwhile is answered by the next
// daemon.
func TestRestartWithSlowLookup(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l, resolver := tcpListener(t), startDNS(t)
	first := startProcess(t, l, resolver.addr, "")
	if r, err := first.ask(ctx, "postfix", "a.example.net"); err != nil || r.Status != socketmap.NotFound {
		t.Fatalf("%v, %v", r, err)
	}
	resolver.silent.Store(true)
	for len(resolver.queries) > 0 {
		<-resolver.queries
	}
	type answer struct {
		reply socketmap.Reply
		asked int
		err   error
	}
	askAsPostfix := func(key string) <-chan answer {
		answers := make(chan answer, 1)
		go func() {
			a := answer{asked: 1}
			if a.reply, a.err = first.ask(ctx, "postfix", key); a.err != nil {
				a.asked++
				a.reply, a.err = first.ask(ctx, "postfix", key)
			}
			answers <- a
		}()
		return answers
	}
	slow := askAsPostfix("slow.example.com")
	<-resolver.queries
	first.terminate()
	waiting := askAsPostfix("b.example.net")
	log := first.wait()
	resolver.silent.Store(false)
	second := startProcess(t, l, resolver.addr, "")
	if a := <-waiting; a.err != nil || a.reply.Status != socketmap.NotFound {
		t.Errorf("a new connection: %+v", a)
	}
	if a := <-slow; a.err != nil || a.reply.Status != socketmap.NotFound || a.asked != 2 {
		t.Errorf("the slow lookup: %+v, want an answer by the second daemon; log of the first:\n%s", a, log)
	}
	second.terminate()
	second.wait()
}

// TestFloodBounded: what a client can cause at will makes a few lines in the log,
// and the number of the others.
func TestFloodBounded(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l := tcpListener(t)
	p := startProcess(t, l, "127.0.0.1:9", "")
	const malformed, unknown = 1000, 50
	for range malformed {
		nc, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(nc, "x")
		if _, err := nc.Read(make([]byte, 1)); err == nil {
			t.Fatal("a malformed request was answered")
		}
		nc.Close()
	}
	for i := range unknown {
		if _, err := p.ask(ctx, fmt.Sprintf("map%d", i), "a.example.net"); err != nil {
			t.Fatal(err)
		}
	}
	p.terminate()
	log := p.wait()
	for message, sent := range map[string]int{"malformed request": malformed, `unknown socketmap name is answered as \"postfix\"`: unknown} {
		lines := strings.Count(log, `msg="`+message+`"`)
		// The machine may be so slow that several minutes pass.
		var omitted int
		for line := range strings.Lines(log) {
			if _, rest, ok := strings.Cut(line, `msg="log lines omitted" message="`+message+`" lines=`); ok {
				var n int
				if _, err := fmt.Sscan(rest, &n); err != nil {
					t.Error(err)
				}
				omitted += n
			}
		}
		if lines == 0 || lines > sent/5 || lines+omitted != sent {
			t.Errorf("%s: %d lines, %d omitted, want %d together\n%.5000s", message, lines, omitted, sent, log)
		}
	}
}

// TestFewDescriptors: however many clients there are, they leave descriptors for
// DNS, so that a first contact is looked up.
func TestFewDescriptors(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l, resolver := tcpListener(t), startDNS(t)
	p := startProcess(t, l, resolver.addr, "ulimit -n 64; ")
	for range 100 {
		if r, err := p.ask(ctx, "postfix", "a.example.net"); err != nil || r.Status != socketmap.NotFound {
			t.Fatalf("%v, %v", r, err)
		}
	}
	for i := range 20 {
		if r, err := p.ask(ctx, "postfix", fmt.Sprintf("n%d.example.com", i)); err != nil || r.Status != socketmap.NotFound {
			t.Fatalf("%v, %v", r, err)
		}
	}
	select {
	case <-resolver.queries:
	default:
		t.Error("DNS was not asked")
	}
	p.terminate()
	log := p.wait()
	for _, message := range []string{"cannot accept connections", "descriptors or memory exhausted"} {
		if n := strings.Count(log, message); n > 0 {
			t.Errorf("%d times %q:\n%.5000s", n, message, log)
		}
	}
}
