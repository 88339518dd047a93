package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"stsmap/postfix/postconf"
	"stsmap/socketmap"
)

// errNoSocket is why a daemon without a control socket cannot be asked.
var errNoSocket = errors.New("admin.socket is empty")

// noDomain is a key that is answered without any I/O.
const noDomain = "."

// checkDaemon is LOC-01.
func checkDaemon(ctx context.Context, e *exam) []Result {
	var all []Result
	for _, address := range e.addresses() {
		all = append(all, e.probe(ctx, address))
	}
	return append(all, e.told()...)
}

// addresses are those where the daemon should answer: where it says that it
// listens, and otherwise those of the configuration and of the unit of the socket
// in the queue directory.
func (e *exam) addresses() []string {
	if e.status != nil {
		return e.status.Listen
	}
	var all []string
	for _, a := range e.Settings.Listen {
		all = append(all, socketmap.Reachable(a))
	}
	for _, s := range e.setups {
		queue, _ := s.Main("queue_directory")
		address := "unix:" + filepath.Join(queue, "stsmap", "map.sock")
		if _, err := os.Stat(strings.TrimPrefix(address, "unix:")); err == nil && !slices.Contains(all, address) {
			all = append(all, address)
		}
	}
	return all
}

// probe asks the daemon at an address a question that needs only itself.
func (e *exam) probe(ctx context.Context, address string) Result {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	reply, err := ask(ctx, address, "postfix", noDomain)
	switch {
	case err == nil && reply.Status == socketmap.NotFound:
		return ok("%s: the daemon answers", address)
	case err == nil:
		return fail("%s: something else than stsmap answers: %s %s", address, reply.Status, reply.Text).
			because("all mail for which Postfix asks there waits, or is sent under a wrong policy").fix("ss -lptnx")
	case errors.Is(err, fs.ErrPermission):
		return skip("%s: not permitted to connect; run it as root", address)
	}
	f := fail("%s: no answer: %v", address, reason(err)).because("as long as Postfix asks and nobody answers, all mail that goes out by smtp(8) waits")
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return f.fix(e.startLines()...)
	}
	return f.fix(e.restartLines()...)
}

// startLines starts the daemon, and restartLines starts it again.
func (e *exam) startLines() []string {
	if systemdRuns() {
		return []string{"systemctl start stsmap.socket stsmap.service"}
	}
	return []string{"stsmap serve"}
}

func (e *exam) restartLines() []string {
	if systemdRuns() {
		return []string{"systemctl restart stsmap.service"}
	}
	return []string{"# stop the daemon, and then", "stsmap serve"}
}

// reloadLine has the daemon read its configuration.
func (e *exam) reloadLine() string {
	if systemdRuns() {
		return "systemctl reload stsmap.service"
	}
	if who, err := peer(e.Settings.Admin.Socket); err == nil {
		return fmt.Sprintf("kill -HUP %d", who.Pid)
	}
	return "# send SIGHUP to the daemon"
}

// ask asks for a key once.
func ask(ctx context.Context, address, name, key string) (socketmap.Reply, error) {
	client, err := socketmap.Dial(ctx, address)
	if err != nil {
		return socketmap.Reply{}, err
	}
	defer client.Close()
	return client.Do(ctx, name, key)
}

// reason is an error without what everybody knows already.
func reason(err error) string {
	if name, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Sprintf("the name %s cannot be looked up", name.Name)
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return "it takes too long"
	}
	return strings.TrimPrefix(err.Error(), "socketmap: ")
}

