package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stsmap/internal/fakenet"
)

// A lab is what most benchmarks need: a network, a load generator and a folder.
type lab struct {
	net     *fakenet.Net
	load    *process
	dir     string
	used    int // how many domains of any kind were asked for
	daemons int // how many were started
}

func newLab(b *testing.B) *lab {
	dir, err := os.MkdirTemp("", "lab")
	check(b, err)
	b.Cleanup(func() { os.RemoveAll(dir) })
	check(b, os.Chmod(dir, 0o711)) // PostgreSQL refuses to be root, and has to get at its folder
	net, err := fakenet.Start(world(), fakenet.Options{DNS: dnsAddr, HTTPSPort: 443, Dir: dir})
	check(b, err)
	b.Cleanup(net.Close)
	return &lab{net: net, load: spawn(b), dir: dir}
}

// fresh returns domains that nothing has asked for yet.
func (l *lab) fresh(pattern string, n int) Series {
	l.used += n
	return Series{pattern, 100000 + l.used - n, n}
}

// each asks for each domain once, and fails if one answer is wrong.
func (l *lab) each(b *testing.B, addr string, conns int, keys Series) Counts {
	b.Helper()
	c := l.load.run(b, "Each", Job{Addr: addr, Conns: conns, Keys: keys})
	c.check(b, keys)
	return c
}

// queriesPerDomain counts the queries that the network answers meanwhile.
func (l *lab) queriesPerDomain(n int, meanwhile func()) float64 {
	before := l.net.Queries("", "")
	meanwhile()
	return float64(l.net.Queries("", "")-before) / float64(n)
}

// A daemon is stsmap in a process of its own.
type daemon struct {
	cmd   *exec.Cmd
	tcp   string // where it listens, as dial wants it
	unix  string
	log   string        // path
	ended chan struct{} // closed when the process has ended
	err   error         // then: how
}

// launch starts a daemon with the default configuration as far as possible, and does not wait for it. It ends with the
// benchmark at the latest. Further variables are as in the environment, such as "STSMAP_CACHE_ENTRIES=1000".
func (l *lab) launch(b *testing.B, variables ...string) *daemon {
	l.daemons++
	dir := filepath.Join(l.dir, fmt.Sprint("daemon", l.daemons))
	check(b, os.Mkdir(dir, 0o700))
	d := &daemon{tcp: fmt.Sprint("127.0.0.1:", 10000+l.daemons), unix: "unix:" + dir + "/socket", log: dir + "/log", ended: make(chan struct{})}
	d.cmd = exec.Command(os.Getenv(programVariable), "serve", "--config", os.DevNull)
	d.cmd.Env = append(os.Environ(),
		"STSMAP_LISTEN="+d.tcp+","+d.unix,
		"STSMAP_DNS_SERVERS="+dnsAddr,
		"STSMAP_FETCH_CA_FILE="+l.dir+"/ca.pem",
		"STSMAP_FETCH_ALLOW_PRIVATE=127.0.0.0/8",
		"STSMAP_CACHE_STORE=bolt:"+dir+"/cache.db",
		"STSMAP_POSTFIX_DNSSEC=no", // whatever the Postfix of this machine has
		"STSMAP_ADMIN_LISTEN=", "STSMAP_ADMIN_SOCKET=")
	d.cmd.Env = append(d.cmd.Env, variables...)
	if profiles := os.Getenv(profilesVariable); profiles != "" {
		name := strings.ReplaceAll(strings.TrimPrefix(b.Name(), "Benchmark"), "/", "-")
		d.cmd.Env = append(d.cmd.Env, fmt.Sprintf("BENCH_PROFILE=%s/%s-%d.pprof", profiles, name, l.daemons))
	}
	log, err := os.Create(d.log)
	check(b, err)
	defer log.Close()
	d.cmd.Stderr = log
	check(b, d.cmd.Start())
	go func() {
		d.err = d.cmd.Wait()
		close(d.ended)
	}()
	b.Cleanup(func() { d.stop(b) })
	return d
}

// daemon starts one and waits until it accepts connections.
func (l *lab) daemon(b *testing.B, variables ...string) *daemon {
	d := l.launch(b, variables...)
	d.await(b, d.unix).Close() // the last of its sockets that it opens
	return d
}

// await dials until the daemon accepts.
func (d *daemon) await(b *testing.B, addr string) *client {
	b.Helper()
	for {
		c, err := dial(addr)
		if err == nil {
			return c
		}
		select {
		case <-d.ended:
			b.Fatalf("the daemon ended: %v\n%s", d.err, d.lastLines())
		case <-time.After(200 * time.Microsecond):
		}
	}
}

// stop ends the daemon as a service manager does, unless it has ended.
func (d *daemon) stop(b *testing.B) {
	signal := syscall.SIGTERM
	if os.Getenv(profilesVariable) != "" {
		signal = syscall.SIGUSR1 // the profile first: see testdata/profile.go
	}
	if d.cmd.Process.Signal(signal) != nil {
		return
	}
	kill := time.AfterFunc(20*time.Second, func() { _ = d.cmd.Process.Kill() })
	defer kill.Stop()
	if <-d.ended; d.err != nil {
		b.Errorf("the daemon: %v\n%s", d.err, d.lastLines())
	}
}

// kill ends the daemon without a chance to do anything.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.ended
}

// lastLines is the end of the log.
func (d *daemon) lastLines() string {
	text, _ := os.ReadFile(d.log)
	return string(text[max(0, len(text)-1000):])
}

func (d *daemon) cpu(b *testing.B) time.Duration {
	t, err := cpuTime(d.cmd.Process.Pid)
	check(b, err)
	return t
}

// memory reads how many bytes the kernel counts for the daemon (proc_pid_status(5), VmRSS and RssAnon): all, and those
// without the pages of files, which the kernel drops if it needs the room.
func (d *daemon) memory(b *testing.B) (rss, anon float64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	check(b, err)
	for line := range strings.Lines(string(text)) {
		_, _ = fmt.Sscanf(line, "VmRSS: %f kB", &rss) // or another line
		_, _ = fmt.Sscanf(line, "RssAnon: %f kB", &anon)
	}
	if rss == 0 || anon == 0 {
		b.Fatal("/proc/PID/status has no VmRSS or no RssAnon")
	}
	return rss * 1024, anon * 1024
}

// ask asks once on a connection of its own, and returns the reply.
func (d *daemon) ask(b *testing.B, domain string) (reply []byte) {
	b.Helper()
	c := d.await(b, d.tcp)
	defer c.Close()
	if status, err := c.ask(request(domain)); err != nil || status != 'O' {
		b.Fatalf("%s has no policy: %q, %v", domain, status, err)
	}
	return c.reply
}
