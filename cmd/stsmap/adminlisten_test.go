package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stsmap/admin"
)

// newWindow returns one of a daemon that does nothing else, and its log, which
// may be read when nothing is served.
func newWindow(t *testing.T) (*window, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	d := &daemon{log: slog.New(slog.NewTextHandler(log, nil))}
	d.monitor = admin.NewMonitor(d.log, "none")
	d.metrics = admin.NewMetrics(d.monitor, "1", "", func() admin.Status { return admin.Status{} })
	d.minutes = admin.NewMinutes(d.metrics)
	d.window = &window{d: d}
	t.Cleanup(func() {
		d.window.close()
		d.running.Wait()
	})
	return d.window, log
}

// live asks at an address whether the daemon lives.
func live(network, address string) (string, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial(network, address) },
	}}
	answer, err := client.Get("http://localhost/livez")
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return string(text), err
}

// free returns an address without a listener.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestWindowMoves: what a reload says of admin.listen comes true, and an address
// that is taken leaves the daemon without, and not the old one in force.
func TestWindowMoves(t *testing.T) {
	v, log := newWindow(t)
	first, second, socket := free(t), free(t), filepath.Join(t.TempDir(), "s")
	want := func(network, address string, open bool) {
		t.Helper()
		text, err := live(network, address)
		if open && (err != nil || text != "sockets: ok\n") || !open && err == nil {
			t.Errorf("%s: %q, %v, want open: %v", address, text, err, open)
		}
	}
	v.open(first)
	want("tcp", first, true)
	v.open(first)
	want("tcp", first, true)
	v.open("unix:" + socket)
	want("tcp", first, false)
	want("unix", socket, true)
	v.open(second)
	want("unix", socket, false)
	want("tcp", second, true)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	v.open(taken.Addr().String())
	want("tcp", second, false)
	if v.at() != "" {
		t.Errorf("it is said to be at %s", v.at())
	}
	v.open(second)
	want("tcp", second, true)
	v.open("")
	want("tcp", second, false)
	v.d.running.Wait()
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "another program has it") {
		t.Errorf("%d warnings:\n%s", n, log)
	}
}

// TestAdminConnsBounded: while the number of connections is at its bound, a new one
// waits, and is answered when another one closes.
func TestAdminConnsBounded(t *testing.T) {
	v, _ := newWindow(t)
	address := free(t)
	v.open(address)
	var idle []net.Conn
	for range maxAdminConns {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		idle = append(idle, c)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := live("tcp", address)
		answered <- err
	}()
	for _, c := range idle[:1] {
		c.Close()
	}
	select {
	case err := <-answered:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("nobody is answered any more")
	}
}
