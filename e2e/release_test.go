package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
)

// A release is the first two numbers of a mail_version.
type release [2]int

func parseRelease(s string) (r release, err error) {
	parts := strings.Split(s, ".")
	if len(parts) < 2 {
		return r, fmt.Errorf("%q is not a release of Postfix", s)
	}
	for i := range r {
		if r[i], err = strconv.Atoi(parts[i]); err != nil {
			return r, fmt.Errorf("%q is not a release of Postfix", s)
		}
	}
	return r, nil
}

func (r release) before(other release) bool {
	return r[0] < other[0] || r[0] == other[0] && r[1] < other[1]
}

// A span is the releases that a line is for. The zero value is all of them.
type span struct{ from, to *release }

// covers reports whether r is one of them.
func (s span) covers(r release) bool {
	return (s.from == nil || !r.before(*s.from)) && (s.to == nil || !s.to.before(r))
}

// condition reads the releases that a line is for, and returns the rest of the line: "[3.10+] report …" is for 3.10 and
// later, "[3.9-] …" for 3.9 and earlier.
func condition(text string) (s span, rest string, err error) {
	inner, open := strings.CutPrefix(text, "[")
	if !open {
		return s, text, nil
	}
	word, rest, closed := strings.Cut(inner, "] ")
	if !closed || word == "" {
		return s, "", fmt.Errorf("%s: neither a condition nor a step", text)
	}
	r, err := parseRelease(word[:len(word)-1])
	switch {
	case err != nil:
		return s, "", err
	case strings.HasSuffix(word, "+"):
		s.from = &r
	case strings.HasSuffix(word, "-"):
		s.to = &r
	default:
		return s, "", fmt.Errorf("[%s] is no condition; want [3.10+] or [3.9-]", word)
	}
	return s, strings.TrimSpace(rest), nil
}

// A matrix is what became of every scenario with every Postfix.
type matrix struct {
	names    []string
	releases []string
	cells    map[[2]string]string // scenario and release to what is printed
}

func newMatrix(scenarios []scenario) *matrix {
	m := &matrix{cells: make(map[[2]string]string)}
	for _, c := range scenarios {
		m.names = append(m.names, c.name)
	}
	return m
}

// column begins the plays with one Postfix.
func (m *matrix) column(release string) { m.releases = append(m.releases, release) }

// enter notes how a play ended.
func (m *matrix) enter(name string, p *play) {
	cell := "ok " + p.outcomes
	switch {
	case p.t.Failed():
		cell = fmt.Sprintf("FAILED, play:%d", p.line.number)
	case p.played == 0:
		cell = "-"
	}
	m.cells[[2]string{name, m.releases[len(m.releases)-1]}] = strings.TrimSpace(cell)
}

// print writes the table into the file that E2E_MATRIX names, if it names one: what a test prints is not shown when it
// passes.
func (m *matrix) print() error {
	path := os.Getenv("E2E_MATRIX")
	if path == "" {
		return nil
	}
	var out strings.Builder
	out.WriteString("\nOutcomes by Postfix, attempt by attempt: s sent, d deferred, b bounced; - not for this release\n\n")
	w := tabwriter.NewWriter(&out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "scenario\t%s\n", strings.Join(m.releases, "\t"))
	for _, name := range m.names {
		fmt.Fprint(w, name)
		for _, r := range m.releases {
			cell, played := m.cells[[2]string{name, r}]
			if !played {
				cell = "not played"
			}
			fmt.Fprintf(w, "\t%s", cell)
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(out.String()), 0o644)
}
