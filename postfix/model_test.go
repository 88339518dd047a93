package postfix_test

import (
	"slices"
	"strings"
)

// A model is what a policy comes to in a reply, worked out from the other end:
// from the text, without the parser and the encoder that are tested.
type model struct {
	domain   string
	match    []string // the names of match=
	patterns []string
	lines    []string // those that can stand in braces
}

// modelOf reads a valid policy.
func modelOf(domain, body string) model {
	m := model{domain: domain}
	for line := range strings.SplitSeq(strings.TrimRight(body, "\r\n"), "\n") {
		line = strings.TrimRight(line, "\r\t ")
		if balanced(line) {
			m.lines = append(m.lines, strings.ReplaceAll(line, "\t", " "))
		}
		value, isMX := strings.CutPrefix(line, "mx:")
		pattern := strings.ToLower(strings.TrimSuffix(strings.TrimLeft(value, " \t"), ".")) // A4-5
		if !isMX || slices.Contains(m.patterns, pattern) {
			continue
		}
		m.patterns = append(m.patterns, pattern)
		labels := strings.Split(pattern, ".")
		if len(labels) > 1 && strings.Trim(labels[len(labels)-1], "0123456789") != "" {
			m.match = append(m.match, strings.TrimPrefix(pattern, "*"))
		}
	}
	return m
}

// balanced reports whether each brace of line has one that belongs to it.
func balanced(line string) bool {
	for {
		inner := strings.NewReplacer("{}", "").Replace(strings.Map(func(r rune) rune {
			if r == '{' || r == '}' {
				return r
			}
			return -1
		}, line))
		if inner == line {
			return line == ""
		}
		if line = inner; line == "" {
			return true
		}
	}
}

// plain is the text for a Postfix before 3.10.
func (m model) plain() string {
	return "secure match=" + strings.Join(m.match, ":") + " servername=hostname"
}

// attributes are those of 3.10, with the first n lines of the policy.
func (m model) attributes(n int) string {
	text := " policy_type=sts policy_domain=" + m.domain
	for _, p := range m.patterns {
		text += " mx_host_pattern=" + p
	}
	for _, l := range m.lines[:n] {
		text += " { policy_string = " + l + " }"
	}
	return text
}

// full is the text for a Postfix from 3.10 on, by steps as it fits
// (conformance, D.10).
func (m model) full() string {
	const most = 90000
	for _, n := range []int{len(m.lines), 1} {
		if text := m.plain() + m.attributes(n); len(text) <= most {
			return text
		}
	}
	return m.plain()
}
