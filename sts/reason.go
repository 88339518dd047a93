package sts

import (
	"slices"
	"strings"
)

// lineReason says why line, the n-th of a policy, does not begin with the name of a field and a colon.
// It first looks for the mistakes that real files have.
func lineReason(n int, line string) string {
	if n == 1 {
		if reason := fileReason(line); reason != "" {
			return reason
		}
	}
	blankless := strings.Trim(line, " \t")
	switch {
	case line == "" && n == 1:
		return "is empty, and a policy begins with its first field"
	case line == "":
		return "is empty, and empty lines are not allowed between fields"
	case blankless == "":
		return "has nothing but white space"
	case blankless != line:
		return quote(line) + " begins with white space"
	case line[0] == '#' || strings.HasPrefix(line, "//"):
		return quote(line) + " is a comment, which policies cannot have"
	case line[0] != '<' && isTemplate(line):
		return quote(line) + templateReason
	}
	name, _, colon := strings.Cut(line, ":")
	if trimmed := strings.TrimRight(name, " \t"); colon && trimmed != name && isName(trimmed) {
		return quote(line) + " has white space before the colon"
	}
	if reason, bad := badByte(name); bad {
		return quote(line) + " " + reason
	}
	if !colon {
		return quote(line) + ` is not of the form "name: value"`
	}
	return nameReason(name)
}

// fileReason recognizes by its first line what is no policy at all, or not in the right coding.
func fileReason(line string) string {
	switch {
	case strings.HasPrefix(line, "\xEF\xBB\xBF"):
		return "begins with a byte order mark, which editors add that save as UTF-8 with BOM"
	case strings.HasPrefix(line, "\xFF\xFE") || strings.HasPrefix(line, "\xFE\xFF"):
		return "is UTF-16 instead of UTF-8"
	}
	switch start := strings.TrimLeft(line, " \t"); {
	case line == "---" || line == "+++":
		return quote(line) + " is front matter: the web server sends the source of a page instead of a policy"
	case strings.HasPrefix(start, "{{") || strings.HasPrefix(start, "{%"):
		return quote(line) + templateReason
	case strings.HasPrefix(start, "<"):
		return quote(line) + " looks like HTML: the web server sends a page instead of a policy"
	case strings.HasPrefix(start, "{") || strings.HasPrefix(start, "["):
		return quote(line) + " looks like JSON, which policies are not"
	case strings.HasPrefix(start, "v=STSv1"):
		return quote(line) + ` is the TXT record, not the policy, which has "version: STSv1" here`
	}
	return ""
}

// What valueReason and others say after the quoted text.
const (
	templateReason = " is a template that was not filled in"
	commentReason  = " has a comment behind the value, which policies cannot have"
)

// valueReason returns reason, which says what is wrong with the value of a field, or the mistake that it
// comes from.
func valueReason(value, reason string) string {
	switch {
	case isTemplate(value):
		return quote(value) + templateReason
	case hasComment(value, "#", "//", ";"):
		return quote(value) + commentReason
	}
	return reason
}

// hasComment reports whether a mark begins a comment in s: with white space before it.
func hasComment(s string, marks ...string) bool {
	return slices.ContainsFunc(marks, func(mark string) bool {
		return strings.Contains(s, " "+mark) || strings.Contains(s, "\t"+mark)
	})
}

// isTemplate reports whether s has a variable of a template: {{x}}, {%x%}, ${x}, %x% or <x>. A domain name
// in angle brackets is none.
func isTemplate(s string) bool {
	for _, marks := range [][2]string{{"{{", "}}"}, {"${", "}"}, {"%", "%"}, {"<", ">"}} {
		_, rest, found := strings.Cut(s, marks[0])
		name, _, closed := strings.Cut(rest, marks[1])
		if found && closed && name != "" && !(marks[0] == "<" && strings.Contains(name, ".") && isDomain(name)) {
			return true
		}
	}
	return false
}

// missing is the mistake of having no field of this name. Often there is one that nearly has it.
func (p *parser) missing(name string) *SyntaxError {
	for _, line := range p.lines {
		other, _, _ := strings.Cut(line, ":")
		if equalFold(strings.ReplaceAll(other, "-", "_"), name) && other != name {
			return p.fail(name, "is missing; "+quote(other)+" is not the same")
		}
	}
	if name == "mx" {
		return p.fail(name, `is missing, and only the mode "none" does without`)
	}
	return p.fail(name, "is missing")
}
