package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"stsmap/config"
	"stsmap/socketmap"
	"stsmap/systemd"
)

// listen returns the sockets to serve on: those that the service manager
// passed, or else those of the configuration.
func (d *daemon) listen(cfg *config.Config) ([]net.Listener, error) {
	listeners, err := systemd.Listeners()
	if err != nil {
		return nil, &failure{code: exitConfig, err: err}
	}
	if len(listeners) == 0 {
		for _, address := range cfg.Listen {
			l, err := listenOn(address)
			if err != nil {
				return nil, listenFailure(address, err)
			}
			listeners = append(listeners, l)
		}
	}
	if len(listeners) == 0 {
		return nil, &failure{code: exitConfig, err: errors.New("nothing to listen on: listen is empty and no socket was passed")}
	}
	for _, l := range listeners {
		address := l.Addr().String()
		if l.Addr().Network() == "unix" {
			address = "unix:" + address
		}
		d.addrs = append(d.addrs, socketmap.Reachable(address))
	}
	return listeners, nil
}

// listenOn opens one address of the configuration.
func listenOn(address string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(address, "unix:")
	if !isUnix {
		return net.Listen("tcp", address)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	// The permissions of the directory decide which users may connect. Policies
	// are no secret, and the daemon does not know the user of smtp(8).
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// removeStale removes a socket without a listener. Any other file stays, and
// makes listening fail.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().Type() != fs.ModeSocket {
		return errors.New("a file that is no socket is in the way")
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return syscall.EADDRINUSE
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return os.Remove(path)
	}
	return nil
}

// listenFailure says what to do about an address that cannot be listened on.
func listenFailure(address string, err error) error {
	f := &failure{code: exitFailed, err: fmt.Errorf("cannot listen on %s: %w", address, err)}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		f.hint = "another program has it, perhaps another stsmap; see: ss -lptnx"
	case errors.Is(err, fs.ErrNotExist):
		f.hint = "create its directory"
	case errors.Is(err, fs.ErrPermission):
		f.code = exitPermission
		f.hint = "ports below 1024 and foreign directories need a socket passed by systemd, see stsmap(8)"
	}
	return f
}
