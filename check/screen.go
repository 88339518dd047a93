package check

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// How reports are put into words. This stands here and not with the speech of
// the program because the words of findings and their form are one text, held
// by the same cases; the program decides where it goes and in which style.

const (
	// width is that of a terminal.
	width = 80
	// indent is where the texts of findings begin.
	indent = 17
)

// A Style says how a Report is shown.
type Style struct {
	Colour bool // Colour marks severities with escape sequences.
	Brief  bool // Brief leaves out all findings that need no action.
}

// paint puts text in the colour of a severity.
func (s Style) paint(text string, severity Severity) string {
	code := map[Severity]string{Fail: "1;31", Warn: "33", OK: "32", Skip: "2"}[severity]
	if !s.Colour || code == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[m"
}

// strong makes text bold.
func (s Style) strong(text string) string {
	if !s.Colour {
		return text
	}
	return "\x1b[1m" + text + "\x1b[m"
}

// acted reports whether a finding deserves attention.
func (f Finding) acted() bool {
	return f.Severity >= Warn || f.Severity == Skip && f.Why != "" || f.ID == "STS-A01" && f.Severity == Skip
}

// Screen returns the Report for a terminal of 80 columns, in lines. With
// Style.Brief it is empty if no finding needs action.
func (r *Report) Screen(s Style) string {
	if s.Brief && !slices.ContainsFunc(r.Findings, Finding.acted) {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s\n", s.strong(r.name()), r.headline())
	group := ""
	for _, f := range r.Findings {
		if !f.acted() && (s.Brief || f.Severity == Skip) {
			continue
		}
		if g := Group(f.ID); g != group {
			group = g
			fmt.Fprintf(&b, "%s\n", s.strong(g))
		}
		r.showFinding(&b, s, f)
	}
	if !s.Brief {
		r.showSkipped(&b, s)
	}
	fmt.Fprintf(&b, "%s\n", s.paint(r.Result(), r.severity()))
	return b.String()
}

// name is what was asked about.
func (r *Report) name() string {
	if r.Domain == "" {
		return r.Key
	}
	return r.Domain
}

// headline is the policy in a few words.
func (r *Report) headline() string {
	p := r.Policy
	note := ""
	switch {
	case p == nil && r.Cached != nil:
		p, note = r.Cached, "  (cached here)"
	case p == nil && slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.ID == "STS-D01" && f.Who != Nobody }):
		return "  policy not known"
	case p == nil && (r.found("STS-D01") || r.found("STS-A01") && r.Domain == ""):
		return "  no policy"
	case p == nil:
		return "  no valid policy"
	}
	text := fmt.Sprintf("  mode=%s  max_age=%s", p.Mode, days(p.MaxAge))
	if p.ID != "" {
		text += "  id=" + p.ID
	}
	return text + note
}

// days formats a number of seconds.
func days(n int64) string {
	switch {
	case n >= 86400 && n%86400 == 0 || n > 7*86400:
		return fmt.Sprintf("%dd", n/86400)
	case n >= 3600 && n%3600 == 0:
		return fmt.Sprintf("%dh", n/3600)
	}
	return fmt.Sprintf("%ds", n)
}

// showFinding adds one finding.
func (r *Report) showFinding(b *strings.Builder, s Style, f Finding) {
	mark := "[" + strings.ToUpper(f.Severity.String()) + "]"
	mark = s.paint(mark, f.Severity) + strings.Repeat(" ", len("[FAIL]")-len(mark))
	lines := wrap(f.Seen, width-indent)
	fmt.Fprintf(b, " %s %s  %s\n", mark, f.ID, lines[0])
	rest := lines[1:]
	if f.Why != "" {
		rest = append(rest, wrap(f.Why, width-indent)...)
	}
	if act := f.Act(); act != "" {
		rest = append(rest, wrap(act, width-indent)...)
	}
	for _, line := range rest {
		fmt.Fprintf(b, "%*s%s\n", indent, "", line)
	}
}

// Act names the actor and the fix; empty if no action is needed.
func (f Finding) Act() string {
	who := ""
	switch {
	case f.Fix == "":
		return ""
	case f.Severity < Warn && f.Who == Them:
		who = "They could act: "
	case f.Who == Them:
		who = "They must act: "
	case f.Who == You:
		who = "You must act: "
	}
	fix := f.Fix
	if r, n := utf8.DecodeRuneInString(fix); who != "" && n < len(fix) && unicode.IsUpper(r) && unicode.IsLower(rune(fix[n])) {
		fix = string(unicode.ToLower(r)) + fix[n:]
	}
	return who + fix
}

