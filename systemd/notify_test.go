package systemd

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// manager is the service manager's end of the notification socket.
type manager struct{ conn *net.UnixConn }

func newManager(t *testing.T) manager {
	t.Helper()
	path := filepath.Join(shortDir(t), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	t.Setenv("NOTIFY_SOCKET", path)
	return manager{conn}
}

// hear returns the next message.
func (m manager) hear(t *testing.T) string {
	t.Helper()
	var buf [4096]byte
	n, err := m.conn.Read(buf[:])
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// TestNotify: the messages of sd_notify(3), each in one datagram.
func TestNotify(t *testing.T) {
	m := newManager(t)
	for _, c := range []struct {
		tell func() error
		want string
	}{
		{Ready, `READY=1`},
		{Reloading, `RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*\n?`},
		{Stopping, `STOPPING=1`},
		{func() error { return Status("5 answers: 1 enforce") }, `STATUS=5 answers: 1 enforce`},
	} {
		if err := c.tell(); err != nil {
			t.Error(err)
			continue
		}
		if got := m.hear(t); !regexp.MustCompile(`^(?:` + c.want + `)$`).MatchString(got) {
			t.Errorf("told %q, want %q", got, c.want)
		}
	}
	if os.Getenv("NOTIFY_SOCKET") == "" {
		t.Error("NOTIFY_SOCKET was removed: later messages go nowhere")
	}
}

// TestNotifyNobody: without a service manager nothing is sent, and one that
// does not listen any more is an error.
func TestNotifyNobody(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	for _, tell := range []func() error{Ready, Reloading, Stopping} {
		if err := tell(); err != nil {
			t.Error(err)
		}
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(shortDir(t), "gone"))
	if err := Ready(); err == nil {
		t.Error("a socket that is not there is no error")
	}
}

// TestWatchdog: one message for each probe that succeeds, none for others, and
// a probe that hangs is ended.
func TestWatchdog(t *testing.T) {
	m := newManager(t)
	t.Setenv("WATCHDOG_USEC", strconv.Itoa(int((20 * time.Millisecond).Microseconds())))
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	calls, good := 0, 0
	done := make(chan error, 1)
	go func() {
		done <- Watchdog(ctx, func(ctx context.Context) error {
			if _, limited := ctx.Deadline(); !limited {
				return errors.New("no limit for the probe")
			}
			switch calls++; {
			case calls == 1:
				return errors.New("sick")
			case calls == 2:
				<-ctx.Done()
				return ctx.Err()
			case calls > 5:
				cancel()
				return errors.New("enough")
			}
			good++
			return nil
		})
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := Stopping(); err != nil { // the last message, to count up to
		t.Fatal(err)
	}
	heard := 0
	for message := m.hear(t); message != "STOPPING=1"; message = m.hear(t) {
		if heard++; message != "WATCHDOG=1" {
			t.Errorf("told %q", message)
		}
	}
	if heard != good || good != 3 {
		t.Errorf("%d messages, %d probes of %d succeeded; want 3 of each", heard, good, calls)
	}
}

// TestNoWatchdog: without a watchdog, or with that of another process, nothing
// is probed.
func TestNoWatchdog(t *testing.T) {
	m := newManager(t)
	probe := func(context.Context) error {
		t.Error("probed")
		return nil
	}
	for _, c := range []struct {
		limit, pid string
		wrong      bool
	}{
		{"", "", false},
		{"1000", "1", false},
		{"soon", "", true},
		{"-5", "", true},
	} {
		t.Setenv("WATCHDOG_USEC", c.limit)
		t.Setenv("WATCHDOG_PID", c.pid)
		if err := Watchdog(t.Context(), probe); (err != nil) != c.wrong {
			t.Errorf("WATCHDOG_USEC=%s WATCHDOG_PID=%s: %v", c.limit, c.pid, err)
		}
	}
	if err := Stopping(); err != nil {
		t.Fatal(err)
	}
	if got := m.hear(t); got != "STOPPING=1" {
		t.Errorf("told %q", got)
	}
}
