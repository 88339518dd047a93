package sts

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxAge is the greatest max_age that RFC 8461, Section 3.2, knows, about a year. The grammar allows ten
// digits, so a greater number is valid, and means this one (erratum 7282).
const maxAge = 31557600 * time.Second

// A Mode says how a policy treats mail to an MX host that fails validation (RFC 8461, Section 5).
type Mode uint8

const (
	None    Mode = iota // None is as if there were no policy: a domain on its way out of MTA-STS.
	Testing             // Testing wants failures to be reported, and the mail delivered.
	Enforce             // Enforce forbids delivery to hosts that fail.
)

// String is the mode as a policy spells it: "none", "testing" or "enforce".
func (m Mode) String() string {
	switch m {
	case None:
		return "none"
	case Testing:
		return "testing"
	case Enforce:
		return "enforce"
	}
	return "Mode(" + strconv.Itoa(int(m)) + ")"
}

// A Policy is what a domain published at https://mta-sts.DOMAIN/.well-known/mta-sts.txt. It is not
// changed after [ParsePolicy] made it, so any number of goroutines may read it.
type Policy struct {
	// Mode is what to do about failures.
	Mode Mode
	// MX has the hosts that may receive mail, in the order of the policy and each once. It can be empty
	// only where Mode is None.
	MX []Pattern
	// MaxAge is how long the policy counts from the time it was fetched: zero for just once, at most
	// 31557600 seconds.
	MaxAge time.Duration
	// Lines has the lines of the policy as received, without what ends them, white space before that,
	// and the empty lines at the end. Joined by CRLF they are a policy with the same meaning.
	Lines []string
}

// ParsePolicy reads a policy by the grammar of RFC 8461, Section 3.2. If err is not nil it is a
// [*SyntaxError] that names the first mistake, and the policy is nil: it must not displace one that is
// cached. Unknown fields are ignored, as are all but the first of a repeated one other than mx, even
// malformed ones; a malformed first one is a mistake, because it is the one that counts. ParsePolicy
// keeps no reference to body.
//
// It departs from the grammar in two points. Empty lines at the end are accepted: they cannot change what
// a policy means, and many editors leave one. Empty lines elsewhere are refused. One dot at the end of an
// mx is accepted, as in "mx: mx.example.com.", and is not part of the Pattern: the name is beyond doubt,
// as in a zone file, and 5 of 259 policies of real domains had it. Refusing either would silently take
// the protection away from a domain that asked for it.
func ParsePolicy(body []byte) (*Policy, error) {
	p := newParser(body)
	if len(p.lines) == 0 {
		return nil, p.empty()
	}
	for i, line := range p.lines {
		p.n = i + 1
		if err := p.line(line); err != nil {
			return nil, err
		}
	}
	if absent := p.absent(); len(absent) > 0 {
		return nil, absent[0]
	}
	p.policy.Lines = p.lines
	return p.policy, nil
}

// A field is one that may stand only once.
type field uint8

const (
	version field = iota
	mode
	maxage
	fields // how many there are
)

// String is the name of the field in a policy.
func (f field) String() string {
	switch f {
	case version:
		return "version"
	case mode:
		return "mode"
	}
	return "max_age"
}

// A parser is a policy half read.
type parser struct {
	policy *Policy
	lines  []string
	n      int                  // number of the line that is being read
	seen   [fields]bool         // whether the field that counts has been read
	mx     map[Pattern]struct{} // what policy.MX has, once that is long
}

// newParser prepares to read body. There are no lines if it is empty.
func newParser(body []byte) *parser {
	p := &parser{policy: new(Policy)}
	// The one copy: all strings of the policy are parts of it.
	if text := trimEnd(string(body)); text != "" {
		p.lines = splitLines(text)
	}
	return p
}

// empty is the mistake of having nothing to say.
func (p *parser) empty() *SyntaxError {
	return &SyntaxError{Line: 1, Reason: "the policy is empty"}
}

// absent are the mistakes of a policy that lacks fields, once its lines have been read.
func (p *parser) absent() (all []*SyntaxError) {
	for _, f := range []field{version, mode, maxage} {
		if !p.seen[f] {
			all = append(all, p.missing(f.String()))
		}
	}
	if len(p.policy.MX) == 0 && p.policy.Mode != None {
		all = append(all, p.missing("mx"))
	}
	return all
}

// trimEnd takes the line ends at the end of the policy away: the one that the grammar has there, and
// those of empty lines, which it has not. This is the whole of the first departure that ParsePolicy
// describes; to be strict, take one only.
func trimEnd(text string) string {
	for strings.HasSuffix(text, "\n") {
		text = strings.TrimSuffix(text[:len(text)-1], "\r")
	}
	return text
}