// showSkipped adds what was not looked at, by reason.
func (r *Report) showSkipped(b *strings.Builder, s Style) {
	var reasons []string
	by := make(map[string][]string)
	for _, f := range r.Findings {
		if f.Severity != Skip || f.acted() {
			continue
		}
		if by[f.Seen] == nil {
			reasons = append(reasons, f.Seen)
		}
		by[f.Seen] = append(by[f.Seen], strings.TrimPrefix(f.ID, prefix))
	}
	if len(reasons) > 0 {
		fmt.Fprintf(b, "%s\n", s.strong("not checked"))
	}
	for _, reason := range reasons {
		lines := wrap(strings.Join(runs(by[reason]), " ")+": "+reason, width-indent)
		for i, line := range lines {
			mark := ""
			if i == 0 {
				mark = "[SKIP]"
			}
			fmt.Fprintf(b, " %s%*s%s\n", s.paint(mark, Skip), indent-1-len(mark), "", line)
		}
	}
}

// runs shortens what follows each other, such as H01 to H12.
func runs(ids []string) (short []string) {
	for i := 0; i < len(ids); {
		j := i + 1
		for j < len(ids) && ids[j][0] == ids[i][0] && ids[j] > ids[j-1] {
			j++
		}
		if j-i > 2 {
			short = append(short, ids[i]+"-"+ids[j-1])
		} else {
			short = append(short, ids[i:j]...)
		}
		i = j
	}
	return short
}

// Result says in one line what the findings come to.
func (r *Report) Result() string {
	var parts []string
	if r.Failures > 0 {
		parts = append(parts, plural(r.Failures, "failure", "failures"))
	}
	if r.Warnings > 0 {
		parts = append(parts, plural(r.Warnings, "warning", "warnings"))
	}
	text := strings.Join(parts, ", ")
	switch r.Verdict {
	case Refused:
		return "Result: " + text + "; mail from here is refused, or waits"
	case Unknown:
		if text != "" {
			text = "; " + text
		}
		return "Result: it could not be checked" + text
	case Warnings:
		return "Result: " + text
	}
	if r.Policy == nil {
		return "Result: fine, without MTA-STS"
	}
	return "Result: fine"
}

// severity is that of the result.
func (r *Report) severity() Severity {
	return map[Verdict]Severity{Fine: OK, Warnings: Warn, Refused: Fail, Unknown: Warn}[r.Verdict]
}

// Worst returns the most severe finding, the first of them; nil if none needs
// action.
func (r *Report) Worst() *Finding {
	var worst *Finding
	for i, f := range r.Findings {
		if !f.acted() {
			continue
		}
		blind := f.Severity == Skip && r.Verdict == Unknown
		if worst == nil || f.Severity > worst.Severity || blind {
			worst = &r.Findings[i]
		}
		if blind {
			break
		}
	}
	return worst
}

// TableHead is the line above those that Row returns.
func TableHead() string {
	return fmt.Sprintf(rowForm, "DOMAIN", "MODE", "RESULT", "WHAT MATTERS MOST")
}

const rowForm = "%-28s %-8s %-8s %s"

// Row returns the Report in a line of a table.
func (r *Report) Row(s Style) string {
	mode := "-"
	if r.Policy != nil {
		mode = r.Policy.Mode
	}
	what := ""
	if f := r.Worst(); f != nil {
		what = f.ID + " " + f.Seen
	}
	name := cut(r.name(), 60)
	line := fmt.Sprintf(rowForm, name, mode, r.Verdict, what)
	line = strings.TrimRight(cut(line, max(width, utf8.RuneCountInString(name)+30)), " ")
	if v := r.Verdict.String(); s.Colour && strings.Contains(line, v) {
		i := strings.LastIndex(line[:min(len(line), len(fmt.Sprintf(rowForm, name, mode, r.Verdict, "")))], v)
		line = line[:i] + s.paint(v, r.severity()) + line[i+len(v):]
	}
	return line
}

// cut shortens a line to n characters.
func cut(line string, n int) string {
	if utf8.RuneCountInString(line) <= n {
		return line
	}
	runes := []rune(line)
	return string(runes[:n-3]) + "..."
}

// wrap breaks text into lines of n characters, words that are longer stay
// whole.
func wrap(text string, n int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > n:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
