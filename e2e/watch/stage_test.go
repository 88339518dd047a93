package watch

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"stsmap/internal/fakenet"
	"stsmap/socketmap"
)

// hang is how long a test waits for what must happen. Nothing takes that long when
// all is well.
const hang = 3 * time.Minute

// eventually waits until f says that it is so; what it says otherwise is printed
// at the end.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	for end := time.Now().Add(hang); ; time.Sleep(200 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// free returns an address on loopback without a listener.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A world is a small internet with a way in.
type world struct {
	net   *fakenet.Net
	proxy string // URL
}

func newWorld(t *testing.T, description string) *world {
	t.Helper()
	n, err := fakenet.Start(description, fakenet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { n.ServeProxy(l) })
	t.Cleanup(func() {
		l.Close()
		n.Close()
		running.Wait()
	})
	return &world{n, "http://" + l.Addr().String()}
}

func (w *world) update(t *testing.T, description string) {
	t.Helper()
	if err := w.net.Update(description); err != nil {
		t.Fatal(err)
	}
}

// program builds stsmap, and returns its path.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stsmap")
	if out, err := exec.Command("go", "build", "-o", path, "../../cmd/stsmap").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// A daemon is stsmap in a process of its own.
type daemon struct {
	program, dir  string
	listen, admin string // addresses
	cmd           *exec.Cmd
}

// newDaemon makes one in the world, which is not started. more is the end of its
// configuration.
func newDaemon(t *testing.T, program string, w *world, more string) *daemon {
	t.Helper()
	d := &daemon{program: program, dir: t.TempDir(), listen: free(t), admin: free(t)}
	if err := os.WriteFile(filepath.Join(d.dir, "ca.pem"), w.net.CAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	d.configure(t, fmt.Sprintf(`
listen = [%q]
admin.listen = %q
admin.socket = %q
log.format = "text"
dns.servers = [%q]
dns.timeout = "500ms"
fetch.proxy = %q
fetch.ca_file = %q
%s`, d.listen, d.admin, filepath.Join(d.dir, "c"), w.net.DNSAddr(), w.proxy, filepath.Join(d.dir, "ca.pem"), more))
	t.Cleanup(func() {
		if d.cmd != nil {
			d.kill()
		}
		if t.Failed() {
			text, _ := os.ReadFile(filepath.Join(d.dir, "log"))
			t.Logf("the log of %s:\n%s", d.admin, text[max(0, len(text)-4000):])
		}
	})
	return d
}

// configure writes the configuration.
func (d *daemon) configure(t *testing.T, text string) {
	t.Helper()
	write(t, d.dir, "stsmap.toml", text)
}

// start starts the daemon, and waits until it answers.
func (d *daemon) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command(d.program, "serve", "--config", filepath.Join(d.dir, "stsmap.toml"))
	d.cmd.Stderr = log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the daemon answers", func() error {
		answer, err := http.Get("http://" + d.admin + "/livez")
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("status %s", answer.Status)
		}
		return nil
	})
}

func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
	d.cmd = nil
}

// run runs another command with the configuration of the daemon, and returns what
// it printed. That it fails is for some the point.
func (d *daemon) run(args ...string) string {
	out, _ := exec.Command(d.program, append(args, "--config", filepath.Join(d.dir, "stsmap.toml"))...).CombinedOutput()
	return string(out)
}

// ask looks domains up, one after the other. That a daemon has no answer is no
// failure: faults are the point.
func (d *daemon) ask(ctx context.Context, keys ...string) {
	c, err := socketmap.Dial(ctx, d.listen)
	if err != nil {
		return
	}
	defer c.Close()
	for _, k := range keys {
		once, cancel := context.WithTimeout(ctx, 20*time.Second)
		_, err := c.Do(once, "postfix", k)
		cancel()
		if err != nil {
			return
		}
	}
}

// numbered are the names of a series.
func numbered(prefix, suffix string, n int) (names []string) {
	for i := 1; i <= n; i++ {
		names = append(names, prefix+strconv.Itoa(i)+suffix)
	}
	return names
}

// A prometheus is one that scrapes daemons each second.
type prometheus struct{ address string }

// startPrometheus starts one with the rules, for which seconds pass like minutes.
func startPrometheus(t *testing.T, rules string, daemons ...*daemon) *prometheus {
	t.Helper()
	dir, p := t.TempDir(), &prometheus{free(t)}
	var targets bytes.Buffer
	for _, d := range daemons {
		fmt.Fprintf(&targets, "          - %q\n", d.admin)
	}
	write(t, dir, "rules.yml", rules)
	config := write(t, dir, "prometheus.yml", fmt.Sprintf(`
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [rules.yml]
scrape_configs:
  - job_name: stsmap
    static_configs:
      - targets:
%s`, &targets))
	if out, err := promtool(t, dir, "check", "config", config); err != nil {
		t.Fatalf("%s", out)
	}
	cmd := exec.Command("prometheus", "--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "data"),
		"--web.listen-address", p.address, "--log.level", "error")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return p
}

// A sample is one of a vector.
type sample struct {
	Metric map[string]string
	Value  [2]any // time, and value as text
}

// number is the value, and false if it is none.
func (s sample) number() (float64, bool) {
	text, _ := s.Value[1].(string)
	v, err := strconv.ParseFloat(text, 64)
	return v, err == nil && v == v
}

// query asks for a vector.
func (p *prometheus) query(expr string) ([]sample, error) {
	answer, err := http.Get("http://" + p.address + "/api/v1/query?" + url.Values{"query": {expr}}.Encode())
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	var v struct {
		Status, Error string
		Data          struct{ Result []sample }
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, fmt.Errorf("%s: %w", text, err)
	}
	if v.Status != "success" {
		return nil, fmt.Errorf("%s: %s", expr, v.Error)
	}
	return v.Data.Result, nil
}

// scrape returns the metrics of a daemon.
func scrape(t *testing.T, d *daemon) string {
	t.Helper()
	answer, err := http.Get("http://" + d.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("status %s, %v", answer.Status, err)
	}
	return string(text)
}

// promtoolReading is promtool with a file on standard input.
func promtoolReading(in *os.File, args ...string) (string, error) {
	cmd := exec.Command("promtool", args...)
	cmd.Stdin = in
	out, err := cmd.CombinedOutput()
	return string(out), err
}
