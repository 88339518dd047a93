package sts

import (
	"slices"
	"strings"
)

// A Line is one line of a policy by itself, for messages that explain a policy.
type Line struct {
	// Number counts from 1.
	Number int
	// Name and Value are of the field in the line, and empty if it has none that could be read. Where Err
	// is not nil, Value can contain anything.
	Name, Value string
	// Later says that the field is not the first of its name and therefore ignored; mx never is.
	Later bool
	// Err is what is wrong with the line, or nil.
	Err *SyntaxError
}

// ReadPolicy reads a policy to its end, however many mistakes it has. The mistakes are in the order of
// their lines, those of the policy as a whole last. [ParsePolicy] refuses a policy for the first of them,
// and accepts exactly those that have none.
func ReadPolicy(body []byte) (lines []Line, mistakes []*SyntaxError) {
	p := newParser(body)
	if len(p.lines) == 0 {
		return nil, []*SyntaxError{p.empty()}
	}
	seen := make(map[string]bool)
	for i, text := range p.lines {
		p.n = i + 1
		l := Line{Number: p.n, Err: p.line(text)}
		if l.Err != nil {
			mistakes = append(mistakes, l.Err)
		}
		if name, value, ok := strings.Cut(text, ":"); ok && isName(name) {
			l.Name, l.Value = name, strings.TrimLeft(value, " \t")
			l.Later = seen[name] && name != "mx"
			seen[name] = true
		}
		lines = append(lines, l)
	}
	for _, absent := range p.absent() {
		// A bad line says more than that there is no good one.
		if !slices.ContainsFunc(mistakes, func(m *SyntaxError) bool { return m.Field == absent.Field }) {
			mistakes = append(mistakes, absent)
		}
	}
	return lines, mistakes
}
