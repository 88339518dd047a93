package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// keepAlive opens connections until one would be too many, asks on each of them
// if ask is true, and keeps them open.
func keepAlive(t *testing.T, address string, ask bool) {
	t.Helper()
	for range maxAdminConns(maxDescriptors()) {
		nc, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		if !ask {
			continue
		}
		_, err = io.WriteString(nc, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(bufio.NewReader(nc), nil)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
	}
}

// TestAdminFullOfIdle: as many connections as there may be, kept open after a
// request or without one, do not keep others from an answer.
func TestAdminFullOfIdle(t *testing.T) {
	v, _ := newWindow(t)
	address := free(t)
	v.open(address)
	for _, ask := range []bool{true, false, true} {
		keepAlive(t, address, ask)
		answered := make(chan error, 1)
		go func() {
			_, err := live("tcp", address)
			answered <- err
		}()
		select {
		case err := <-answered:
			if err != nil {
				t.Error(err)
			}
		// Without a request, the limit for its header closes connections after 5 s.
		case <-time.After(v.server.IdleTimeout - 30*time.Second):
			t.Fatalf("no answer; idle connections with a request: %v", ask)
		}
	}
}

// TestAdminFullOfRequests: connections whose request is being answered are not
// closed. The next one waits for one of them.
func TestAdminFullOfRequests(t *testing.T) {
	release, entered := make(chan struct{}), make(chan struct{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bounded := newBoundedListener(l, 2)
	server := &http.Server{ConnState: bounded.ConnState, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			entered <- struct{}{}
			<-release
		}
		_, _ = io.WriteString(w, "done")
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(bounded) }()
	client := &http.Client{Transport: &http.Transport{}}
	answers := make(chan string, 3)
	get := func(path string) {
		answer, err := client.Get("http://" + l.Addr().String() + path)
		if err != nil {
			answers <- err.Error()
			return
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		answers <- string(text)
	}
	go get("/wait")
	go get("/wait")
	<-entered
	<-entered
	time.Sleep(newConnAge) // from now on connections without a request would be closed
	go get("/")
	select {
	case text := <-answers:
		t.Errorf("answered %q while the listener is full", text)
	case <-time.After(3 * closeRetry):
	}
	close(release)
	for range 3 {
		if text := <-answers; text != "done" {
			t.Errorf("answered %q", text)
		}
	}
	client.CloseIdleConnections()
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != http.ErrServerClosed {
		t.Error(err)
	}
}

// TestAdminFullEnds: a listener that is full, with a connection that waits, can
// be closed.
func TestAdminFullEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bounded := newBoundedListener(l, 0)
	accepted := make(chan error, 1)
	go func() {
		_, err := bounded.Accept()
		accepted <- err
	}()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	time.Sleep(2 * closeRetry)
	if err := bounded.Close(); err != nil {
		t.Error(err)
	}
	if err := <-accepted; err == nil || !strings.Contains(err.Error(), "use of closed") {
		t.Errorf("Accept: %v", err)
	}
}
