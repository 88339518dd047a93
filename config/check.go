package config

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// checkListen accepts "host:port" and "unix:/path".
func checkListen(s string) string {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		return checkSocketPath(s, path)
	}
	const want = `; want "host:port", such as "127.0.0.1:8461", or "unix:/path"`
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		if _, err := netip.ParseAddr(s); err == nil {
			return strconv.Quote(s) + " has no port" + want
		}
		return strconv.Quote(s) + " is not an address" + want
	}
	// Port 0 is allowed: the kernel takes a free one, as tests need it.
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return strconv.Quote(s) + ": the port is not a number up to 65535" + want
	}
	if host == "" { // every address of this machine
		return ""
	}
	if _, err := netip.ParseAddr(host); err != nil && !isHost(host) {
		return strconv.Quote(s) + ": the host is neither an address nor a name" + want
	}
	return ""
}

// checkAdmin is checkListen, or empty.
func checkAdmin(s string) string {
	if s == "" {
		return ""
	}
	return checkListen(s)
}

// checkSocket accepts the path of a Unix socket, or none.
func checkSocket(s string) string {
	if s == "" {
		return ""
	}
	return checkSocketPath(s, s)
}

// checkSocketPath checks the path of a Unix socket that was written as s.
func checkSocketPath(s, path string) string {
	const most = 107 // sun_path of Linux has 108 bytes, one of them NUL
	switch {
	case !strings.HasPrefix(path, "/"):
		return strconv.Quote(s) + " is not an absolute path"
	case len(path) > most:
		return strconv.Quote(s) + " is too long for a socket: at most " + strconv.Itoa(most) + " bytes"
	}
	return checkPath(path)
}

// checkPath accepts every path, and none. Whether something is there is seen when it is opened.
func checkPath(s string) string {
	if strings.ContainsRune(s, 0) {
		return strconv.Quote(s) + " contains a NUL byte"
	}
	return ""
}

// isHost reports whether s can be the name of a host.
func isHost(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range label {
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// checkRelease accepts "auto", "3.10" and "3.10.5".
func checkRelease(s string) string {
	if s == "auto" {
		return ""
	}
	parts := strings.Split(s, ".")
	good := len(parts) == 2 || len(parts) == 3
	for _, p := range parts {
		n, err := strconv.ParseUint(p, 10, 16)
		good = good && err == nil && strconv.FormatUint(n, 10) == p
	}
	if !good {
		return strconv.Quote(s) + ` is not a release of Postfix; want "auto", or two or three numbers such as "3.10" or "3.7.11"`
	}
	return ""
}

// checkServer accepts what the resolver does: an address, with or without port and brackets, and
// "tls://ADDRESS[:PORT][#NAME]".
func checkServer(s string) string {
	const want = `; want an address such as "192.0.2.1", "[::1]:5353" or "tls://192.0.2.1#dns.example"`
	where, secure := strings.CutPrefix(s, "tls://")
	if secure {
		var name string
		var named bool
		where, name, named = strings.Cut(where, "#")
		if named && !isHost(name) {
			return strconv.Quote(s) + `: what follows "#" is not a host name` + want
		}
	}
	if ap, err := netip.ParseAddrPort(where); err == nil {
		if ap.Port() == 0 {
			return strconv.Quote(s) + ": the port is 0" + want
		}
		return ""
	}
	inner := where
	if trimmed, ok := strings.CutPrefix(where, "["); ok && strings.HasSuffix(trimmed, "]") && strings.Contains(trimmed, ":") {
		inner = strings.TrimSuffix(trimmed, "]")
	}
	if _, err := netip.ParseAddr(inner); err != nil {
		// stsmap has no other resolver that could resolve a name.
		return strconv.Quote(s) + " is not the address of a DNS server" + want
	}
	return ""
}

// parsePrefix reads "192.0.2.0/24", "192.0.2.1" and the same of IPv6.
func parsePrefix(s string) (n netip.Prefix, reason string) {
	const want = `; want a network or an address such as "10.0.0.0/8" or "fd00::1"`
	n, err := netip.ParsePrefix(s)
	if err != nil {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return n, strconv.Quote(s) + " is not a network" + want
		}
		n = netip.PrefixFrom(addr, addr.BitLen())
	}
	switch {
	case n.Addr().Is4In6():
		return n, strconv.Quote(s) + " is an IPv4 address in an IPv6 one; write it as IPv4"
	case n != n.Masked():
		return n, strconv.Quote(s) + " has bits after the first " + strconv.Itoa(n.Bits()) + "; did you mean " +
			strconv.Quote(n.Masked().String()) + "?"
	}
	return n, ""
}

// checkProxy accepts "", "env", and the URL of a proxy. It does not repeat s: a password may be in it.
func checkProxy(s string) string {
	if s == "" || s == "env" {
		return ""
	}
	const want = `want "http://host:port", "https://host:port", "socks5://host:port", "env", or "" for none`
	u, err := url.Parse(s)
	switch {
	case err != nil || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme):
		return "is not the URL of a proxy; " + want
	case u.Hostname() == "":
		return "has no host; " + want
	case u.Port() == "":
		return "has no port; " + want
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return "has more than a host and a port; " + want
	}
	return ""
}

// checkStore accepts the stores there are. It does not repeat s: a password may be in it.
func checkStore(s string) string {
	const want = `want "bolt:/path", "memory:", "redis://host/…", "rediss://…" or "postgres://…"`
	scheme, rest, _ := strings.Cut(s, ":")
	base, _, _ := strings.Cut(scheme, "+") // redis+sentinel
	switch base {
	case "bolt":
		if rest == "" || strings.HasSuffix(rest, "/") {
			return "has no file after \"bolt:\"; " + want
		}
		return checkPath(rest)
	case "memory":
		if s != "memory:" {
			return `has more than "memory:"; ` + want
		}
		return ""
	case "redis", "rediss", "postgres", "postgresql":
		// All else is for the packages of these stores to say, which know what such a URL may have.
		if !strings.HasPrefix(rest, "//") || rest == "//" {
			return "is not a URL with a host; " + want
		}
		return ""
	}
	return "does not begin with the name of a store; " + want
}

// hidePassword replaces the passwords in a URL, also where PostgreSQL takes them as parameters. What is
// no URL has none.
func hidePassword(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" && u.User == nil && u.RawQuery == "" {
		return s
	}
	query := u.Query()
	hidden := false
	for name := range query {
		if strings.Contains(strings.ToLower(name), "password") {
			query.Set(name, "xxxxx")
			hidden = true
		}
	}
	if hidden {
		u.RawQuery = query.Encode()
	}
	if _, set := u.User.Password(); !set && !hidden {
		return s
	}
	return u.Redacted()
}
