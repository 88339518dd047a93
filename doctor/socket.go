package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"stsmap/postfix/postconf"
)

// A standpoint is from where services see a socket.
type standpoint struct {
	chroot bool
	root   bool
	table  string
}

// checkSocket is LOC-05.
func checkSocket(ctx context.Context, e *exam) []Result {
	return e.eachSetup(mailers, func(s *postconf.Setup, services []postconf.Service) (all []Result) {
		from := make(map[standpoint][]postconf.Service)
		var order []standpoint
		tables := make(map[string]postconf.Table)
		for _, service := range services {
			for _, t := range e.asking(s, service) {
				if t.Proxied { // it is proxymap(8) that connects
					service = proxy(s, service)
				}
				p := standpoint{service.Chroot, service.Root, t.Text}
				if tables[t.Text] = t; from[p] == nil {
					order = append(order, p)
				}
				from[p] = append(from[p], service)
			}
		}
		for _, p := range order {
			all = append(all, e.reach(ctx, s, from[p], tables[p.table]))
		}
		if len(order) == 0 {
			return []Result{skip("%sstsmap is not asked; see LOC-02", e.where(s, services))}
		}
		return all
	})
}

// proxy is a service as it is with the rights of proxymap(8).
func proxy(s *postconf.Setup, service postconf.Service) postconf.Service {
	for _, p := range running(s, "proxymap") {
		service.Chroot, service.Root = p.Chroot, p.Root
	}
	return service
}

// reach asks over the socket of a table as the services would.
func (e *exam) reach(ctx context.Context, s *postconf.Setup, services []postconf.Service, t postconf.Table) Result {
	service, where := services[0], e.where(s, services)
	queue, _ := s.Main("queue_directory")
	who, err := runsAs(s, service)
	if err != nil {
		return skip("%s%v", where, err)
	}
	as := "as user " + who.name
	if service.Chroot {
		as += ", in the chroot " + queue
	}
	seen, err := e.send(ctx, errand{
		Directory: queue, Chroot: service.Chroot, UID: who.uid, GID: who.gid, Dial: []string{t.Address + " " + t.Map},
	})
	switch {
	case errors.Is(err, errNotRoot):
		return skip("%s%s cannot be tried %s: run it as root", where, t.Address, as)
	case err != nil || len(seen.Dialled) != 1:
		return skip("%s%s cannot be tried %s: %v", where, t.Address, as, err)
	case seen.Dialled[0].Text == "":
		return ok("%s%s answers, %s", where, t.Address, as)
	}
	f := fail("%s%s does not answer, %s: %s", where, t.Address, as, seen.Dialled[0].Text).
		because("all mail that goes out there waits")
	return f.fix(e.openWay(s, services, t, who, seen.Dialled[0].Errno)...)
}

// openWay is what has to be done so that the services reach the socket.
func (e *exam) openWay(s *postconf.Setup, services []postconf.Service, t postconf.Table, who account, why syscall.Errno) []string {
	queue, _ := s.Main("queue_directory")
	path, isUnix := strings.CutPrefix(t.Address, "unix:")
	switch {
	case !isUnix && why == 0 && strings.HasPrefix(t.Address, "localhost:"):
		// Names are looked up in the chroot, which need not have what that takes.
		c := cohorts(s, services, policyMaps)[0]
		return set(s, c, policyMaps, strings.Replace(c.values[0], "inet:localhost:", "inet:127.0.0.1:", 1))
	case !isUnix || why == syscall.ECONNREFUSED:
		return e.startLines()
	}
	outside := strings.TrimPrefix(e.seenFromHere(s, t.Address), "unix:")
	switch why {
	case syscall.EACCES, syscall.EPERM:
		if services[0].Chroot && filepath.IsAbs(path) {
			outside = filepath.Join(queue, path)
		}
		if lines := grant(outside, who); len(lines) > 0 {
			return lines
		}
		return []string{"# the permissions allow it; perhaps AppArmor or SELinux does not", "journalctl -k | grep -i denied"}
	case syscall.ENOENT:
		better := e.table(s)
		if better.Text == t.Text || !strings.HasPrefix(better.Text, "socketmap:unix:") && !services[0].Chroot {
			return e.startLines()
		}
		c := cohorts(s, services, policyMaps)[0]
		return set(s, c, policyMaps, strings.Replace(c.values[0], t.Text, strings.Replace(better.Text, ":postfix", ":"+t.Map, 1), 1))
	}
	return e.startLines()
}

// grant lets a user use a socket: it finds the first part of the path that does
// not.
func grant(path string, who account) []string {
	group := fmt.Sprint(who.gid)
	if who.name != "" {
		group = who.name
	}
	parts := strings.Split(filepath.Clean(path), "/")
	for i := 2; i <= len(parts); i++ {
		part := strings.Join(parts[:i], "/")
		info, err := os.Stat(part)
		if err != nil {
			return nil
		}
		need, mode := fs.FileMode(1), "g+x"
		if i == len(parts) {
			need, mode = 6, "g+rw"
		}
		if !may(info, who, need) {
			return []string{"chgrp " + quoted(group) + " " + quoted(part), "chmod " + mode + " " + quoted(part)}
		}
	}
	return nil
}

// may reports whether the permissions of a file allow an account what it needs,
// in the last three bits of a mode.
func may(info fs.FileInfo, who account, need fs.FileMode) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || who.uid == 0 {
		return true
	}
	mode := info.Mode().Perm()
	switch {
	case int(stat.Uid) == who.uid:
		mode >>= 6
	case int(stat.Gid) == who.gid:
		mode >>= 3
	}
	return mode&need == need
}
