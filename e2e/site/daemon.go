package site

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// LookupAddr is where the stand-in for systemd listens for lookups.
const LookupAddr = "127.0.0.1:8461"

// DaemonConfig says how to start stsmap.
type DaemonConfig struct {
	Binary string
	Dir    string // for configuration, cache and log; exists
	Conf   string // the text of the configuration file
	Jail   string // a queue directory, in which stsmap/map.sock is made too; empty: none
	Bin    string // a directory to be searched for programs before those of the system; empty: none
	Lookup string // where the stand-in for systemd listens; empty: LookupAddr
}

// Daemon is stsmap under a stand-in for systemd: that holds the listening sockets, hands them down at each start
// (sd_listen_fds(3)), waits for READY=1 (sd_notify(3)), and keeps the sockets when the daemon ends, so that clients
// of a daemon that is being started again wait in the backlog instead of being refused.
type Daemon struct {
	Log    Log // what the daemon writes to standard error
	conf   string
	binary string
	path   string // of the environment
	socks  []*os.File
	notify *net.UnixConn
	log    *os.File
	cmd    *exec.Cmd
	ended  chan error // gets the result of cmd.Wait, once

	listening sync.WaitGroup // listenNotify

	mu   sync.Mutex
	said []string // what was heard on notify, line by line
}

// NewDaemon opens the listening sockets and writes the configuration. It does not start the daemon.
func NewDaemon(c DaemonConfig) (*Daemon, error) {
	d := &Daemon{
		Log:    Log(filepath.Join(c.Dir, "stsmap.log")),
		conf:   filepath.Join(c.Dir, "stsmap.toml"),
		binary: c.Binary,
		path:   os.Getenv("PATH"),
	}
	if c.Bin != "" {
		d.path = c.Bin + ":" + d.path
	}
	if err := os.WriteFile(d.conf, []byte(c.Conf), 0o644); err != nil {
		return nil, err
	}
	var err error
	if d.log, err = os.OpenFile(string(d.Log), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
		return nil, err
	}
	speech := &net.UnixAddr{Name: filepath.Join(c.Dir, "notify"), Net: "unixgram"}
	if d.notify, err = net.ListenUnixgram("unixgram", speech); err != nil {
		return nil, errors.Join(err, d.log.Close())
	}
	d.listening.Go(d.listenNotify)
	if err := d.listen("tcp", cmp.Or(c.Lookup, LookupAddr)); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if c.Jail != "" {
		if err := d.listenInJail(c.Jail); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	return d, nil
}

// Conf returns the path of the configuration file, for the other commands of stsmap.
func (d *Daemon) Conf() string { return d.conf }

// Binary returns the path of the program.
func (d *Daemon) Binary() string { return d.binary }

func (d *Daemon) listen(network, addr string) error {
	l, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	if unix, ok := l.(*net.UnixListener); ok {
		unix.SetUnlinkOnClose(false) // the file below is a copy of the socket that lives on
	}
	file, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		return errors.Join(err, l.Close())
	}
	d.socks = append(d.socks, file)
	return l.Close()
}

// listenInJail makes the socket as the unit file does: in a directory of its own in the queue directory, and open to
// the group of Postfix.
func (d *Daemon) listenInJail(jail string) error {
	dir := filepath.Join(jail, "stsmap")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	group, err := user.LookupGroup("postfix")
	if err != nil {
		return err
	}
	gid, _ := strconv.Atoi(group.Gid)
	sock := filepath.Join(dir, "map.sock")
	if err := os.Remove(sock); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return errors.Join(d.listen("unix", sock), os.Chown(sock, 0, gid), os.Chmod(sock, 0o660))
}

