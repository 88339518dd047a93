package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"

	"stsmap/admin"
	"stsmap/socketmap"
)

// A pipedDaemon is a daemon whose standard error is a pipe that only the test
// reads. Each lookup makes a line in it.
type pipedDaemon struct {
	t       *testing.T
	cmd     *exec.Cmd
	log     *os.File // to read from
	control *admin.Client
	lookups *socketmap.Client
	asked   int
}

// startPiped starts a daemon with a log.format, and waits until it answers. It
// needs no network: an override is the answer for all of example.net.
func startPiped(ctx context.Context, t *testing.T, format string) *pipedDaemon {
	t.Helper()
	dir := t.TempDir()
	conf := fmt.Sprintf("listen = [%q]\n[dns]\nservers = [\"127.0.0.1:9\"]\n[cache]\nstore = \"memory:\"\n[overrides]\nfile = %q\n"+
		"[admin]\nsocket = %q\nlisten = \"\"\n[log]\nformat = %q\nlookups = \"all\"\n[dane]\nmode = \"off\"\n[postfix]\nrelease = \"3.7.0\"\n",
		"unix:"+filepath.Join(dir, "l"), filepath.Join(dir, "o.toml"), filepath.Join(dir, "c"), format)
	for name, text := range map[string]string{"s.toml": conf, "o.toml": "[[override]]\ndomain = \".example.net\"\naction = \"exempt\"\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	d := &pipedDaemon{t: t, log: read, control: admin.NewClient(filepath.Join(dir, "c"))}
	d.cmd = exec.CommandContext(ctx, "stsmap", "serve", "--config", filepath.Join(dir, "s.toml"))
	d.cmd.Stderr = write
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if d.cmd.ProcessState == nil {
			_ = d.cmd.Process.Kill()
			_ = d.cmd.Wait()
		}
		read.Close()
	})
	for d.lookups, err = socketmap.Dial(ctx, "unix:"+filepath.Join(dir, "l")); err != nil; {
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
		d.lookups, err = socketmap.Dial(ctx, "unix:"+filepath.Join(dir, "l"))
	}
	t.Cleanup(func() { d.lookups.Close() })
	return d
}

// ask has n more lookups answered.
func (d *pipedDaemon) ask(ctx context.Context, n int) {
	d.t.Helper()
	for range n {
		if _, err := d.lookups.Do(ctx, "postfix", fmt.Sprintf("n%d.example.net", d.asked)); err != nil {
			d.t.Fatalf("lookup %d: %v", d.asked, err)
		}
		d.asked++
	}
}

// dropped returns how many lines the daemon says it has dropped.
func (d *pipedDaemon) dropped(ctx context.Context) int {
	d.t.Helper()
	s, err := d.control.Status(ctx)
	if err != nil {
		d.t.Fatal(err)
	}
	return int(s.Log.Dropped)
}

// readGap reads the log until lines are missing, and returns the number of
// lookups before, which must be in order, and how many lines are missing.
func (d *pipedDaemon) readGap() (seen, missing int) {
	d.t.Helper()
	lookup := regexp.MustCompile(`lookup.* ?"?domain"?[=:]"?n(\d+)\.example\.net`)
	report := regexp.MustCompile(`log lines dropped.*lines"?[=:](\d+)`)
	for log := bufio.NewScanner(d.log); log.Scan(); {
		if m := report.FindStringSubmatch(log.Text()); m != nil {
			missing, _ = strconv.Atoi(m[1])
			return seen, missing
		}
		if m := lookup.FindStringSubmatch(log.Text()); m != nil {
			if m[1] != strconv.Itoa(seen) {
				d.t.Fatalf("lookup %d has the line %s", seen, log.Text())
			}
			seen++
		}
	}
	d.t.Fatal("the log has ended")
	return 0, 0
}

