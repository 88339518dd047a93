package resolver

import (
	"io"
	"net/netip"
	"os"
	"strings"
	"time"
)

const (
	// confInterval is the least time between two looks at resolv.conf. A stat(2) costs less than the
	// query that it precedes; inotify would cost a goroutine, and misses files that are mounted over.
	confInterval = time.Second

	// confServers is how many nameserver lines count. The C library ignores all others
	// (resolv.conf(5)), and an operator who compares must see the same servers asked.
	confServers = 3

	// confSize limits how much is read of a file in the place of resolv.conf.
	confSize = 64 << 10
)

// firstConf reads resolv.conf when the daemon starts. Without a server in it, the one on this machine
// is asked (resolv.conf(5)).
func firstConf(path string, t trust) *serverList {
	l := readConf(path, t)
	if len(l.servers) == 0 {
		local := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 53)
		l.servers = []*server{newServer(local, t)}
	}
	return l
}

// servers returns the list in force, after a look at resolv.conf if it is time. The first caller to find
// that it is time looks; the others use the old list meanwhile, so none waits for a lock.
//
// A file that is missing, or has no server any more, changes nothing: more likely it is being written
// than that the operator wants a daemon that worked to ask 127.0.0.1. This departs from the C library,
// which has no earlier servers to fall back on.
func (r *Resolver) servers() *serverList {
	old := r.list.Load()
	if r.path == "" {
		return old
	}
	now := int64(time.Since(r.began))
	last := r.checked.Load()
	if now-last < int64(confInterval) || !r.checked.CompareAndSwap(last, now) {
		return old
	}
	file, err := os.Stat(r.path)
	if err != nil || sameState(old.file, file) {
		return old
	}
	l := readConf(r.path, r.trust)
	if len(l.servers) == 0 {
		l.servers = old.servers
	}
	r.list.Store(l)
	return l
}

// sameState reports whether a file is still the one that was read, judged by its inode.
func sameState(a, b os.FileInfo) bool {
	return a != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// readConf reads resolv.conf as it is now. The list is empty if that cannot be done. The state of the
// file is taken before its content: a change in between is then seen at the next look.
func readConf(path string, t trust) *serverList {
	l := new(serverList)
	f, err := os.Open(path)
	if err != nil {
		return l
	}
	defer f.Close()
	if l.file, err = f.Stat(); err != nil || !l.file.Mode().IsRegular() {
		return l
	}
	data, err := io.ReadAll(io.LimitReader(f, confSize))
	if err != nil {
		return l
	}
	for _, addr := range parseConf(string(data)) {
		l.servers = append(l.servers, newServer(netip.AddrPortFrom(addr, 53), t))
	}
	return l
}

// parseConf returns the addresses in the nameserver lines. A line it does not understand counts for
// nothing, as in the C library.
func parseConf(text string) []netip.Addr {
	var addrs []netip.Addr
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil && len(addrs) < confServers {
			addrs = append(addrs, a)
		}
	}
	return addrs
}
