package postfix

import (
	"bytes"
	"net"
	"net/netip"
	"strconv"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"stsmap/dane"
)

const (
	// maxKey is the size of the largest next-hop that has a policy domain.
	maxKey = 256
	// maxDomain is the length of the longest name, without the trailing dot, that
	// is valid with the prefix "_mta-sts.".
	maxDomain = 253 - len("_mta-sts.")
	maxLabel  = 63
)

// smtpPort is the port of a next-hop without one.
const smtpPort = 25

// NextHop returns the next-hop of a lookup key, with its policy domain in
// lower-case A-label form, and port 25 unless the key has another. It returns
// false for a key without a policy domain (RFC 8461, Section 3.4): an address
// literal, a path, a parent domain such as ".example.com", a single label, or
// anything that is not a domain name. bracketed is whether a name in brackets has
// a policy domain.
//
// Postfix sends the next-hop as it is configured or as it is in the address,
// without folding case and with U-labels (smtp/smtp_tls_policy.c).
func NextHop(key string, bracketed bool) (hop dane.NextHop, ok bool) {
	var buf [maxKey]byte
	n, ok := appendNextHop(buf[:0], []byte(key), bracketed)
	if !ok {
		return dane.NextHop{}, false
	}
	return n.clone(), true
}

// A nextHop is a dane.NextHop in its text form, in a buffer of the caller.
type nextHop struct {
	text   []byte
	domain []byte // part of text
	port   uint16
	noMX   bool
}

// clone returns a copy of n that does not share its buffer.
func (n nextHop) clone() dane.NextHop {
	return dane.NextHop{Domain: string(n.domain), Port: n.port, NoMX: n.noMX}
}

// appendNextHop appends the next-hop of key to dst, which must be empty. It
// allocates only for keys that are not ASCII or have a rare service name.
func appendNextHop(dst, key []byte, bracketed bool) (n nextHop, ok bool) {
	// Nearly all keys are plain names; one pass is enough for these.
	if name, ok := appendName(dst, key); ok {
		return nextHop{text: name, domain: name, port: smtpPort}, true
	}
	host, service, ok := hostOf(key, bracketed)
	if !ok {
		return nextHop{}, false
	}
	if !ascii(host) {
		// Postfix and this profile convert with UTS #46, non-transitional
		// (util/midna_domain.c). ASCII names are left alone: the profile
		// refuses their underscores.
		name, err := idna.Lookup.ToASCII(string(host))
		if err != nil || !utf8.Valid(host) {
			return nextHop{}, false
		}
		host = []byte(name)
	}
	n = nextHop{port: portOf(service), noMX: key[0] == '['}
	begin := 0
	if n.noMX {
		dst = append(dst, '[')
		begin = 1
	}
	if n.text, ok = appendName(dst, host); !ok {
		return nextHop{}, false
	}
	end := len(n.text)
	if n.noMX {
		n.text = append(n.text, ']')
	}
	if n.port != smtpPort {
		n.text = strconv.AppendUint(append(n.text, ':'), uint64(n.port), 10)
	}
	n.domain = n.text[begin:end]
	return n, true
}

// portOf returns the port of a service, which is part of the names of TLSA records
// (RFC 7672, Section 2.2.3), and 25 for a service that does not exist: Postfix
// does not deliver to those.
func portOf(service []byte) uint16 {
	switch string(service) {
	case "", "smtp":
		return smtpPort
	case "submission":
		return 587
	case "submissions", "smtps":
		return 465
	}
	n, err := strconv.ParseUint(string(service), 10, 16)
	if err != nil {
		port, _ := net.LookupPort("tcp", string(service))
		n = uint64(port)
	}
	if n == 0 {
		return smtpPort
	}
	return uint16(n)
}

// appendName appends s in lower case and without a trailing dot, if it is a
// domain name that can have a policy: two labels or more, made of letters,
// digits, "_" and inner "-", and not an IPv4 address in any spelling. Postfix does
// not look up a name with another "-" (util/valid_hostname.c). Only addresses
// have a last label of digits: no top-level domain has.
func appendName(dst, s []byte) (name []byte, ok bool) {
	if n := len(s); n > 0 && s[n-1] == '.' {
		s = s[:n-1]
	}
	if len(s) > maxDomain {
		return nil, false
	}
	dst = append(dst, s...)
	name = dst[len(dst)-len(s):]
	label, dots, numeric := 0, 0, true // label is where the present one begins
	for i, c := range name {
		switch {
		case 'a' <= c && c <= 'z' || c == '-' || c == '_':
			numeric = false
		case '0' <= c && c <= '9':
		case 'A' <= c && c <= 'Z':
			name[i], numeric = c+'a'-'A', false
		case c == '.' && isLabel(name[label:i]):
			label, dots, numeric = i+1, dots+1, true
		default:
			return nil, false
		}
	}
	return dst, dots > 0 && isLabel(name[label:]) && !numeric
}

// isLabel reports whether s, of the right characters, is a label of a host name
// (RFC 952, RFC 1123, Section 2.1).
func isLabel(s []byte) bool {
	return 0 < len(s) && len(s) <= maxLabel && s[0] != '-' && s[len(s)-1] != '-'
}

// hostOf splits a next-hop into its host, without brackets, and its service, which
// may be empty.
func hostOf(key []byte, bracketed bool) (host, service []byte, ok bool) {
	if len(key) == 0 || len(key) > 4*maxKey {
		return nil, nil, false
	}
	if key[0] == '[' {
		end := bytes.IndexByte(key, ']')
		if !bracketed || end < 0 {
			return nil, nil, false
		}
		rest := key[end+1:]
		if len(rest) == 0 {
			return key[1:end], nil, true
		}
		return key[1:end], rest[1:], rest[0] == ':' && isService(rest[1:])
	}
	host, service, found := bytes.Cut(key, []byte(":"))
	return host, service, !found || isService(service)
}

// isService reports whether s can be the port of a next-hop: a number or the
// name of a service.
func isService(s []byte) bool {
	for _, c := range s {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-') {
			return false
		}
	}
	return len(s) > 0
}

func ascii(s []byte) bool {
	for _, c := range s {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// numeric reports whether a label is all digits. No top-level domain is: a name
// that ends in one is an address, or a misspelt one.
func numeric(label []byte) bool {
	for _, c := range label {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// isAddress reports whether s is an IP address.
func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}
