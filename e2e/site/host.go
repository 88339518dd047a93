package site

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// A Host is one of several mail servers of a site, with a Postfix and a daemon of its own.
type Host struct {
	Postfix *Postfix
	Daemon  *Daemon
	Lookup  string // where the daemon answers
}

// StartHost adds a mail server, with the Postfix of this machine. Its daemon has what extra says in its configuration
// file, as for StartDaemon; it should say cache.store.
func (s *Site) StartHost(ctx context.Context, extra string) (*Host, error) {
	n := len(s.hosts) + 1
	dir := filepath.Join(s.dir, fmt.Sprintf("host-%d", n))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	h := &Host{Lookup: fmt.Sprintf("127.0.0.1:%d", 8470+n)}
	var err error
	h.Postfix, err = StartPostfix(PostfixConfig{
		Dir: dir, CAPEM: s.World.CAPEM(), Lookup: h.Lookup, Submission: fmt.Sprintf("127.0.0.1:%d", 2600+n),
	})
	if err != nil {
		return nil, err
	}
	h.Daemon, err = NewDaemon(DaemonConfig{
		Binary: s.binary, Dir: dir, Conf: s.daemonConf(dir, h.Postfix, extra), Jail: h.Postfix.Jail, Bin: h.Postfix.Bin, Lookup: h.Lookup,
	})
	if err != nil {
		return nil, err
	}
	s.hosts = append(s.hosts, h)
	return h, h.Daemon.Start(ctx)
}
