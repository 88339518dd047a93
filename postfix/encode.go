package postfix

import (
	"encoding/binary"
	"errors"
	"strings"
	"unicode/utf8"

	"stsmap/policy"
	"stsmap/sts"
)

// maxValue keeps a margin to the 100000 bytes that Postfix reads of a reply
// (util/dict_sockmap.c).
const maxValue = 90000

var (
	// errNoHost means that the policy lists no name that an MX host can have:
	// RFC 8461, Section 5 forbids to deliver to hosts that it does not list.
	errNoHost = errors.New("the policy lists no usable MX host")
	// errManyHosts means that not even the names fit into a reply.
	errManyHosts = errors.New("the policy lists more MX hosts than Postfix can read")
)

// Render puts a policy into Postfix's words, for policy.Config.Render. What it
// returns is for Reply to read. The error tells why Postfix cannot be told to
// enforce the policy.
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

// What a value has beside the names in match=, and the longest of what it has
// before the attributes where it has no match=.
const (
	beforeMatch  = "secure match="
	afterMatch   = " servername=hostname"
	longestLevel = "encrypt"
)

// A packed is a policy in Postfix's words: the attributes that every release
// from 3.4 on understands, those that came with 3.10, and the latter for a
// reply without the former, if there is room for more of them then. Most
// replies are a part of it as it is, so one lookup is one slice of a string
// whichever release asks, and nothing has to be made again when Postfix is
// upgraded.
type packed string

// header is how many bytes before the text say how long its first part is, and
// its first two.
const header = 8

func pack(enforce, with, alone string) packed {
	if alone == with {
		alone = ""
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(len(enforce)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(enforce)+len(with)))
	return packed(string(b) + enforce + with + alone)
}

// offsets returns where the first part ends, and the second.
func (p packed) offsets() (enforce, with int) {
	if len(p) < header {
		return len(p), len(p)
	}
	b := []byte(p[:header])
	return header + int(binary.BigEndian.Uint32(b)), header + int(binary.BigEndian.Uint32(b[4:]))
}

// enforce returns a reply that enforces the policy, with all attributes or with
// the old ones only. It is empty if the policy cannot be enforced.
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

// report returns the new attributes for a reply that does not enforce the
// policy, with a space before the first. It is empty if they cannot be sent.
func (p packed) report() string {
	old, all := p.offsets()
	if all < len(p) {
		return string(p[all:])
	}
	return string(p[old:all])
}

// matchList makes the value of match= from patterns.
//
// "*.example.com" becomes ".example.com", which Postfix matches against names
// of any depth below it (tls/tls_client.c), where RFC 8461, Section 4.1 means
// one label; the literal form would match nothing but a wildcard certificate.
// From Postfix 3.10.5 on the attributes say it exactly.
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

// matchable reports whether a name of a policy may stand in match=. The parser
// let pass only what RFC 8461 allows; this is about what Postfix would make
// of it. Single labels are left out because some are words that switch the
// way of matching ("hostname", "nexthop", "dot-nexthop"), and addresses
// because no MX host is named by one.
func matchable(name string, wildcard bool) bool {
	if isAddress(name) || !wildcard && !strings.Contains(name, ".") {
		return false
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	return plainName(name) && !numeric([]byte(last))
}

// plainName repeats what the grammar of policies promises of a name: an
// attribute is closed by a space, a comma or a colon, and what stands between
// comes from a stranger.
func plainName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.') {
			return false
		}
	}
	return name != ""
}

// attributes makes the attributes that Postfix knows from 3.10 on: the policy
// for TLSRPT (RFC 8460, Section 4.4), and, from 3.10.5 on, the patterns that
// the names of MX hosts have to match. It begins with a space, and is empty if
// there is no way to send them in at most room bytes, or at all: 3.10.0 to
// 3.10.5 crash without at least one pattern and one string.
//
// What is never sent: policy_failure, which makes mail wait where RFC 8461,
// Section 3.3 demands that it goes on, and policy_ttl, which is not used.
func attributes(domain string, p *sts.Policy, room int) string {
	if !validHostname(domain) {
		return ""
	}
	var b strings.Builder
	b.WriteString(" policy_type=sts policy_domain=")
	b.WriteString(domain)
	before := b.Len()
	for _, pattern := range p.MX { // each is there once
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

// policyString returns a line of a policy as it can stand in braces, which it
// has to leave as Postfix finds them: there is no way to escape one
// (util/extpar.c). A line whose braces do not balance is left out, which costs
// a report one line. White space becomes a space, as Postfix would have it.
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

// validHostname reports whether Postfix takes name, in the form that
// policy.Decision.Domain has, for that of a host: what it does not makes mail
// wait (util/valid_hostname.c).
func validHostname(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}
