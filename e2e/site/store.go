package site

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Server is a program that runs in the foreground: a store that several daemons share.
type Server struct {
	// URL is what cache.store says to use it.
	URL string

	command func() (*exec.Cmd, error) // starts anew with the same files
	ready   func(ctx context.Context) error
	log     string
	port    string // of a redis-server
	cmd     *exec.Cmd
}

// Linked waits until a redis-server that replicates another has all that the other has.
func (s *Server) Linked(ctx context.Context) error {
	for {
		out, err := exec.CommandContext(ctx, "redis-cli", "-p", s.port, "INFO", "replication").CombinedOutput()
		if err == nil && strings.Contains(string(out), "master_link_status:up") {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("the replica is not linked: %w: %s", ctx.Err(), out)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Start starts it, again if it was killed, and returns when it answers.
func (s *Server) Start(ctx context.Context) error {
	cmd, err := s.command()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd = cmd
	for {
		if err = s.ready(ctx); err == nil {
			return nil
		}
		if ctx.Err() != nil {
			text, _ := os.ReadFile(s.log)
			return fmt.Errorf("%s does not answer: %w: %s", cmd.Path, err, text)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Kill ends it as a crash does, with all of its processes. It does nothing if it does not run.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	// The processes of a server are a group.
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	_ = s.cmd.Wait()
	s.cmd = nil
	time.Sleep(100 * time.Millisecond) // for its children, which others wait for
}

// NewRedis returns a redis-server on a port of the loopback that has written a change to disk before it answers. It is
// not started yet. Further settings are arguments of redis-server.
func NewRedis(dir string, port int, settings ...string) (*Server, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	number := strconv.Itoa(port)
	args := append([]string{"--port", number, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "yes", "--appendfsync", "always",
		"--repl-diskless-sync-delay", "0"}, settings...)
	return &Server{
		port:    number,
		URL:     "redis://127.0.0.1:" + number,
		log:     filepath.Join(dir, "log"),
		command: func() (*exec.Cmd, error) { return group(exec.Command("redis-server", args...)), nil },
		ready: func(ctx context.Context) error {
			out, err := exec.CommandContext(ctx, "redis-cli", "-p", number, "PING").CombinedOutput()
			if err == nil && strings.TrimSpace(string(out)) != "PONG" {
				err = errors.New(strings.TrimSpace(string(out)))
			}
			return err
		},
	}, nil
}

// NewSentinel returns a Redis Sentinel for the master at a port.
func NewSentinel(dir string, port, master int) (*Server, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "sentinel.conf")
	text := fmt.Sprintf("port %d\nbind 127.0.0.1\ndir %s\nsentinel monitor site 127.0.0.1 %d 1\n"+
		"sentinel down-after-milliseconds site 500\nsentinel failover-timeout site 5000\n", port, dir, master)
	number := strconv.Itoa(port)
	return &Server{
		URL:     "redis+sentinel://127.0.0.1:" + number + "?master_name=site",
		log:     filepath.Join(dir, "log"),
		command: func() (*exec.Cmd, error) { return group(exec.Command("redis-sentinel", conf)), nil },
		ready: func(ctx context.Context) error {
			// Only with a replica to turn to is it of use.
			out, err := exec.CommandContext(ctx, "redis-cli", "-p", number, "SENTINEL", "replicas", "site").CombinedOutput()
			if err == nil && !strings.Contains(string(out), "flags") {
				err = errors.New("no replica is known: " + string(out))
			}
			return err
		},
	}, os.WriteFile(conf, []byte(text), 0o600)
}

// NewPostgres returns a PostgreSQL with a database of its own, on a socket in dir.
func NewPostgres(ctx context.Context, dir string) (*Server, error) {
	owner, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, _ := strconv.Atoi(owner.Uid)
	gid, _ := strconv.Atoi(owner.Gid)
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.Chown(dir, uid, gid)); err != nil {
		return nil, err
	}
	as := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)} // it refuses to be root
	data := filepath.Join(dir, "data")
	run := func(name string, args ...string) (*exec.Cmd, error) {
		found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
		if len(found) == 0 {
			return nil, errors.New("no " + name)
		}
		cmd := group(exec.Command(slices.Max(found), args...))
		cmd.Dir, cmd.SysProcAttr.Credential = dir, as
		return cmd, nil
	}
	initdb, err := run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C")
	if err != nil {
		return nil, err
	}
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	return &Server{
		URL: "postgres://postgres@/postgres?host=" + dir,
		log: filepath.Join(dir, "log"),
		command: func() (*exec.Cmd, error) {
			return run("postgres", "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "shared_buffers=16MB")
		},
		ready: func(ctx context.Context) error {
			return exec.CommandContext(ctx, "psql", "-h", dir, "-U", "postgres", "-c", "select 1").Run()
		},
	}, nil
}

// group makes a command the leader of a group of processes, that ends with the namespace at the latest.
func group(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}
