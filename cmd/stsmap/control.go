package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"time"

	"stsmap/admin"
	"stsmap/dane"
	"stsmap/policy"
	"stsmap/postfix"
	"stsmap/socketmap"
)

// control serves the control socket until ctx ends. If it cannot listen, it
// logs what to do, and the daemon serves lookups without it.
func (d *daemon) control(ctx context.Context, path string) {
	if path == "" {
		return
	}
	l, err := listenPrivate(path)
	if err != nil {
		d.log.Warn("no control socket, commands like stsmap status do not work", "path", path, "error", controlTrouble(path, err))
		return
	}
	server := d.httpServer(d.private().Handler())
	d.running.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("control socket failed", "error", err.Error())
		}
	})
	d.running.Go(func() {
		<-ctx.Done()
		endServer(server)
	})
}

// listenPrivate opens a UNIX socket that only its owner may connect to.
func listenPrivate(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// Not os.Chmod afterwards: another user could connect before it.
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

// private is what answers on the control socket.
func (d *daemon) private() *admin.Private {
	return &admin.Private{
		Status:  d.status,
		Engine:  d.engine,
		NextHop: anyNextHop,
		Row: func(dec *policy.Decision) (string, bool) {
			// A table is for every release, and has no use for attributes.
			reply := postfix.Reply(dec, postfix.Map{Attributes: postfix.Never}, false)
			return reply.Text, reply.Status == socketmap.OK // that of a TEMP is the reason
		},
		Size:          d.store.size,
		ReadOverrides: d.overrides.again,
		Explain:       d.explain,
		History:       d.history,
		Page:          d.page(func() bool { return true }),
	}
}

// anyNextHop is postfix.NextHop for people: what they name is meant.
func anyNextHop(key string) (dane.NextHop, bool) { return postfix.NextHop(key, true) }

// status says how the daemon is.
func (d *daemon) status() admin.Status {
	s := admin.Status{
		Version: version(),
		Since:   d.since,
		Answers: d.monitor.Counts(),
		Store:   d.store.status(d.engine.Usage().Unsaved),
		Listen:  d.addrs,
		Admin:   d.window.at(),
		Read:    time.Unix(0, d.read.Load()).UTC(),
		Memory:  d.memoryStatus(),
		Cache:   d.surveyor.Last(),
		Log:     admin.LogStatus{Dropped: d.lines.Dropped()},

		Overrides: d.overrides.status(time.Now()),
	}
	if refused := d.refused.Load(); refused != nil {
		s.Reload = *refused
	}
	d.environment.describe(&s)
	s.Resolver.Answering = d.metrics.Questions.Answering()
	s.Postfix.Attributes = d.attributes.Load()
	s.Attributes = d.handler.Load().SendsAttributes()
	s.Connections = d.connections()
	s.Checks = d.checks(&s)
	s.Recall(d.history)
	return s
}

// connections says what the sockets for lookups do.
func (d *daemon) connections() admin.ConnectionStatus {
	n := d.server.Stats()
	s := admin.ConnectionStatus{Listeners: make(map[string]int), Busy: n.Busy, Malformed: n.Malformed, Evicted: n.Evicted, Panics: n.Panics, Unfit: n.Unfit}
	for i, l := range d.listeners {
		s.Listeners[d.addrs[i]] = d.server.ConnsOn(l)
	}
	return s
}

// memoryStatus says how full it is.
func (d *daemon) memoryStatus() admin.MemoryStatus {
	u := d.engine.Usage()
	return admin.MemoryStatus{Entries: u.Entries, Most: u.Most, Bytes: u.Bytes, MostBytes: u.MostBytes, Expired: u.Expired, Unused: u.Unused, Policies: u.Policies}
}

// controlClient returns a client of the daemon, and the path of its socket.
func (g *globals) controlClient() (*admin.Client, string, error) {
	cfg, err := g.load()
	if err != nil {
		return nil, "", err
	}
	path := cfg.Admin.Socket
	if path == "" {
		return nil, "", &failure{code: exitUnreachable, err: errors.New("the daemon has no control socket: admin.socket is empty"), hint: "name one in admin.socket, and restart the daemon"}
	}
	return admin.NewClient(path), path, nil
}

// uncontrolled says that the daemon gave no answer on its control socket, or none
// that is one, or why it did not do what it was asked.
func uncontrolled(path string, err error) error {
	if refused, ok := errors.AsType[*admin.Refusal](err); ok {
		return &failure{code: exitFailed, err: fmt.Errorf("the daemon says: %w", refused)}
	}
	if errors.Is(err, admin.ErrGarbled) {
		return &failure{code: exitFailed, err: fmt.Errorf("the control socket %s is answered, but %w", path, err), hint: "after an upgrade, restart the daemon; or something else has that socket"}
	}
	f := &failure{code: exitUnreachable, err: fmt.Errorf("no answer from the daemon at its control socket %s: %w", path, err)}
	f.hint = "is it running? it is started by: stsmap serve"
	if errors.Is(err, fs.ErrPermission) {
		f.code, f.hint = exitPermission, "run it as root, or as the daemon's user"
	}
	return f
}
