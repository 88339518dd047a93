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
	Knot    *Knot   // nil unless ServeZones was called

	dir     string
	binary  string
	hosts   []*Host
	daemons int // how many there were; each has a directory of its own
	knots   int // likewise
}

// Start brings up a small Internet, as described, and Unbound and Postfix in it. It is to be called in a namespace
// made by Inside. Binary is the stsmap that StartDaemon will start. The Postfix is that of root, or of this machine if
// root is nil.
func Start(ctx context.Context, description, binary string, root *Root) (*Site, error) {
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
	if err := s.resolve(ctx, authority, ""); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	c := PostfixConfig{Dir: dir, CAPEM: s.World.CAPEM()}
	if root != nil {
		if c.Root, err = s.Enter(root); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	if s.Postfix, err = StartPostfix(c); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Enter mounts a root and returns where, for Postfix.Move. A root is mounted once in a site.
func (s *Site) Enter(root *Root) (string, error) {
	dir := filepath.Join(s.dir, "root-"+root.suite)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	return dir, root.Mount(dir)
}

// Update replaces the small Internet by another, and makes Unbound forget the old one.
func (s *Site) Update(description string) error {
	return errors.Join(s.World.Update(description), s.Unbound.Flush())
}

// ServeZones puts a Knot DNS with these zones in the place of the name server of the small Internet, which goes on with
// all the rest. Unbound then validates, from the key of Knot's root on.
func (s *Site) ServeZones(ctx context.Context, zones []Zone) error {
	if s.Knot != nil {
		return errors.New("zones are being served")
	}
	s.knots++
	dir := filepath.Join(s.dir, fmt.Sprintf("knot-%d", s.knots))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	var err error
	if s.Knot, err = StartKnot(ctx, dir, zones); err != nil {
		return err
	}
	return s.Validate(ctx, true)
}

// Validate starts Unbound anew, in front of Knot, with or without validation.
func (s *Site) Validate(ctx context.Context, on bool) error {
	if s.Knot == nil {
		return errors.New("there are no zones that could be validated")
	}
	anchor := ""
	if on {
		anchor = s.Knot.TrustAnchor()
	}
	return s.resolve(ctx, signer, anchor)
}

// ServeWorld undoes ServeZones. It does nothing if there is nothing to undo.
func (s *Site) ServeWorld(ctx context.Context) error {
	if s.Knot == nil {
		return nil
	}
	err := s.Knot.Stop()
	s.Knot = nil
	return errors.Join(err, s.resolve(ctx, authority, ""))
}

// resolve starts Unbound, after the one there was has ended.
func (s *Site) resolve(ctx context.Context, authority, anchor string) error {
	if s.Unbound != nil {
		if err := s.Unbound.Stop(); err != nil {
			return err
		}
		s.Unbound = nil
	}
	u, err := StartUnbound(ctx, UnboundConfig{
		Dir:         s.dir,
		Authority:   netip.MustParseAddrPort(authority),
		MaxTTL:      time.Hour,
		TrustAnchor: anchor,
	})
	if err != nil {
		return err
	}
	s.Unbound = u
	return nil
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
	d, err := NewDaemon(DaemonConfig{Binary: s.binary, Dir: dir, Conf: s.daemonConf(dir, s.Postfix, extra), Jail: s.Postfix.Jail, Bin: s.Postfix.Bin})
	if err != nil {
		return err
	}
	s.Daemon = d
	return d.Start(ctx)
}

// daemonConf is the configuration file of a daemon that has dir for itself.
func (s *Site) daemonConf(dir string, p *Postfix, extra string) string {
	var conf strings.Builder
	fmt.Fprintf(&conf, "postfix.config_directory = %q\n", p.Conf)
	fmt.Fprintf(&conf, "fetch.ca_file = %q\n", filepath.Join(s.dir, "ca.pem"))
	fmt.Fprintf(&conf, "fetch.allow_private = [%q]\n", "127.0.0.0/8")
	if !strings.Contains(extra, "cache.store = ") {
		fmt.Fprintf(&conf, "cache.store = %q\n", "bolt:"+filepath.Join(dir, "cache.db"))
	}
	fmt.Fprintf(&conf, "admin.listen = %q\n", "")
	fmt.Fprintf(&conf, "admin.socket = %q\n", filepath.Join(dir, "control.sock"))
	fmt.Fprintf(&conf, "overrides.file = %q\n", filepath.Join(dir, "overrides.toml"))
	conf.WriteString(extra)
	return conf.String()
}

// Close ends everything.
func (s *Site) Close() error {
	var errs []error
	for _, h := range s.hosts {
		errs = append(errs, h.Daemon.Close(), h.Postfix.Stop())
	}
	if s.Daemon != nil {
		errs = append(errs, s.Daemon.Close())
	}
	if s.Postfix != nil {
		errs = append(errs, s.Postfix.Stop())
	}
	if s.Unbound != nil {
		errs = append(errs, s.Unbound.Stop())
	}
	if s.Knot != nil {
		errs = append(errs, s.Knot.Stop())
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
