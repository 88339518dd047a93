package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"stsmap/admin"
)

// A window is where metrics, health and the status page are served. It can move
// while the daemon runs. open and close may not be called concurrently.
type window struct {
	d *daemon

	mu      sync.Mutex
	address string       // admin.listen
	server  *http.Server // nil if there is none
}

// open serves at address, and no longer at the address before. Replies to
// Postfix do not depend on it: if it cannot listen, it logs why and what to do,
// and the daemon serves lookups. A daemon that refuses to start because another
// program has the port of its metrics would be the greater evil.
func (v *window) open(address string) {
	if v.at() != "" && v.listen() == address {
		return
	}
	v.move(address, nil)
	if address == "" {
		return
	}
	l, err := listenAdmin(address)
	if err != nil {
		v.d.log.Warn("no metrics, health and status page", "address", address, "error", adminTrouble(err))
		return
	}
	server := v.d.httpServer(v.d.public().Handler())
	bounded := newBoundedListener(l, maxAdminConns(maxDescriptors()))
	server.ConnState = bounded.ConnState
	v.move(address, server)
	v.d.log.Info("metrics, health and status page", "address", l.Addr().String())
	v.d.running.Go(func() {
		if err := server.Serve(bounded); !errors.Is(err, http.ErrServerClosed) {
			v.d.log.Error("metrics, health and status page failed", "error", err.Error())
		}
	})
}

// close ends serving.
func (v *window) close() { v.move(v.listen(), nil) }

// move notes what serves at address now, and ends the old server without
// holding the lock: its handlers call at and listen.
func (v *window) move(address string, server *http.Server) {
	v.mu.Lock()
	old := v.server
	v.address, v.server = address, server
	v.mu.Unlock()
	if old != nil {
		endServer(old)
	}
}

// listen returns admin.listen.
func (v *window) listen() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.address
}

// at returns where it is served, or empty.
func (v *window) at() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.server == nil {
		return ""
	}
	return v.address
}

// httpServer returns one with the limits that the daemon's have.
func (d *daemon) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          log.New(httpLog{d}, "", 0),
	}
}

// endServer lets running requests end within a second, and then closes their
// connections.
func endServer(server *http.Server) {
	end, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if server.Shutdown(end) != nil {
		server.Close()
	}
}

// httpLog takes the log lines of an HTTP server, mostly of a handler that
// panicked.
type httpLog struct{ d *daemon }

// Write implements io.Writer, for whole lines.
func (l httpLog) Write(line []byte) (int, error) {
	l.d.limited.Error("HTTP request failed", "error", strings.TrimSpace(string(line)))
	return len(line), nil
}

// listenAdmin opens admin.listen. A UNIX socket is for the daemon's own user and
// group, to which a web server in front can belong.
func listenAdmin(address string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(address, "unix:")
	if !isUnix {
		return net.Listen("tcp", address)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	old := syscall.Umask(0o117)
	defer syscall.Umask(old)
	return net.Listen("unix", path)
}

// adminTrouble says why admin.listen cannot be listened on, and what to do.
func adminTrouble(err error) string {
	var hint string
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		hint = "; another program has it: name another address in admin.listen and reload, or \"\" for none"
	case errors.Is(err, fs.ErrNotExist):
		hint = "; create its directory, and reload"
	case errors.Is(err, fs.ErrPermission):
		hint = "; name an address in admin.listen that the daemon's user may listen on, and reload"
	}
	return err.Error() + hint
}

// public is what answers on admin.listen.
func (d *daemon) public() *admin.Public {
	return &admin.Public{
		Metrics: d.metrics,
		Status:  d.status,
		Live: func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, healthLimit)
			defer cancel()
			return pingAll(ctx, d.addrs)
		},
		Page: d.page(d.domains.Load),
	}
}

// page is the status page, which names domains if domains says so.
func (d *daemon) page(domains func() bool) *admin.Page {
	return &admin.Page{
		Status: d.status, Minutes: d.minutes, Names: ownNames(d.window.listen()), Domains: domains,
		Explain: func(ctx context.Context, key string) admin.Explanation {
			return d.private().Explained(ctx, "postfix", key)
		},
	}
}

// ownNames are the names of this host: its own, that without its domain, and the
// one in admin.listen.
func ownNames(listen string) (names []string) {
	name, _ := os.Hostname() // without one there is none
	short, _, _ := strings.Cut(name, ".")
	host, _, _ := net.SplitHostPort(listen)
	for _, n := range []string{name, short, host} {
		if n = strings.ToLower(n); n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// checks are what has to work for the daemon to be ready. None of it keeps it
// from answering.
func (d *daemon) checks(s *admin.Status) []admin.Check {
	configuration, store, resolver := admin.Check{Name: "configuration"}, admin.Check{Name: "store"}, admin.Check{Name: "resolver"}
	if s.Reload.Error != "" {
		configuration.Error = fmt.Sprintf("the last reload failed, the old one is in force: %s; run: stsmap config check", s.Reload.Error)
	}
	switch {
	case s.Store.Reading.Error != "":
		store.Error = "cannot be read: " + s.Store.Reading.Error
	case s.Store.Writing.Error != "":
		store.Error = "cannot be written: " + s.Store.Writing.Error
	}
	if s.Resolver.Answering.Error != "" {
		resolver.Error = "does not answer: " + s.Resolver.Answering.Error
	}
	return []admin.Check{configuration, store, resolver}
}
