package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A daemon is stsmap in a process of its own, with the default configuration as far as possible.
type daemon struct {
	cmd  *exec.Cmd
	log  *os.File
	tcp  string // where it listens, as dial wants it
	unix string

	conf    string // path of its configuration
	control string // its socket for being told things, if it has one
}

// A setup is what a measurement needs to be otherwise than by default.
type setup struct {
	store   string // cache.store; empty: a new file
	addr    string // where it listens; empty: tcpAddr
	control bool   // it can be told things by stsmap warm
	entries int    // cache.entries; 0: default
	timeout string // fetch.timeout; empty: default
	gctrace bool   // the log gets lines about the garbage collector
	dane    bool   // Postfix looks up DNSSEC
}

// tcpAddr is where daemons listen, unless two are to run at once.
const tcpAddr = "127.0.0.1:8461"

// launch starts a daemon and does not wait for it. name is for files, and unlike that of any daemon before.
func (b *bench) launch(name string, s setup) (*daemon, error) {
	d := &daemon{tcp: cmp.Or(s.addr, tcpAddr), unix: "unix:" + filepath.Join(b.dir, name+".sock")}
	if s.store == "" {
		s.store = b.file(name)
	}
	if s.control {
		d.control = filepath.Join(b.dir, name+"-control.sock")
	}
	d.conf = filepath.Join(b.dir, name+".toml")
	if err := os.WriteFile(d.conf, []byte(d.config(b.dir, s)), 0o600); err != nil {
		return nil, err
	}
	d.cmd = exec.Command(b.program, "serve", "--config", d.conf)
	if b.profiles != "" {
		d.cmd = exec.Command(b.self, "-role", "profiled", d.conf, filepath.Join(b.profiles, name+".pprof"))
	}
	if s.gctrace {
		d.cmd.Env = append(os.Environ(), "GODEBUG=gctrace=1")
	}
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	if d.log, err = os.Create(filepath.Join(b.dir, name+".log")); err != nil {
		return nil, err
	}
	d.cmd.Stderr = d.log
	if err := d.cmd.Start(); err != nil {
		d.log.Close()
		return nil, err
	}
	return d, nil
}

// file is the name of a store in a file of that name.
func (b *bench) file(name string) string { return "bolt:" + filepath.Join(b.dir, name+".db") }

// config is the text of the configuration file.
func (d *daemon) config(dir string, s setup) string {
	var b strings.Builder
	fmt.Fprintf(&b, "listen = [%q, %q]\n", d.tcp, d.unix)
	fmt.Fprintf(&b, "[dns]\nservers = [%q]\n", dnsAddr)
	if s.timeout != "" {
		fmt.Fprintf(&b, "timeout = \"1s\"\n")
	}
	fmt.Fprintf(&b, "[fetch]\nca_file = %q\nallow_private = [\"127.0.0.0/8\"]\n", filepath.Join(dir, "ca.pem"))
	if s.timeout != "" {
		fmt.Fprintf(&b, "timeout = %q\n", s.timeout)
	}
	fmt.Fprintf(&b, "[cache]\nstore = %q\n", s.store)
	if s.entries > 0 {
		fmt.Fprintf(&b, "entries = %d\n", s.entries)
	}
	// The Postfix of this machine, if there is one, has nothing to do with it.
	dnssec := map[bool]string{true: "yes", false: "no"}[s.dane]
	fmt.Fprintf(&b, "[postfix]\ndnssec = %q\n", dnssec)
	fmt.Fprintf(&b, "[admin]\nlisten = \"\"\nsocket = %q\n", d.control)
	return b.String()
}

// daemon starts one and waits until it accepts connections.
func (b *bench) daemon(name string, s setup) (*daemon, error) {
	d, err := b.launch(name, s)
	if err != nil {
		return nil, err
	}
	// The last of its sockets that it opens.
	a, err := d.await(d.unix)
	if err != nil {
		return nil, errors.Join(err, d.kill())
	}
	return d, a.nc.Close()
}

// await dials until somebody answers. A daemon that ended at once is found out by the limit.
func (d *daemon) await(addr string) (*asker, error) {
	const limit = time.Minute
	for end := time.Now().Add(limit); ; {
		a, err := dial(addr)
		if err == nil {
			return a, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("the daemon does not listen: %w\n%s", err, d.lastWords())
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// stop ends the daemon as a service manager does.
func (d *daemon) stop() error {
	defer d.log.Close()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	if err := endWithin(d.cmd, 20*time.Second); err != nil {
		return fmt.Errorf("the daemon: %w\n%s", err, d.lastWords())
	}
	return nil
}

// kill ends the daemon without a chance to do anything.
func (d *daemon) kill() error {
	defer d.log.Close()
	if err := d.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = d.cmd.Wait() // "signal: killed"
	return nil
}

// lastWords is the end of the log.
func (d *daemon) lastWords() string {
	text, _ := os.ReadFile(d.log.Name())
	return string(text[max(0, len(text)-1000):])
}

// cpuTime is what a process has used so far. /proc/PID/stat has the same in steps of 10 ms, which is too coarse for
// turns of 60 ms.
func cpuTime(pid int) (time.Duration, error) {
	// The id of a process's clock is made as clock_getcpuclockid(3) does it: CPUCLOCK_SCHED is 2.
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &t); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

func (d *daemon) cpu() (time.Duration, error) { return cpuTime(d.cmd.Process.Pid) }

// A footprint is how much memory a process has in use, in bytes.
type footprint struct {
	rss  int64 // all of it
	anon int64 // without the pages of files, which the kernel drops if it needs the room
}

// footprint reads what the kernel counts for the daemon (proc_pid_status(5), VmRSS and RssAnon).
func (d *daemon) footprint() (footprint, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		return footprint{}, err
	}
	var f footprint
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		field := map[string]*int64{"VmRSS": &f.rss, "RssAnon": &f.anon}[name]
		if field == nil {
			continue
		}
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil {
			return footprint{}, err
		}
		*field = kb << 10
	}
	if f.rss == 0 || f.anon == 0 {
		return footprint{}, errors.New("/proc/PID/status has no VmRSS or no RssAnon")
	}
	return f, nil
}

// ask asks once on a connection of its own, and returns the size of the reply.
func (d *daemon) ask(domain string) (status byte, size int, err error) {
	a, err := dial(d.tcp)
	if err != nil {
		return 0, 0, err
	}
	defer a.nc.Close()
	status, err = a.ask(request(domain))
	return status, a.size, err
}