// told returns the problems that the daemon reports of itself.
func (e *exam) told() []Result {
	if e.status == nil {
		if errors.Is(e.statusBy, errNoSocket) {
			return []Result{info("admin.socket is empty: the daemon cannot be asked how it is")}
		}
		f := skip("the control socket %s: %s", e.Settings.Admin.Socket, reason(e.statusBy))
		if errors.Is(e.statusBy, fs.ErrPermission) {
			f.Seen += "; run it as root, or as the daemon's user"
		}
		return []Result{f}
	}
	s := e.status
	up := time.Since(s.Since).Truncate(time.Second)
	all := []Result{ok("stsmap %s, up since %s (%s)", s.Version, s.Since.Local().Format("2006-01-02 15:04:05 MST"), up)}
	if s.Version != e.Version {
		all = append(all, warn("the daemon is stsmap %s, and this program is %s", s.Version, e.Version).
			because("it was upgraded, and the old one still runs").fix(e.restartLines()...))
	}
	if s.Reload.Error != "" {
		f := warn("the configuration was not reloaded at %s: %s", s.Reload.Since.Local().Format("2006-01-02 15:04:05 MST"), s.Reload.Error).
			because("the daemon goes on with the old one")
		all = append(all, f.fix("stsmap "+e.configFlag()+"config check", e.reloadLine()))
	}
	if s.Overrides.Error != "" {
		all = append(all, warn("the overrides do not count as they are in %s: %s", s.Overrides.File, s.Overrides.Error).
			because("those that were read before still count").fix("stsmap "+e.configFlag()+"override list"))
	}
	if missing := e.notServed(); len(missing) > 0 {
		all = append(all, info("listen has %s, and the daemon has other sockets: the service manager passed them, or it has to be restarted", strings.Join(missing, ", ")))
	}
	return all
}

// configFlag names the file of the configuration, if it is not the usual one.
func (e *exam) configFlag() string {
	if e.File == "" {
		return ""
	}
	return "--config " + quoted(e.File) + " "
}

// notServed are the addresses of listen where the daemon does not listen.
func (e *exam) notServed() []string {
	var missing []string
	for _, a := range e.Settings.Listen {
		if !slices.Contains(e.status.Listen, socketmap.Reachable(a)) {
			missing = append(missing, a)
		}
	}
	return missing
}

// ours says whether a table is this daemon.
func (e *exam) ours(s *postconf.Setup, t postconf.Table) bool {
	if t.Address == "" {
		return false
	}
	return slices.ContainsFunc(e.addresses(), func(a string) bool { return sameAddress(a, e.seenFromHere(s, t.Address)) })
}

// seenFromHere is the address of a table as seen from outside the chroot.
func (e *exam) seenFromHere(s *postconf.Setup, address string) string {
	path, isUnix := strings.CutPrefix(address, "unix:")
	if isUnix && !filepath.IsAbs(path) {
		queue, _ := s.Main("queue_directory")
		return "unix:" + filepath.Join(queue, path)
	}
	return address
}

// sameAddress says whether two addresses lead to the same socket. In a chroot
// an absolute path leads elsewhere, so the last part of a path is compared as well.
func sameAddress(a, b string) bool {
	if a == b {
		return true
	}
	if pathA, is := strings.CutPrefix(a, "unix:"); is {
		pathB, is := strings.CutPrefix(b, "unix:")
		return is && (sameFile(pathA, pathB) || strings.HasSuffix(pathA, pathB) && strings.HasPrefix(pathB, "/"))
	}
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	return errA == nil && errB == nil && portA == portB && (hostA == hostB || isLoopback(hostA) && isLoopback(hostB))
}

func isLoopback(host string) bool {
	return host == "localhost" || host == "127.0.0.1" || host == "::1"
}

func sameFile(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// noSetup says why the configuration of Postfix is unknown.
func (e *exam) noSetup() Result {
	if errors.Is(e.setupBy, postconf.ErrNotFound) {
		return skip("%v: Postfix is not on this machine, or in a container", e.setupBy)
	}
	return fail("%v", e.setupBy).because("Postfix does not start, or goes on with what it read before").fix(fmt.Sprintf("postfix %scheck", e.instanceFlag()))
}

func (e *exam) instanceFlag() string {
	if dir := e.Settings.Postfix.ConfigDirectory; dir != "" {
		return "-c " + quoted(dir) + " "
	}
	return ""
}
