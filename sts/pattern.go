package sts

import (
	"net/netip"
	"strings"
)

// A Pattern says which hosts may receive mail for a domain: "mx.example.com" itself, or
// "*.example.com" for every name one label below. [ParsePolicy] makes it lower case; non-ASCII names
// are A-labels in it (RFC 8461, Section 3.2).
//
// A number like "192.0.2.1" can be a Pattern: the grammar takes it for a domain name, and a policy that
// is "syntactically valid" must be accepted. No MX host has such a name, so a caller that writes
// patterns for Postfix leaves it out.
type Pattern string

// Match reports whether host, the name in an MX record, is one that p allows (RFC 8461, Section 4.1).
// The case of ASCII letters does not count, nor does one dot at the end of host. The "*" stands for
// exactly one label: "*.example.com" matches "a.example.com", but neither "example.com" nor
// "a.b.example.com".
func (p Pattern) Match(host string) bool {
	host = strings.TrimSuffix(host, ".")
	if host == "" {
		return false
	}
	suffix, wild := strings.CutPrefix(string(p), "*")
	if !wild {
		return equalFold(host, string(p))
	}
	dot := strings.IndexByte(host, '.')
	return dot > 0 && equalFold(host[dot:], suffix)
}

// equalFold compares ASCII letters without their case. strings.EqualFold would not do: it takes the
// Kelvin sign for a k.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

// lower is the lower case of an ASCII letter, and anything else as it is.
func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// parsePattern reads ["*."] Domain, Domain being that of RFC 5321, Section 4.1.2. It removes one dot at
// the end, see [ParsePolicy].
func parsePattern(s string) (p Pattern, reason string) {
	name := strings.TrimSuffix(s, ".")
	domain := strings.TrimPrefix(name, "*.")
	if !isDomain(domain) {
		return "", patternReason(s, domain)
	}
	return Pattern(strings.ToLower(name)), ""
}

// isDomain reports whether s consists of labels of letters, digits and inner hyphens, within the limits
// of RFC 5321, Section 4.5.3.1.2 (255 octets) and RFC 1035, Section 2.3.4 (63 octets a label).
func isDomain(s string) bool {
	if len(s) > 255 {
		return false
	}
	for start, i := 0, 0; i <= len(s); i++ {
		if i < len(s) && s[i] != '.' {
			if !isAlphanum(s[i]) && s[i] != '-' {
				return false
			}
			continue
		}
		if !isLabel(s[start:i]) {
			return false
		}
		start = i + 1
	}
	return true
}

// isLabel reports whether s, known to consist of letters, digits and hyphens, can be a label.
func isLabel(s string) bool {
	return len(s) > 0 && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-'
}

// patternReason says why s is no pattern, domain being s without a leading "*." and without one dot at
// the end. It first looks for what was probably meant, then for the letter that breaks the grammar.
func patternReason(s, domain string) string {
	q := quote(s)
	bracketless := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	switch _, err := netip.ParseAddr(bracketless); {
	case s == "":
		return "has no value: the name of an exchanger is expected"
	case isTemplate(s):
		return q + templateReason
	case hasComment(s, "#", "//"):
		return q + commentReason
	case strings.ContainsAny(s, ",; \t"):
		return q + ` is more than a name: each exchanger needs a line "mx:" of its own`
	case strings.Contains(s, "://"):
		return q + " is a URL: the name of an exchanger is expected"
	case strings.Contains(s, "@"):
		return q + " is a mail address: the name of an exchanger is expected"
	case err == nil:
		return q + " is an address: the name of an exchanger is expected"
	case strings.Contains(domain, "*") || domain == "" && s != ".":
		return q + ` is not a pattern: "*" can only be the whole of the leftmost label, as in "*.example.com"`
	}
	if reason, bad := badByte(s); bad {
		return q + " " + reason
	}
	return q + " is not a domain name: " + domainReason(domain)
}

// domainReason says which part of s makes isDomain false.
func domainReason(s string) string {
	if len(s) > 255 {
		return "longer than 255 characters"
	}
	for label := range strings.SplitSeq(s, ".") {
		q := "label " + quote(label)
		for _, r := range label {
			switch {
			case r >= 0x80:
				return q + " is not ASCII: write its A-label (xn--...)"
			case r == ':':
				return q + ` contains ":": a port is not allowed`
			case !isAlphanum(byte(r)) && r != '-':
				return q + " contains " + quote(string(r))
			}
		}
		switch {
		case label == "":
			return "it has an empty label"
		case len(label) > 63:
			return q + " is longer than 63 characters"
		case !isLabel(label):
			return q + " begins or ends with a hyphen"
		}
	}
	return "it breaks RFC 5321, Section 4.1.2"
}
