package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
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
	for _, format := range []string{"text", "json", "journal"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			if format == "journal" && journal.Enabled() {
				t.Skip("the lines would go into the journal of this machine")
			}
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
