package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"stsmap/admin"
)

// checkStore is LOC-09.
func checkStore(ctx context.Context, e *exam) []Result {
	var all []Result
	if path, bolt := strings.CutPrefix(e.Settings.Cache.Store, "bolt:"); bolt {
		all = append(all, e.directory(ctx, path)...)
	} else if e.Settings.Cache.Store == "memory:" {
		all = append(all, warn("cache.store = \"memory:\"").because("every restart forgets all policies, and each domain is met unprotected again").
			fix(fmt.Sprintf(`# in %s: cache.store = "bolt:/var/lib/stsmap/cache.db"`, e.fileName())))
	}
	return append(all, e.contents()...)
}

// directory is about the file of a store, and where it is.
func (e *exam) directory(ctx context.Context, path string) (all []Result) {
	dir := filepath.Dir(path)
	who, known := e.daemonUser(dir)
	name := orElse(who.name, fmt.Sprint(who.uid))
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		if err == nil {
			err = syscall.ENOTDIR
		}
		if errors.Is(err, fs.ErrPermission) {
			return []Result{skip("%s: run it as root", dir)}
		}
		f := fail("%s: %s", dir, reason(err)).because("the daemon cannot remember policies, and begins with none at each start")
		return []Result{f.fix("install -d -m 700 -o " + daemonName() + " " + quoted(dir))}
	}
	for _, p := range []string{dir, path} {
		if info, err := os.Stat(p); err == nil && info.Mode().Perm()&0o022 != 0 {
			all = append(all, warn("%s can be written to by others: %s", p, info.Mode()).
				because("who can write there can switch protection off").fix("chmod go-w "+quoted(p)))
		}
	}
	if aside, _ := filepath.Glob(path + ".unreadable-*"); len(aside) > 0 {
		all = append(all, info("%s: a store that could not be read was put aside", aside[0]).fix("rm "+quoted(aside[0])))
	}
	if !known {
		return all
	}
	seen, err := e.send(ctx, errand{Directory: "/", UID: who.uid, GID: who.gid, Write: dir})
	switch {
	case errors.Is(err, errNotRoot):
		all = append(all, skip("%s: whether %s can write there is not to be seen from here; run it as root", dir, name))
	case err != nil:
		all = append(all, skip("%s: %v", dir, err))
	case seen.Write.Text != "":
		all = append(all, fail("%s: user %s cannot write there: %s", dir, name, seen.Write.Text).
			because("what is learned is lost at the next restart").fix("chown "+quoted(name)+" "+quoted(dir), "chmod 700 "+quoted(dir)))
	default:
		all = append(all, ok("%s: user %s can write there", dir, name))
	}
	return all
}

// daemonName is the user that the daemon is meant to run as: that of packages, if
// there is one, and otherwise that of README.md.
func daemonName() string {
	if _, err := lookUp("_stsmap"); err == nil {
		return "_stsmap"
	}
	return "stsmap"
}

// daemonUser returns the user of the daemon: that of the process which listens
// on the control socket, or else the owner of the store's directory.
func (e *exam) daemonUser(dir string) (who account, known bool) {
	if cred, err := peer(e.Settings.Admin.Socket); err == nil {
		return account{name: UserName(int(cred.Uid)), uid: int(cred.Uid), gid: int(cred.Gid)}, true
	}
	info, err := os.Stat(dir)
	if err != nil {
		return account{}, false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return account{}, false
	}
	return account{name: UserName(int(stat.Uid)), uid: int(stat.Uid), gid: int(stat.Gid)}, true
}

// peer returns the credentials of the process that listens on a UNIX-domain
// socket.
func peer(path string) (*syscall.Ucred, error) {
	conn, err := net.DialTimeout("unix", path, askLimit)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *syscall.Ucred
	var failure error
	err = raw.Control(func(fd uintptr) {
		cred, failure = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err := errors.Join(err, failure); err != nil {
		return nil, err
	}
	return cred, nil
}

// contents is what the daemon says of its store.
func (e *exam) contents() []Result {
	if e.status == nil {
		return []Result{skip("the daemon does not say how its store is; see LOC-01")}
	}
	var all []Result
	for _, c := range []struct {
		what string
		is   admin.Condition
	}{{"read", e.status.Store.Reading}, {"written", e.status.Store.Writing}} {
		if c.is.Error != "" {
			all = append(all, fail("%s: it cannot be %s since %s: %s", e.status.Store.Name, c.what, c.is.Since.Local().Format("2006-01-02 15:04:05 MST"), c.is.Error).
				because("answers go on from memory; what is not written is lost at the next restart").fix("stsmap "+e.configFlag()+"status"))
		}
	}
	if n := e.status.Store.Waiting; n > 0 {
		all = append(all, warn("in memory, until they can be written: %s", count(n, "policy", "policies")).because("a restart loses them").fix("stsmap "+e.configFlag()+"status"))
	}
	if e.stats == nil {
		return append(all, skip("%s: %s", e.status.Store.Name, reason(e.statsBy)))
	}
	text := fmt.Sprintf("cache.store = %q has %s", e.stats.Store, count(int(e.stats.Domains), "domain", "domains"))
	if e.stats.Bytes != nil {
		text += fmt.Sprintf(", %d KiB", *e.stats.Bytes/1024)
	}
	if !e.stats.Oldest.IsZero() {
		text += fmt.Sprintf(", the oldest was learned %s ago", time.Since(e.stats.Oldest).Truncate(time.Second))
	}
	return append(all, ok("%s", text))
}
