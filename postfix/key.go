package postfix

import (
	"bytes"
	"net/netip"
	"strconv"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

const (
	// maxKey is room enough for every key that has a policy domain.
	maxKey = 256
	// maxDomain is the longest name, without the trailing dot, that still is
	// one with "_mta-sts." before it.
	maxDomain = 253 - len("_mta-sts.")
	maxLabel  = 63
)

// Domain returns the policy domain of a lookup key, in lower-case A-label
// form, and the port of the next-hop, 25 unless the key has one that is a
// number. It returns false for a key that has none (RFC 8461, Section 3.4):
// an address literal, a path, a parent domain such as ".example.com", a
// single label, or anything that is not a domain name. bracketed says whether
// a name in brackets has a policy domain.
//
// Postfix sends the next-hop as it is configured or as it is in the address,
// without folding case and with U-labels (smtp/smtp_tls_policy.c).
func Domain(key string, bracketed bool) (domain string, port uint16, ok bool) {
	var buf [maxKey]byte
	name, ok := appendDomain(buf[:0], []byte(key), bracketed)
	if !ok {
		return "", 0, false
	}
	port = 25
	if _, digits, found := bytes.Cut(afterBracket([]byte(key)), []byte(":")); found {
		if n, err := strconv.ParseUint(string(digits), 10, 16); err == nil {
			port = uint16(n)
		}
	}
	return string(name), port, true
}

// afterBracket returns key without a bracketed host.
func afterBracket(key []byte) []byte {
	if i := bytes.IndexByte(key, ']'); i >= 0 {
		return key[i+1:]
	}
	return key
}

// appendDomain appends the policy domain of key to dst. It allocates only for
// keys that are not ASCII.
func appendDomain(dst, key []byte, bracketed bool) (domain []byte, ok bool) {
	// Nearly all keys are plain names, which one pass over them can tell.
	if domain, ok := appendName(dst, key); ok {
		return domain, true
	}
	host, ok := hostOf(key, bracketed)
	if !ok {
		return nil, false
	}
	if !ascii(host) {
		// Postfix converts with UTS #46, non-transitional, and so does this
		// profile (util/midna_domain.c). It is for names that need it only:
		// it refuses the underscores that ASCII names may have.
		name, err := idna.Lookup.ToASCII(string(host))
		if err != nil || !utf8.Valid(host) {
			return nil, false
		}
		host = []byte(name)
	}
	return appendName(dst, host)
}

// appendName appends s in lower case and without a trailing dot, if it is a
// domain name that can have a policy: two labels or more, made of letters,
// digits, "-" and "_", and not an IPv4 address in any spelling. A last label
// of digits is what tells those: no top-level domain is one.
func appendName(dst, s []byte) (name []byte, ok bool) {
	if n := len(s); n > 0 && s[n-1] == '.' {
		s = s[:n-1]
	}
	if len(s) > maxDomain {
		return nil, false
	}
	label, dots, numeric := 0, 0, true
	for _, c := range s {
		switch {
		case 'a' <= c && c <= 'z' || c == '-' || c == '_':
			numeric = false
		case '0' <= c && c <= '9':
		case 'A' <= c && c <= 'Z':
			c, numeric = c+'a'-'A', false
		case c == '.' && label > 0:
			label, dots, numeric = -1, dots+1, true
		default:
			return nil, false
		}
		if label++; label > maxLabel {
			return nil, false
		}
		dst = append(dst, c)
	}
	return dst, label > 0 && dots > 0 && !numeric
}

// hostOf returns the host part of a next-hop: what is left without port and
// brackets.
func hostOf(key []byte, bracketed bool) (host []byte, ok bool) {
	if len(key) == 0 || len(key) > 4*maxKey {
		return nil, false
	}
	if key[0] == '[' {
		end := bytes.IndexByte(key, ']')
		if !bracketed || end < 0 {
			return nil, false
		}
		rest := key[end+1:]
		if len(rest) > 0 && (rest[0] != ':' || !isService(rest[1:])) {
			return nil, false
		}
		return key[1:end], true
	}
	host, service, found := bytes.Cut(key, []byte(":"))
	return host, !found || isService(service)
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

// numeric reports whether a label is all digits. No top-level domain is, and
// names that end so are addresses or mistakes for them.
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
