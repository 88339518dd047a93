package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// A release is the numbers of a mail_version, of which there are two or three.
type release []int

func parseRelease(s string) (release, error) {
	number, _, _ := strings.Cut(s, "-") // "3.12-20260821" is on the way to 3.12
	var r release
	for part := range strings.SplitSeq(number, ".") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%q is not a release of Postfix", s)
		}
		r = append(r, n)
	}
	if len(r) < 2 {
		return nil, fmt.Errorf("%q is not a release of Postfix", s)
	}
	return r, nil
}

// reports says that a Postfix of that release can tell a collector of TLSRPT.
func (r release) reports() bool { return slices.Compare(r, release{3, 10}) >= 0 }

// A span is the releases that a line is for. The zero value is all of them.
type span struct{ from, to release }

// covers reports whether r is one of them. What is up to 3.9 includes 3.9.7.
func (s span) covers(r release) bool {
	return (s.from == nil || slices.Compare(r, s.from) >= 0) &&
		(s.to == nil || slices.Compare(r[:min(len(r), len(s.to))], s.to) <= 0)
}

// condition reads the releases that a line is for, and returns the rest of the line: "[3.10+] report …" is for 3.10 and
// later, "[3.9-] …" for 3.9 and earlier. Only those are known at which something changes that is of interest here, so that
// no step is left out for a slip of the pen.
func condition(text string) (s span, rest string, err error) {
	inner, open := strings.CutPrefix(text, "[")
	if !open {
		return s, text, nil
	}
	word, rest, closed := strings.Cut(inner, "] ")
	if !closed || strings.TrimSpace(rest) == "" {
		return s, "", fmt.Errorf("%s: neither a condition nor a step", text)
	}
	switch word {
	case "3.9-", "3.10+": // policy attributes, and TLSRPT
	case "3.10.4-", "3.10.5+": // names of MX hosts are held against the policy
	case "3.10-", "3.11+": // REQUIRETLS
	default:
		return s, "", fmt.Errorf("[%s] is no condition, or of a release at which nothing changes", word)
	}
	r, err := parseRelease(strings.TrimRight(word, "+-"))
	if strings.HasSuffix(word, "+") {
		s.from = r
	} else {
		s.to = r
	}
	return s, strings.TrimSpace(rest), err
}

// A matrix is what became of every scenario with every Postfix.
type matrix struct {
	names    []string
	releases []string
	cells    []map[string]string // by release, and by scenario: what is printed
}

func newMatrix(scenarios []scenario) *matrix {
	m := new(matrix)
	for _, c := range scenarios {
		m.names = append(m.names, c.name)
	}
	return m
}

// column begins the plays with the Postfix of a suite, whose release is not known yet.
func (m *matrix) column(suite string) {
	m.releases = append(m.releases, suite)
	m.cells = append(m.cells, make(map[string]string))
}

// is says which release the Postfix of the last column is.
func (m *matrix) is(release string) { m.releases[len(m.releases)-1] = release }

// enter notes how a play with it ended.
func (m *matrix) enter(name string, p *play) {
	cell := "ok " + p.outcomes
	switch {
	case p.failed:
		cell = fmt.Sprintf("FAILED, play:%d", p.line.number)
	case p.played == 0:
		cell = "-"
	}
	m.cells[len(m.cells)-1][name] = strings.TrimSpace(cell)
}

// print writes the table into the file that E2E_MATRIX names, if it names one: what a test prints is not shown when it
// passes.
func (m *matrix) print() error {
	path := os.Getenv("E2E_MATRIX")
	if path == "" {
		return nil
	}
	return os.WriteFile(path, []byte(m.String()), 0o644)
}

// String returns the table, in lines of less than 80 columns.
func (m *matrix) String() string {
	var out strings.Builder
	out.WriteString("\nOutcomes by Postfix, attempt by attempt:\n")
	out.WriteString("s sent, d deferred, b bounced; - not for this release\n\n")
	w := tabwriter.NewWriter(&out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "scenario\t%s\n", strings.Join(m.releases, "\t"))
	for _, name := range m.names {
		fmt.Fprint(w, name)
		for _, column := range m.cells {
			cell, played := column[name]
			if !played {
				cell = "not played"
			}
			fmt.Fprintf(w, "\t%s", cell)
		}
		fmt.Fprintln(w)
	}
	w.Flush() // a strings.Builder never fails
	return out.String()
}
