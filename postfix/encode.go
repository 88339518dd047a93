package postfix

import (
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
	c := newContent(d.Domain, d.STS)
	size, err := c.matchSize()
	var with, alone extent
	if err == nil {
		with = c.fits(maxValue - size)
	}
	if d.STS.Mode == sts.Testing {
		alone = c.fits(maxValue - len(longestLevel))
	}
	return string(c.pack(err == nil, with, alone)), err
}

// The constant parts of a value, and the longest start of one without match=.
const (
	beforeMatch   = "secure match="
	afterMatch    = " servername=hostname"
	beforeDomain  = " policy_type=sts policy_domain="
	beforePattern = " mx_host_pattern="
	beforeLine    = " { policy_string = "
	afterLine     = " }"
	longestLevel  = "encrypt"
)

// A content is what a policy contributes to a value.
type content struct {
	domain   string
	patterns []string // what mx_host_pattern= can have, each once
	lines    []string // what policy_string can have
}

func newContent(domain string, p *sts.Policy) *content {
	c := &content{domain: domain}
	for _, pattern := range p.MX { // without duplicates
		if name, _ := strings.CutPrefix(string(pattern), "*."); plainName(name) {
			c.patterns = append(c.patterns, string(pattern))
		}
	}
	for _, line := range p.Lines {
		if line, ok := policyString(line); ok {
			c.lines = append(c.lines, line)
		}
	}
	return c
}

// matchSize returns the size of a value that enforces the policy without policy
// attributes. The error is why there is none.
func (c *content) matchSize() (int, error) {
	n := 0
	for _, pattern := range c.patterns {
		if matchable(pattern) {
			n += len(matchName(pattern)) + len(":")
		}
	}
	if n == 0 {
		return 0, errNoHost
	}
	if n += len(beforeMatch+afterMatch) - len(":"); n > maxValue {
		return 0, errManyHosts
	}
	return n, nil
}

// An extent is how much of the policy attributes is sent.
type extent uint8

const (
	noAttributes extent = iota
	firstLine           // all attributes, with the first line of the policy only
	allLines
)

// fits returns how much of the policy attributes, which Postfix knows from 3.10 on,
// fits into room bytes: the policy for TLSRPT (RFC 8460, Section 4.4), and the
// patterns that the names of MX hosts have to match from 3.10.5 on. There are none
// without at least one pattern and one line: 3.10.0 to 3.10.5 crash then.
//
// Two are never sent: policy_failure, which defers mail where RFC 8461, Section 3.3
// demands delivery, and policy_ttl, which Postfix does not use.
func (c *content) fits(room int) extent {
	if !validHostname(c.domain) || len(c.patterns) == 0 || len(c.lines) == 0 {
		return noAttributes
	}
	n := len(beforeDomain) + len(c.domain)
	for _, pattern := range c.patterns {
		n += len(beforePattern) + len(pattern)
	}
	first := 0
	for _, line := range c.lines {
		n += len(beforeLine) + len(line) + len(afterLine)
		if first == 0 {
			first = n
		}
	}
	switch {
	case first > room:
		return noAttributes
	case n > room:
		return firstLine
	}
	return allLines
}

// pack returns the answer that has what replies need: match= if enforce is set, and
// policy attributes with and without it.
func (c *content) pack(enforce bool, with, alone extent) answer {
	patterns, lines := c.patterns, c.lines
	switch max(with, alone) {
	case noAttributes:
		lines = nil
		if !enforce {
			patterns = nil
		}
	case firstLine:
		lines = lines[:1]
	}
	b := appendForms(nil, enforce, with, alone)
	for _, line := range lines {
		switch {
		case len(patterns) == 0 || !hasPattern(line, patterns[0]):
			b = appendPiece(b, otherLine, line)
			continue
		case line == beforeMX+patterns[0] && matchable(patterns[0]):
			b = appendPiece(b, mxLine, line)
		default:
			b = appendPattern(appendPiece(b, otherLine, line), patterns[0])
		}
		patterns = patterns[1:]
	}
	for _, pattern := range patterns {
		b = appendPattern(b, pattern)
	}
	return answer(b)
}

// hasPattern reports whether line is that of pattern, however it is spelt.
func hasPattern(line, pattern string) bool {
	value, ok := strings.CutPrefix(line, "mx:")
	return ok && strings.EqualFold(strings.TrimLeft(value, " "), pattern)
}

// appendPattern appends a pattern that is not part of a line.
func appendPattern(b []byte, pattern string) []byte {
	if matchable(pattern) {
		return appendPiece(b, matchPattern, pattern)
	}
	return appendPiece(b, otherPattern, pattern)
}

// matchName returns what match= has for a pattern.
//
// "*.example.com" becomes ".example.com", which Postfix matches with names of any
// depth below it (tls/tls_client.c), where RFC 8461, Section 4.1 means one label.
// The literal form would match only a wildcard certificate. From Postfix 3.10.5 on
// the policy attributes are exact.
func matchName(pattern string) string { return strings.TrimPrefix(pattern, "*") }

// matchable reports whether a pattern of a policy may be in match=. The parser
// enforces RFC 8461; this is about how Postfix reads the name. Single labels are
// omitted because some are keywords ("hostname", "nexthop", "dot-nexthop"), and
// addresses because they are not names of MX hosts.
func matchable(pattern string) bool {
	name, wildcard := strings.CutPrefix(pattern, "*.")
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
