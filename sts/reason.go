package sts

import "strings"

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
	case line[0] == '#':
		return quote(line) + " is a comment, which policies cannot have"
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
	case strings.HasPrefix(start, "<"):
		return quote(line) + " looks like HTML: the web server sends a page instead of a policy"
	case strings.HasPrefix(start, "{") || strings.HasPrefix(start, "["):
		return quote(line) + " looks like JSON, which policies are not"
	case strings.HasPrefix(start, "v=STSv1"):
		return quote(line) + ` is the TXT record, not the policy, which has "version: STSv1" here`
	}
	return ""
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