// splitLines divides text at LF and CRLF, and at nothing else: a lone CR, VT, FF or U+2028 is part of
// its line. White space at the end of a line is allowed and cut off, unless there is nothing else.
func splitLines(text string) []string {
	lines := make([]string, 0, strings.Count(text, "\n")+1)
	for {
		line, rest, more := strings.Cut(text, "\n")
		if more {
			// Only here: the last line has no LF that could belong to its CR.
			line = strings.TrimSuffix(line, "\r")
		}
		if trimmed := strings.TrimRight(line, " \t"); trimmed != "" {
			line = trimmed
		}
		lines = append(lines, line)
		if !more {
			return lines
		}
		text = rest
	}
}

// line reads sts-policy-field.
func (p *parser) line(line string) *SyntaxError {
	name, value, ok := strings.Cut(line, ":")
	if !ok || !isName(name) {
		return p.fail("", lineReason(p.n, line))
	}
	value = strings.TrimLeft(value, " \t")
	if name == "mx" {
		return p.exchanger(value)
	}
	if reason := checkValue(value); reason != "" {
		return p.fail(name, reason)
	}
	switch name {
	case "version":
		return p.once(version, value)
	case "mode":
		return p.once(mode, value)
	case "max_age":
		return p.once(maxage, value)
	}
	return nil
}

// exchanger reads the value of a line "mx:".
func (p *parser) exchanger(value string) *SyntaxError {
	pattern, reason := parsePattern(value)
	if reason != "" {
		return p.fail("mx", reason)
	}
	if p.policy.MX == nil {
		p.policy.MX = make([]Pattern, 0, min(len(p.lines)-p.n+1, 16))
	}
	if !p.known(pattern) {
		p.policy.MX = append(p.policy.MX, pattern)
	}
	return nil
}

// known reports whether the pattern has been read before. It needs a map only for long lists: honest
// ones are short, and others shall not cost the square of their length.
func (p *parser) known(pattern Pattern) bool {
	const few = 16
	if len(p.policy.MX) < few {
		return slices.Contains(p.policy.MX, pattern)
	}
	if p.mx == nil {
		p.mx = make(map[Pattern]struct{})
		for _, m := range p.policy.MX {
			p.mx[m] = struct{}{}
		}
	}
	_, known := p.mx[pattern]
	p.mx[pattern] = struct{}{}
	return known
}

// once reads the value of a field of which only the first counts: "all entries except for the first
// SHALL be ignored" (RFC 8461, Section 3.2). The later ones may contain anything, since they still have
// the form of an unknown field.
func (p *parser) once(f field, value string) *SyntaxError {
	if p.seen[f] {
		return nil
	}
	p.seen[f] = true
	var reason string
	switch f {
	case version:
		if value != "STSv1" {
			reason = quote(value) + ` is not "STSv1"`
		}
	case mode:
		p.policy.Mode, reason = parseMode(value)
	case maxage:
		p.policy.MaxAge, reason = parseMaxAge(value)
	}
	if reason != "" {
		return p.fail(f.String(), valueReason(value, reason))
	}
	return nil
}

// fail is a mistake in the line that is being read.
func (p *parser) fail(field, reason string) *SyntaxError {
	return &SyntaxError{Line: p.n, Field: field, Reason: reason}
}

// parseMode reads a mode, whose case counts.
func parseMode(s string) (m Mode, reason string) {
	switch s {
	case "enforce":
		return Enforce, ""
	case "testing":
		return Testing, ""
	case "none":
		return None, ""
	}
	return None, quote(s) + ` is not a mode: "enforce", "testing" and "none" are, in lower case`
}

// parseMaxAge reads 1*10(DIGIT), seconds.
func parseMaxAge(s string) (age time.Duration, reason string) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, quote(s) + " is not a number of seconds: only digits are allowed"
		}
		if i < 10 { // more would overflow, and are refused below
			age = age*10 + time.Duration(s[i]-'0')
		}
	}
	if len(s) > 10 {
		return 0, quote(s) + " has more than 10 digits"
	}
	// The minimum comes first: ten digits of seconds do not fit into a Duration.
	return min(age, maxAge/time.Second) * time.Second, ""
}

// checkValue holds s, without white space around it, against
//
//	sts-policy-ext-value = sts-policy-vchar [*(%x20 / sts-policy-vchar) sts-policy-vchar]
//	sts-policy-vchar     = %x21-7E / UTF8-2 / UTF8-3 / UTF8-4
//
// which every other value but that of mx conforms to as well.
func checkValue(s string) (reason string) {
	if s == "" {
		return "has no value"
	}
	ascii := true
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == 0x7F {
			reason, _ := badByte(s)
			return quote(s) + " " + reason
		} else if c >= 0x80 {
			ascii = false
		}
	}
	if !ascii && !utf8.ValidString(s) {
		return quote(s) + " is not UTF-8"
	}
	return ""
}
