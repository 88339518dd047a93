package resolver

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// penalty is how long a server that was silent is asked after others that are trusted as much.
const penalty = 30 * time.Second

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
	text    string // as it is called in errors
	conns   *conns // nil: no TLS
	trusted bool   // its AD bit counts

	// In nanoseconds since Resolver.began; 0 is never.
	silent   atomic.Int64 // when it last failed to respond; 0 if it has responded since
	response atomic.Int64 // when it last responded to any query
}

// A serverList is what was configured, or read from a file in a certain state.
type serverList struct {
	servers []*server
	file    fs.FileInfo // of resolv.conf when it was read; nil: it was not there, or is not used
}

// parseServer reads one element of Config.Servers.
func parseServer(text string, t trust, roots *x509.CertPool) (*server, error) {
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
	s.conns = &conns{config: &tls.Config{
		RootCAs:            roots,
		ServerName:         name,
		MinVersion:         tls.VersionTLS12,
		ClientSessionCache: tls.NewLRUClientSessionCache(1),
	}}
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

// newServer returns a server without TLS. Its AD bit can have been set by anyone on the way to it
// (RFC 4035, Section 4.9.3), unless there is no way.
func newServer(addr netip.AddrPort, t trust) *server {
	return &server{
		addr:    addr,
		text:    addr.String(),
		trusted: t == trustAll || t == trustAuto && addr.Addr().Unmap().IsLoopback() && !isForwarder(addr.Addr()),
	}
}

// isForwarder reports whether a is where container engines answer DNS in a container. That server only
// passes queries on over the network, and the AD bits that come back with them.
func isForwarder(a netip.Addr) bool {
	return a.Unmap() == netip.AddrFrom4([4]byte{127, 0, 0, 11})
}

// order returns the servers in the order to ask them: those that are trusted first, so that silence
// never replaces a server whose AD bit counts by one whose does not; of each kind, those last that were
// silent a short while ago. mixed reports whether there are both kinds.
func (l *serverList) order(now time.Duration) (servers []*server, mixed bool) {
	var kinds [4][]*server
	for _, s := range l.servers {
		i := 0
		if !s.trusted {
			i = 2
		}
		if s.penalized(now) {
			i++
		}
		kinds[i] = append(kinds[i], s)
	}
	return slices.Concat(kinds[:]...), len(kinds[0])+len(kinds[1]) > 0 && len(kinds[2])+len(kinds[3]) > 0
}

// penalized reports whether s is to be asked last. When its penalty is over, one question finds out
// whether it responds again, at the price of waiting for it; all others avoid it for another penalty.
func (s *server) penalized(now time.Duration) bool {
	since := s.silent.Load()
	if since == 0 {
		return false
	}
	if now-time.Duration(since) < penalty {
		return true
	}
	return !s.silent.CompareAndSwap(since, int64(now))
}

// noteResponse notes that s responded to a query, with whatever.
func (s *server) noteResponse(now time.Duration) {
	s.response.Store(int64(now))
	s.silent.Store(0)
}

// noteSilence notes that a query that began at a moment has no response. That is the silence of s only
// if it responded to no other query meanwhile: name servers of other people can be silent for as long
// as they like, and a resolver has to wait for them.
func (s *server) noteSilence(began, now time.Duration) {
	if s.response.Load() < int64(began) {
		s.silent.Store(int64(now))
	}
}

// validHost reports whether s, without a final dot, can be the name of a host: letters, digits, inner
// hyphens and, because they occur, underscores. What this refuses would mislead code that compares names
// label by label: a dot within a label is shown as `\.`.
func validHost(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || hyphenated(label) {
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

// hyphenated reports whether a label begins or ends with a hyphen, which no host name has
// (RFC 952, RFC 1123, Section 2.1), and Postfix does not look up (util/valid_hostname.c).
func hyphenated(label string) bool {
	return strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-")
}
