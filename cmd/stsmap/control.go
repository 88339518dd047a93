package main

import (
	"context"
	"errors"
	"io/fs"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"stsmap/admin"
)

// control serves the control socket until ctx ends. Without one the daemon
// does its work all the same, so it is only said what to do.
func (d *daemon) control(ctx context.Context, path string) {
	if path == "" {
		return
	}
	l, err := listenPrivate(path)
	if err != nil {
		d.log.Warn("no control socket, commands like stsmap status do not work", "path", path, "error", controlTrouble(path, err))
		return
	}
	server := &http.Server{
		Handler:           admin.NewPrivate(d.status),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          log.New(controlLog{d}, "", 0),
	}
	d.running.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("control socket failed", "error", err.Error())
		}
	})
	d.running.Go(func() {
		<-ctx.Done()
		// A second for who is being answered; and nobody is who hangs.
		end, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(end) != nil {
			server.Close()
		}
	})
}

// listenPrivate opens a UNIX socket that only its owner may connect to.
func listenPrivate(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// Not os.Chmod afterwards: somebody else could connect before it.
	old := syscall.Umask(0o177)
	defer syscall.Umask(old)
	return net.Listen("unix", path)
}

// controlTrouble says why there is no control socket, and what to do.
func controlTrouble(path string, err error) string {
	var hint string
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		hint = "; another daemon has it: name another one in admin.socket"
	case errors.Is(err, fs.ErrNotExist):
		hint = "; create its directory, for the daemon's user: install -d -m 700 " + filepath.Dir(path)
	case errors.Is(err, fs.ErrPermission):
		hint = "; the daemon's user must be able to write to its directory"
	}
	return err.Error() + hint
}

// controlLog is for what the HTTP server has to say, mostly of a handler that
// panicked.
type controlLog struct{ d *daemon }

// Write implements io.Writer, for whole lines.
func (l controlLog) Write(line []byte) (int, error) {
	l.d.log.Error("control socket failed", "error", strings.TrimSpace(string(line)))
	return len(line), nil
}

// status says how the daemon is.
func (d *daemon) status() admin.Status {
	s := admin.Status{
		Version: version(),
		Since:   d.since,
		Answers: d.monitor.Counts(),
		Store:   d.storeName,
		Listen:  d.addrs,
	}
	d.surroundings.describe(&s)
	s.Postfix.Attributes = d.attributes.Load()
	return s
}
