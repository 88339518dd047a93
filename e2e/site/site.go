package site

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"stsmap/internal/fakenet"
)

// authority is where the name server of the small Internet listens.
const authority = "127.0.0.54:53"

// Site is a mail server with everything around it. It is used by one goroutine at a time.
type Site struct {
	World   *fakenet.Net
	Unbound *Unbound
	Postfix *Postfix
	Daemon  *Daemon // the one of the last StartDaemon; nil before the first

	dir     string
	binary  string
	daemons int // how many there were; each has a directory of its own
}

// Start brings up a small Internet, as described, and Unbound and Postfix in it. It is to be called in a namespace
// made by Inside. Binary is the stsmap that StartDaemon will start.
func Start(ctx context.Context, description, binary string) (*Site, error) {
	dir, err := os.MkdirTemp(Dir(), "site-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // Postfix leaves root behind
		return nil, err
	}
	s := &Site{dir: dir, binary: binary}
	s.World, err = fakenet.Start(description, fakenet.Options{DNS: authority, HTTPSPort: 443, SMTPPort: 25})
	if err != nil {
		return nil, err
	}
	s.Unbound, err = StartUnbound(ctx, UnboundConfig{
		Dir:       dir,
		Authority: netip.MustParseAddrPort(authority),
		MaxTTL:    time.Hour,
	})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.Postfix, err = StartPostfix(PostfixConfig{Dir: dir, CAPEM: s.World.CAPEM()})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Update replaces the small Internet by another, and makes Unbound forget the old one.
func (s *Site) Update(description string) error {
	return errors.Join(s.World.Update(description), s.Unbound.Flush())
}

// StartDaemon closes the daemon there was, and starts one that knows nothing yet. Extra is added to its configuration
// file, whose keys are all dotted: fetch.timeout = "1s".
func (s *Site) StartDaemon(ctx context.Context, extra string) error {
	if s.Daemon != nil {
		if err := s.Daemon.Close(); err != nil {
			return err
		}
		s.Daemon = nil
	}
	s.daemons++
	dir := filepath.Join(s.dir, fmt.Sprintf("stsmap-%d", s.daemons))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	var conf strings.Builder
	fmt.Fprintf(&conf, "postfix.config_directory = %q\n", s.Postfix.Conf)
	fmt.Fprintf(&conf, "fetch.ca_file = %q\n", filepath.Join(s.dir, "ca.pem"))
	fmt.Fprintf(&conf, "fetch.allow_private = [%q]\n", "127.0.0.0/8")
	fmt.Fprintf(&conf, "cache.store = %q\n", "bolt:"+filepath.Join(dir, "cache.db"))
	fmt.Fprintf(&conf, "admin.listen = %q\n", "")
	fmt.Fprintf(&conf, "admin.socket = %q\n", filepath.Join(dir, "control.sock"))
	conf.WriteString(extra)
	d, err := NewDaemon(DaemonConfig{Binary: s.binary, Dir: dir, Conf: conf.String(), Jail: s.Postfix.Jail})
	if err != nil {
		return err
	}
	s.Daemon = d
	return d.Start(ctx)
}

// Close ends everything.
func (s *Site) Close() error {
	var errs []error
	if s.Daemon != nil {
		errs = append(errs, s.Daemon.Close())
	}
	if s.Postfix != nil {
		errs = append(errs, s.Postfix.Stop())
	}
	if s.Unbound != nil {
		errs = append(errs, s.Unbound.Stop())
	}
	s.World.Close()
	return errors.Join(errs...)
}

// Build compiles stsmap from the source of this module into Dir, and returns the path of the program.
func Build(ctx context.Context) (string, error) {
	path := filepath.Join(Dir(), "stsmap")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", path, "stsmap/cmd/stsmap").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, nil
}