// TestLogPipeFull: while standard error is a full pipe, thousands of lookups that
// make lines are answered, and what is dropped is counted. When the pipe is read
// again, each lookup has its line or is counted where it is missing. While it is
// full, SIGTERM ends the daemon.
func TestLogPipeFull(t *testing.T) {
	formats := []string{"text", "json"}
	if !journal.Enabled() { // or else the lines would go into the journal of this machine
		formats = append(formats, "journal")
	}
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			d := startPiped(ctx, t, format)
			for d.ask(ctx, 5000); d.dropped(ctx) == 0; {
				d.ask(ctx, 1000)
			}
			dropped := d.dropped(ctx)

			seen, missing := d.readGap()
			if missing != dropped || seen+missing != d.asked {
				t.Errorf("%d lookups made %d lines, %d are reported as dropped, status says %d", d.asked, seen, missing, dropped)
			}

			for d.ask(ctx, 1000); d.dropped(ctx) == dropped; {
				d.ask(ctx, 1000)
			}
			begin := time.Now()
			if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			// The daemon waits flushLimit for the log.
			if err := d.cmd.Wait(); err != nil || time.Since(begin) > flushLimit+10*time.Second {
				t.Errorf("ended with %v after %v", err, time.Since(begin))
			}
		})
	}
}

// failToServe runs a daemon that logs a line, because its file of overrides has a
// mistake, and then cannot listen. Its standard error is w.
func failToServe(t *testing.T, w io.Writer) (code int) {
	t.Helper()
	dir := t.TempDir()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	conf := fmt.Sprintf("listen = [%q]\n[dns]\nservers = [\"127.0.0.1:9\"]\n[cache]\nstore = \"memory:\"\n[overrides]\nfile = %q\n[log]\nformat = \"text\"\n",
		taken.Addr(), filepath.Join(dir, "o.toml"))
	for name, text := range map[string]string{"s.toml": conf, "o.toml": "mistake"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return run([]string{"serve", "--config", filepath.Join(dir, "s.toml")}, console{out: io.Discard, err: w})
}

// TestFailToServe: an error that ends serve before it serves is printed, after
// everything that was logged.
func TestFailToServe(t *testing.T) {
	var out bytes.Buffer
	code := failToServe(t, &out)
	logged := strings.Index(out.String(), `level=ERROR msg="overrides not read, none is in force"`)
	printed := strings.Index(out.String(), "\nstsmap: error: ")
	if code == 0 || logged < 0 || printed < logged || !strings.Contains(out.String()[printed:], "address already in use") {
		t.Errorf("exit code %d, and %s", code, &out)
	}
}

// TestFailToServePipeFull: such an error ends serve with the same exit code if
// standard error is a full pipe, although it cannot be printed.
func TestFailToServePipeFull(t *testing.T) {
	want := failToServe(t, io.Discard)
	read, write := io.Pipe() // a Write blocks
	defer read.Close()
	ended := make(chan int, 1)
	go func() { ended <- failToServe(t, write) }()
	select {
	case code := <-ended:
		if code != want {
			t.Errorf("exit code %d, want %d", code, want)
		}
	case <-time.After(flushLimit + 20*time.Second):
		t.Fatal("serve does not end")
	}
}

// TestDroppedAtEveryLevel: the warning that lines were dropped is written with
// log.level = "error", too: the dropped lines may be errors.
func TestDroppedAtEveryLevel(t *testing.T) {
	read, write := io.Pipe()
	log, queue := newLog(write, "text", slog.LevelError)
	for queue.Dropped() == 0 {
		log.Error("trouble", "error", strings.Repeat("x", 10_000))
	}
	text := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(read)
		text <- all
	}()
	flushed := queue.Close(time.Minute)
	write.Close()
	if all := string(<-text); !flushed || !strings.HasSuffix(all, "level=WARN msg=\"log lines dropped\" lines=1\n") {
		t.Errorf("flushed: %t; the log ends with %q", flushed, all[max(0, len(all)-100):])
	}
}
