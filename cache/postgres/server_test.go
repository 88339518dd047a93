package postgres

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"stsmap/cache"
)

// envServer tells tests where the server is that they share.
const envServer = "STSMAP_TEST_POSTGRES"

func TestMain(m *testing.M) { os.Exit(withServer(m)) }

// withServer runs the tests with a server that they share. It does not wait for
// the disk, which takes most of the time, unless that is to be measured; tests
// that kill a server have one of their own.
func withServer(m *testing.M) int {
	flag.Parse()
	fsync := "fsync=off"
	if flag.Lookup("test.bench").Value.String() != "" {
		fsync = "fsync=on"
	}
	dir, err := os.MkdirTemp("", "pg")
	if err == nil {
		defer os.RemoveAll(dir)
		var s *server
		if s, err = newServer(dir, fsync); err == nil {
			defer s.kill()
			if err = s.start(); err == nil {
				err = os.Setenv(envServer, dir)
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// A server is PostgreSQL with a data directory, on a socket, both of its own.
type server struct {
	dir      string
	settings []string
	listen   string // port on 127.0.0.1, beside the socket; empty: none
	cmd      *exec.Cmd
}

// newServer makes a data directory in dir.
func newServer(dir string, settings ...string) (*server, error) {
	s := &server{dir: dir, settings: settings}
	attr, err := credential()
	if err != nil {
		return nil, err
	}
	if attr != nil {
		if err := os.Chown(dir, int(attr.Uid), int(attr.Gid)); err != nil {
			return nil, err
		}
	}
	cmd, err := s.command("initdb", "-D", filepath.Join(dir, "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if err != nil {
		return nil, err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return s, nil
}

// ownServer starts a server for tests that do to it what others would mind.
func ownServer(t *testing.T, settings ...string) *server {
	t.Helper()
	dir, err := os.MkdirTemp("", "pg") // a socket in t.TempDir may have too long a path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s, err := newServer(dir, settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	return s
}

// credential is the user that the server runs as, nil for the current one:
// PostgreSQL refuses to run as root.
func credential() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(uidErr, gidErr)
}

// command is one of the server's programs, of the newest version there is.
func (s *server) command(name string, args ...string) (*exec.Cmd, error) {
	path := name
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name); len(found) > 0 {
		path = slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })
	}
	attr, err := credential()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: attr, Pdeathsig: syscall.SIGQUIT}
	return cmd, nil
}

func version(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

func (s *server) start() error {
	args := []string{"-D", filepath.Join(s.dir, "data"), "-k", s.dir, "-c", "listen_addresses=", "-c", "shared_buffers=16MB"}
	if s.listen != "" {
		args = append(args, "-c", "listen_addresses=127.0.0.1", "-p", s.listen)
	}
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	cmd, err := s.command("postgres", args...)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd = cmd
	for range 600 {
		if err = admin(context.Background(), s.url("postgres"), "SELECT 1"); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	text, _ := os.ReadFile(log.Name())
	return fmt.Errorf("server does not start: %w\n%s", err, text)
}

// processes are the server's, itself first.
func (s *server) processes() []int {
	pids := []int{s.cmd.Process.Pid}
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pids[0]))
	for pid := range strings.FieldsSeq(string(children)) {
		if n, err := strconv.Atoi(pid); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}

func (s *server) signal(sig syscall.Signal) {
	for _, pid := range s.processes() {
		_ = syscall.Kill(pid, sig)
	}
}

// kill ends the server as a power failure would, but for the disk.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	// Stopped, it makes no children that would outlive it, and keep the next
	// server from starting.
	_ = s.cmd.Process.Signal(syscall.SIGSTOP)
	pids := s.processes()
	s.signal(syscall.SIGKILL)
	_ = s.cmd.Wait()
	s.cmd = nil
	for _, pid := range pids {
		for range 600 {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil || strings.Contains(string(stat), ") Z ") {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// url is that of a database, with parameters.
func (s *server) url(database string, params ...string) string {
	if s.listen != "" {
		params = append(params, "port="+s.listen)
	}
	return urlOf(s.dir, database, params...)
}

func urlOf(dir, database string, params ...string) string {
	return "postgres://postgres@/" + database + "?" + strings.Join(append(params, "host="+dir), "&")
}

// admin executes statements as the superuser.
func admin(ctx context.Context, url string, statements ...string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// A testDatabase is one on the shared server, for one test.
type testDatabase struct{ dir, name string }

func newDatabase(t testing.TB) testDatabase {
	t.Helper()
	dir := os.Getenv(envServer)
	name := fmt.Sprintf("t%d", time.Now().UnixNano())
	if err := admin(t.Context(), urlOf(dir, "postgres"), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return testDatabase{dir, name}
}

func (d testDatabase) url(params ...string) string { return urlOf(d.dir, d.name, params...) }

// as is the URL for another user.
func (d testDatabase) as(user string) string {
	return strings.Replace(d.url(), "postgres@", user+"@", 1)
}

func (d testDatabase) exec(t testing.TB, statements ...string) {
	t.Helper()
	if err := admin(t.Context(), d.url(), statements...); err != nil {
		t.Fatal(err)
	}
}

// query returns the one value that a query has.
func (d testDatabase) query(t testing.TB, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), d.url())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var value *string
	if err := conn.QueryRow(t.Context(), "SELECT ("+sql+")::text").Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if value == nil {
		return "NULL"
	}
	return *value
}

func mustOpen(t testing.TB, url string) *Store {
	t.Helper()
	s, err := Open(t.Context(), url, Options{Timeout: 20 * time.Second})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func want(t testing.TB, s *Store, e cache.Entry) {
	t.Helper()
	if got, err := s.Get(t.Context(), e.Domain); err != nil || got != e {
		t.Errorf("Get(%s) = %+v, %v; want %+v", e.Domain, got, err, e)
	}
}

func wantNone(t testing.TB, s *Store, domain string) {
	t.Helper()
	if got, err := s.Get(t.Context(), domain); !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("Get(%s) = %+v, %v; want ErrNotFound", domain, got, err)
	}
}

func wantError(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", parts)
		return
	}
	for _, part := range append(parts, "postgres: ") {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not contain %q", err, part)
		}
	}
}

// lock locks a table against writing until the returned function is called.
func (d testDatabase) lock(t testing.TB, table string) (release func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), d.url())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE "+table+" IN SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	return func() { _ = conn.Close(context.Background()) }
}

// waitFor waits until a query has the value.
func (d testDatabase) waitFor(t testing.TB, sql, value string) {
	t.Helper()
	for range 600 {
		if d.query(t, sql) == value {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s is never %s", sql, value)
}
