package resolver

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// A server that was silent is asked last for this long. Not for good: the first in the list may be
// the only one whose AD bit counts.
const rest = 30 * time.Second

// trust is Config.TrustAD.
type trust uint8

const (
	trustAuto trust = iota
	trustAll
	trustNone
)

func parseTrust(s string) (trust, error) {
	switch s {
	case "", "auto":
		return trustAuto, nil
	case "yes":
		return trustAll, nil
	case "no":
		return trustNone, nil
	}
	return 0, fmt.Errorf(`trust of the AD bit %q: want "auto", "yes" or "no"`, s)
}

// A server is one recursive resolver.
type server struct {
	addr    netip.AddrPort
	text    string      // as it is called in errors
	tls     *tls.Config // nil: no TLS
	trusted bool        // its AD bit counts

	silent atomic.Int64 // when it last failed to answer, in nanoseconds since Resolver.began; 0: never
}

// A serverList is what was configured, or read from a file in a certain state.
type serverList struct {
	servers []*server
	file    fs.FileInfo // of resolv.conf when it was read; nil: it was not there, or is not used
}

// parseServer reads one element of Config.Servers.
func parseServer(text string, t trust) (*server, error) {
	const want = `want an address such as "192.0.2.1", "[::1]:5353" or "tls://192.0.2.1#dns.example"`
	where, secure := strings.CutPrefix(text, "tls://")
	port := uint16(53)
	var name string
	if secure {
		port = 853
		var named bool
		where, name, named = strings.Cut(where, "#")
		if named && !validHost(name) {
			return nil, fmt.Errorf("server %q: no name of a certificate after \"#\": %s", text, want)
		}
	}
	addr, err := parseAddr(where, port)
	if err != nil {
		return nil, fmt.Errorf("server %q: %s", text, want)
	}
	s := newServer(addr, t)
	if !secure {
		return s, nil
	}
	if name == "" {
		name = addr.Addr().WithZone("").String()
	}
	s.text = fmt.Sprintf("tls://%v#%s", addr, name)
	s.trusted = t != trustNone
	// Sessions are resumed, since every question has a connection of its own.
	s.tls = &tls.Config{
		ServerName:         name,
		MinVersion:         tls.VersionTLS12,
		ClientSessionCache: tls.NewLRUClientSessionCache(1),
	}
	return s, nil
}

// parseAddr reads an address with or without a port, with or without brackets.
func parseAddr(s string, port uint16) (netip.AddrPort, error) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		if ap.Port() == 0 {
			return netip.AddrPort{}, fmt.Errorf("port 0")
		}
		return ap, nil
	}
	if inner, ok := strings.CutPrefix(s, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok && strings.Contains(inner, ":") {
			s = inner
		}
	}
	a, err := netip.ParseAddr(s)
	return netip.AddrPortFrom(a, port), err
}

// newServer makes a server without TLS. Its AD bit can have been set by anyone on the way to it
// (RFC 4035, Section 4.9.3), unless there is no way.
func newServer(addr netip.AddrPort, t trust) *server {
	return &server{
		addr:    addr,
		text:    addr.String(),
		trusted: t == trustAll || t == trustAuto && addr.Addr().Unmap().IsLoopback(),
	}
}

// order returns the servers in the order to ask them: as configured, but those last that were silent
// a short while ago.
func (l *serverList) order(now time.Duration) []*server {
	var resting []*server
	for _, s := range l.servers {
		if s.resting(now) {
			resting = append(resting, s)
		}
	}
	if len(resting) == 0 || len(resting) == len(l.servers) {
		return l.servers
	}
	awake := slices.DeleteFunc(slices.Clone(l.servers), func(s *server) bool { return slices.Contains(resting, s) })
	return append(awake, resting...)
}

// resting tells whether s is to be asked last. When its rest is over, one question finds out whether
// it is back, at the price of waiting for it; all others spare it for another rest.
func (s *server) resting(now time.Duration) bool {
	since := s.silent.Load()
	if since == 0 {
		return false
	}
	if now-time.Duration(since) < rest {
		return true
	}
	return !s.silent.CompareAndSwap(since, int64(now))
}

// validHost tells whether s, without a final dot, can be the name of a host: letters, digits, hyphens
// and, because they happen, underscores. What this refuses would mislead whoever compares names label
// by label: a dot within a label is shown as `\.`.
func validHost(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			switch {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			default:
				return false
			}
		}
	}
	return len(s) <= 253
}
