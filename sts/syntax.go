package sts

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// A SyntaxError says where a record or a policy breaks the grammar, in words for the postmaster who
// wrote it. The caller treats what was parsed as if it did not exist (RFC 8461, Section 3.3).
type SyntaxError struct {
	// Line counts the lines of the policy from 1. It is 0 for a TXT record. Where a field is missing it
	// is the last line.
	Line int
	// Field is the name of the field at fault, empty if the line has none that could be read.
	Field string
	// Reason says what is wrong. What the domain published is quoted and shortened in it, so that it is
	// safe to print.
	Reason string
}

// Error gives `line 3: mx: reason`, or `TXT record: id: reason`.
func (e *SyntaxError) Error() string {
	where := "TXT record"
	if e.Line > 0 {
		where = "line " + strconv.Itoa(e.Line)
	}
	if e.Field != "" {
		where += ": " + e.Field
	}
	return where + ": " + e.Reason
}

// quote makes remote bytes safe to print, and short enough for a line of a log.
func quote(s string) string {
	const most = 64
	if len(s) <= most {
		return strconv.Quote(s)
	}
	cut := most
	for cut > most-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strconv.Quote(s[:cut]) + "..."
}

// badByte names the first byte that may not stand in s, in a policy or a record, and reports whether
// there is one. Tabs are bad; who allows them has cut them off before.
func badByte(s string) (reason string, bad bool) {
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\r':
			return "contains a CR that no LF follows: lines end with LF or CRLF", true
		case c == '\t':
			return "contains a tab", true
		case c == 0:
			return "contains a NUL byte: is the file UTF-16 instead of UTF-8?", true
		case c < 0x20 || c == 0x7F:
			return fmt.Sprintf("contains the control character 0x%02X", c), true
		}
	}
	return "", false
}

// isAlphanum reports whether c is ALPHA or DIGIT.
func isAlphanum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// isName reports whether s can name a field, in a record (sts-ext-name) and in a policy
// (sts-policy-ext-name) alike; the names with a meaning are among them.
func isName(s string) bool {
	if len(s) == 0 || len(s) > 32 || !isAlphanum(s[0]) {
		return false
	}
	for i := 1; i < len(s); i++ {
		if c := s[i]; !isAlphanum(c) && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// nameReason says why isName(s) is false.
func nameReason(s string) string {
	switch {
	case s == "":
		return "the name of a field is missing"
	case len(s) > 32:
		return "the name " + quote(s) + " is longer than 32 characters"
	case !isAlphanum(s[0]):
		return "the name " + quote(s) + " does not begin with a letter or a digit"
	}
	return "the name " + quote(s) + ` is not made of letters, digits, "_", "-" and "."`
}
