package redis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stsmap/cache"
	"stsmap/cache/cachetest"
)

// soon is longer than anything takes that is waited for.
const soon = 30 * time.Second

// A server is a redis-server of a test, or a Sentinel.
type server struct {
	t    testing.TB
	dir  string
	port string
	args []string
	cmd  *exec.Cmd
	log  *bytes.Buffer
}

// startServer starts a redis-server on a free port of the loopback, and waits
// until it answers. An argument is one of its settings.
func startServer(t testing.TB, args ...string) *server {
	t.Helper()
	s := &server{t: t, dir: t.TempDir(), port: freePort(t)}
	s.args = append([]string{"--port", s.port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--daemonize", "no"}, args...)
	s.start()
	return s
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// start starts it, again on the same port with the same files.
func (s *server) start() {
	s.t.Helper()
	s.run("redis-server", s.args...)
	for began := time.Now(); s.cli("PING") != "PONG"; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > soon {
			s.t.Fatalf("redis-server does not answer:\n%s", s.log)
		}
	}
}

func (s *server) run(name string, args ...string) {
	s.t.Helper()
	s.log = new(bytes.Buffer)
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("%v; make neighbours installs it", err)
	}
	s.cmd = cmd
	s.t.Cleanup(func() { end(cmd) })
}

// end kills a process that may have ended already, or been stopped.
func end(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// kill is a crash.
func (s *server) kill() { end(s.cmd) }

func (s *server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// cli asks the server with redis-cli, and returns what it says.
func (s *server) cli(args ...string) string { return s.cliWithin(5*time.Second, args...) }

func (s *server) cliWithin(limit time.Duration, args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	out, _ := exec.CommandContext(ctx, "redis-cli", append([]string{"-p", s.port}, args...)...).CombinedOutput()
	return strings.TrimSpace(string(out))
}

func (s *server) url() string { return "redis://127.0.0.1:" + s.port }

func mustOpen(t testing.TB, url string) *Store {
	t.Helper()
	s, err := Open(t.Context(), url, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func entry(i int) cache.Entry { return cachetest.NewEntry(fmt.Sprintf("%d.example", i)) }

// eventually waits until do does not fail any more.
func eventually(t testing.TB, what string, do func() error) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		err := do()
		if err == nil {
			return
		}
		if time.Since(began) > soon {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// get fails unless the entry is there.
func get(t testing.TB, s cache.Store, want cache.Entry) {
	t.Helper()
	if e, err := s.Get(t.Context(), want.Domain); err != nil || e.ID != want.ID || e.Policy != want.Policy {
		t.Fatalf("Get(%s) = %+v, %v", want.Domain, e, err)
	}
}

// write makes a file in the directory of s.
func (s *server) write(name, content string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := errors.Join(os.WriteFile(path, []byte(content), 0o600)); err != nil {
		s.t.Fatal(err)
	}
	return path
}
