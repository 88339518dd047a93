// Package systemd is how the daemon talks to its service manager: sockets
// that were opened for it, readiness, the watchdog and the journal.
//
// It starts and stops nothing, and outside systemd each of its functions does
// nothing, so that callers need not ask where they run. The protocols are
// those of sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3) and
// systemd.journal-fields(7).
package systemd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// Listeners returns the stream sockets that the service manager passed, in
// its order, and none outside systemd. The error names a descriptor that is
// not a listening stream socket. The environment variables that announce them
// are removed: a second call returns none.
func Listeners() ([]net.Listener, error) {
	var out []net.Listener
	for _, file := range activation.Files(true) {
		l, err := listener(file)
		file.Close() // FileListener made a copy of the descriptor
		if err != nil {
			for _, l := range out {
				l.Close()
			}
			return nil, fmt.Errorf("socket %q passed by the service manager is not one to listen on: %w", file.Name(), err)
		}
		out = append(out, l)
	}
	return out, nil
}

// listener makes a Listener of a descriptor. net.FileListener by itself takes
// datagram and connected sockets too, and they fail at the first accept.
func listener(file *os.File) (net.Listener, error) {
	fd := int(file.Fd())
	if kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE); err != nil {
		return nil, err
	} else if kind != syscall.SOCK_STREAM {
		return nil, errors.New("it is no stream socket")
	}
	if listens, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); err != nil {
		return nil, err
	} else if listens == 0 {
		return nil, errors.New("it does not listen; Accept= must be no")
	}
	return net.FileListener(file)
}

// Ready tells that the daemon serves, or serves again after Reloading.
func Ready() error { return notify(daemon.SdNotifyReady) }

// Reloading tells that the configuration is being read again; Ready has to
// follow.
func Reloading() error {
	return notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}

// Stopping tells that the daemon ends.
func Stopping() error { return notify(daemon.SdNotifyStopping) }

// Status sets the line that systemctl status shows.
func Status(line string) error { return notify("STATUS=" + line) }

func notify(state string) error {
	_, err := daemon.SdNotify(false, state)
	return err
}

// Watchdog tells the service manager that the daemon is alive, as often as it
// expects, each time that probe returns nil, until ctx is done. While probe
// fails Watchdog sends nothing, and the service manager restarts the daemon.
// Without a watchdog Watchdog returns at once.
func Watchdog(ctx context.Context, probe func(context.Context) error) error {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil || limit == 0 {
		return err
	}
	// Twice within the limit, as sd_watchdog_enabled(3) recommends.
	tick := time.NewTicker(limit / 2)
	defer tick.Stop()
	for {
		once, cancel := context.WithTimeout(ctx, limit/2)
		err := probe(once)
		cancel()
		if err == nil {
			// A failed notification is repeated at the next tick.
			_ = notify(daemon.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