// Start starts the daemon, and returns when it says that it is ready.
func (d *Daemon) Start(ctx context.Context) error {
	if d.cmd != nil {
		return errors.New("stsmap is running")
	}
	// The process identifier is known only after the process has begun, so a shell has to set it.
	d.cmd = exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" serve --config "$1"`, d.binary, d.conf)
	// Next to nothing is inherited, as under systemd; above all no STSMAP_... from the environment of the tests.
	d.cmd.Env = []string{
		"PATH=" + d.path,
		"NOTIFY_SOCKET=" + d.notify.LocalAddr().String(),
		"WATCHDOG_USEC=1000000",
		"LISTEN_FDS=" + strconv.Itoa(len(d.socks)),
		"LISTEN_FDNAMES=" + strings.Join(slices.Repeat([]string{"map"}, len(d.socks)), ":"),
	}
	d.cmd.ExtraFiles = d.socks
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	d.heard()
	if err := d.cmd.Start(); err != nil {
		d.cmd = nil
		return err
	}
	d.ended = make(chan error, 1)
	go func(cmd *exec.Cmd, ended chan<- error) { ended <- cmd.Wait() }(d.cmd, d.ended)
	if err := d.says(ctx, "READY=1"); err != nil {
		return errors.Join(err, d.Kill())
	}
	return nil
}

// Reload makes the running daemon read its configuration again, and returns when it says that it is ready again.
func (d *Daemon) Reload(ctx context.Context) error {
	if d.cmd == nil {
		return errors.New("stsmap is not running")
	}
	d.heard()
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	return d.says(ctx, "READY=1")
}

// Alive waits for the daemon to tell the watchdog that it answers.
func (d *Daemon) Alive(ctx context.Context) error {
	if d.cmd == nil {
		return errors.New("stsmap is not running")
	}
	d.heard()
	return d.says(ctx, "WATCHDOG=1")
}

// listenNotify collects what the daemon says until the socket is closed. It has to be read all the time, as systemd
// does: the queue of such a socket is short, and a daemon that is not listened to stops to speak, and to stop.
func (d *Daemon) listenNotify() {
	buf := make([]byte, 4096)
	for {
		n, err := d.notify.Read(buf)
		if err != nil {
			return
		}
		d.mu.Lock()
		d.said = append(d.said, strings.Split(string(buf[:n]), "\n")...)
		d.mu.Unlock()
	}
}

// heard returns what the daemon, or the one before it, has said since the last call.
func (d *Daemon) heard() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	said := d.said
	d.said = nil
	return said
}

// says waits until the daemon says line to the service manager, or for the end of the daemon.
func (d *Daemon) says(ctx context.Context, line string) error {
	for {
		select {
		case err := <-d.ended:
			d.ended <- err // for Kill
			return fmt.Errorf("stsmap ended before it said %s: %w: %s", line, err, strings.Join(d.Log.Since(0), "\n"))
		case <-ctx.Done():
			return fmt.Errorf("stsmap does not say %s: %w", line, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
		if slices.Contains(d.heard(), line) {
			return nil
		}
	}
}

// Stop asks the daemon to end and returns when it has ended: with an error, if it did not end in time or not with
// success. The sockets stay open. It does nothing if the daemon does not run.
func (d *Daemon) Stop(ctx context.Context) error {
	if d.cmd == nil {
		return nil
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-d.ended:
		d.cmd = nil
		if err != nil {
			return fmt.Errorf("stsmap ended with %w: %s", err, strings.Join(d.Log.Since(0), "\n"))
		}
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("stsmap does not end: %w", ctx.Err()), d.Kill())
	}
}

// Kill ends the daemon without asking, as a crash would, and returns when it has ended. The sockets stay open.
func (d *Daemon) Kill() error {
	if d.cmd == nil {
		return nil
	}
	d.cmd.Process.Kill()
	<-d.ended
	d.cmd = nil
	return nil
}

// Close kills the daemon if it runs and closes the sockets: from now on clients are refused. It may be called again.
func (d *Daemon) Close() error {
	errs := []error{d.Kill()}
	for _, s := range d.socks {
		errs = append(errs, s.Close())
	}
	d.socks = nil
	if d.log == nil {
		return nil // closed before
	}
	errs = append(errs, d.notify.Close(), d.log.Close())
	d.listening.Wait()
	d.log = nil
	return errors.Join(errs...)
}
