package postfix

import (
	"encoding/binary"
	"errors"
	"strings"
	"unicode/utf8"

	"stsmap/policy"
	"stsmap/sts"
)

// maxValue is the size of the largest value, with a margin to the 100000 bytes of
// a reply that Postfix reads (util/dict_sockmap.c).
const maxValue = 90000

var (
	// errNoHost means that the policy lists no name that an MX host can have. It
	// forbids delivery to all others (RFC 8461, Section 5).
	errNoHost = errors.New("the policy lists no usable MX host")
	// errManyHosts means that the names alone do not fit into a reply.
	errManyHosts = errors.New("the policy lists more MX hosts than Postfix can read")
)

// Render encodes the policy of d for replies, for policy.Config.Render. Reply reads
// the result. The error is why Postfix cannot enforce the policy.
func Render(d *policy.Decision) (string, error) {
	match, err := matchList(d.STS.MX)
	enforce := ""
	if err == nil {
		enforce = beforeMatch + match + afterMatch
	}
	with, alone := attributes(d.Domain, d.STS, maxValue-len(enforce)), ""
	if d.STS.Mode == sts.Testing {
		alone = attributes(d.Domain, d.STS, maxValue-len(longestLevel))
	}
	return string(pack(enforce, with, alone)), err
}

// The parts of a value around the names in match=, and the longest start of a value
// without match=.
const (
	beforeMatch  = "secure match="
	afterMatch   = " servername=hostname"
	longestLevel = "encrypt"
)

// A packed is an encoded policy: the attributes that every release from 3.4 on
// understands, those of 3.10 and later, and the latter once more for a reply
// without the former, if more of them fit then. Most replies are a substring of
// it, so a lookup does not allocate for any release, and an upgrade of Postfix
// needs no new encoding.
type packed string

// header is the size of the two offsets before the text, in bytes: the length of
// its first part, and that of its first two.
const header = 8

func pack(enforce, with, alone string) packed {
	if alone == with {
		alone = ""
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(len(enforce)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(enforce)+len(with)))
	return packed(string(b) + enforce + with + alone)
}

// offsets returns the ends of the first and the second part.
func (p packed) offsets() (enforce, with int) {
	if len(p) < header {
		return len(p), len(p)
	}
	b := []byte(p[:header])
	return header + int(binary.BigEndian.Uint32(b)), header + int(binary.BigEndian.Uint32(b[4:]))
}

// enforce returns the value that enforces the policy, with or without policy
// attributes. It is empty if the policy cannot be enforced.
func (p packed) enforce(attributes bool) string {
	old, all := p.offsets()
	switch {
	case old <= header:
		return ""
	case attributes:
		return string(p[header:all])
	}
	return string(p[header:old])
}

// report returns the policy attributes for a value that does not enforce the
// policy, with a space before the first. It is empty if they cannot be sent.
func (p packed) report() string {
	old, all := p.offsets()
	if all < len(p) {
		return string(p[all:])
	}
	return string(p[old:all])
}

// matchList returns the value of match= for patterns.
//
// "*.example.com" becomes ".example.com", which Postfix matches with names of any
// depth below it (tls/tls_client.c), where RFC 8461, Section 4.1 means one label.
// The literal form would match only a wildcard certificate. From Postfix 3.10.5 on
// the policy attributes are exact.
func matchList(patterns []sts.Pattern) (string, error) {
	var b strings.Builder
	for _, p := range patterns {
		name, wildcard := strings.CutPrefix(string(p), "*.")
		if !matchable(name, wildcard) {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(':')
		}
		if wildcard {
			b.WriteByte('.')
		}
		b.WriteString(name)
	}
	switch {
	case b.Len() == 0:
		return "", errNoHost
	case b.Len() > maxValue-len(beforeMatch+afterMatch):
		return "", errManyHosts
	}
	return b.String(), nil
}

// matchable reports whether a name of a policy may be in match=. The parser
// enforces RFC 8461; this is about how Postfix reads the name. Single labels are
// omitted because some are keywords ("hostname", "nexthop", "dot-nexthop"), and
// addresses because they are not names of MX hosts.
func matchable(name string, wildcard bool) bool {
	if isAddress(name) || !wildcard && !strings.Contains(name, ".") {
		return false
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	return plainName(name) && !numeric([]byte(last))
}

// plainName repeats a check of the policy parser: a space, comma or colon would end
// the attribute, and the name comes from the domain owner.
func plainName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.') {
			return false
		}
	}
	return name != ""
}

// attributes returns the policy attributes, which Postfix knows from 3.10 on: the
// policy for TLSRPT (RFC 8460, Section 4.4), and the patterns that the names of MX
// hosts have to match from 3.10.5 on. The result begins with a space. It is empty
// if they do not fit into room bytes, or if there is not at least one pattern and
// one string: 3.10.0 to 3.10.5 crash then.
//
// Two are never sent: policy_failure, which defers mail where RFC 8461, Section 3.3
// demands delivery, and policy_ttl, which Postfix does not use.
func attributes(domain string, p *sts.Policy, room int) string {
	if !validHostname(domain) {
		return ""
	}
	var b strings.Builder
	b.WriteString(" policy_type=sts policy_domain=")
	b.WriteString(domain)
	before := b.Len()
	for _, pattern := range p.MX { // without duplicates
		if name, _ := strings.CutPrefix(string(pattern), "*."); plainName(name) {
			b.WriteString(" mx_host_pattern=")
			b.WriteString(string(pattern))
		}
	}
	if b.Len() == before || b.Len() > room {
		return ""
	}
	short := "" // with the first line only
	for _, line := range p.Lines {
		line, ok := policyString(line)
		if !ok {
			continue
		}
		b.WriteString(" { policy_string = ")
		b.WriteString(line)
		b.WriteString(" }")
		if short == "" {
			short = b.String()
		}
		if b.Len() > room {
			break
		}
	}
	switch {
	case short == "" || len(short) > room:
		return ""
	case b.Len() > room:
		return short
	}
	return b.String()
}

// policyString returns a line of a policy for a value in braces. There is no escape
// for a brace (util/extpar.c), so a line with unbalanced braces is omitted, which
// costs a report one line. White space becomes a space, as in Postfix.
func policyString(line string) (string, bool) {
	depth := 0
	for i := range len(line) {
		switch c := line[i]; {
		case c == '{':
			depth++
		case c == '}' && depth == 0:
			return "", false
		case c == '}':
			depth--
		case c < ' ' && c != '\t', c == 0x7f:
			return "", false // the grammar has no such byte
		}
	}
	if depth != 0 || line == "" || !utf8.ValidString(line) {
		return "", false
	}
	return strings.ReplaceAll(line, "\t", " "), true
}

// validHostname reports whether name, in the form of policy.Decision.Domain, is a
// valid host name for Postfix, which defers mail for others
// (util/valid_hostname.c).
func validHostname(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}
