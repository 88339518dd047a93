package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"stsmap/sts"
)

// maxMistakes is how many mistakes of a policy are reported.
const maxMistakes = 8

// judgeText is about the policy as it is served: STS-P.
func (l *look) judgeText() {
	l.judgeCached()
	if l.text == "" {
		why := "no policy is served"
		if !l.visited {
			why = l.unasked()
		}
		l.skipGroup('P', why)
		return
	}
	lines, mistakes := sts.ReadPolicy([]byte(l.text))
	if len(mistakes) > 0 && mistakes[0].Line == 1 && mistakes[0].Field == "" {
		// It is no policy at all, most likely: what else it lacks does not matter.
		mistakes = mistakes[:1]
	}
	for i, m := range mistakes[:min(len(mistakes), maxMistakes)] {
		f := l.mistake(lines, m)
		if i == 0 {
			f.Why = "The policy does not count. " + l.meanwhile()
		}
		l.add(f)
	}
	for _, line := range lines {
		l.judgeLine(line)
	}
	if strings.HasSuffix(strings.ReplaceAll(l.text, "\r", ""), "\n\n") {
		l.add(Finding{
			ID: "STS-P08", Severity: Info, Who: Them, Seen: "the policy ends with empty lines",
			Why: "They are accepted here; senders that go by the letter of RFC 8461 refuse them.", Fix: "Delete them.",
		})
	}
	if len(mistakes) == 0 {
		p, _ := sts.ParsePolicy([]byte(l.text))
		l.judgePolicy(p, lines)
	}
}

// mistake is about what makes a policy none.
func (l *look) mistake(lines []sts.Line, m *sts.SyntaxError) Finding {
	f := Finding{Severity: Warn, Who: Them, Seen: m.Error(), Fix: "Correct the file, then change the id of the record."}
	at := slices.IndexFunc(lines, func(line sts.Line) bool { return line.Err == m })
	switch m.Field {
	case "version":
		f.ID, f.Fix = "STS-P01", `Write "version: STSv1" as the first line.`
	case "mode":
		f.ID = "STS-P02"
		if at >= 0 && lines[at].Value == "report" {
			f.Fix = `"report" was the name of "testing" in a draft: write "testing".`
		}
	case "max_age":
		f.ID, f.Fix = "STS-P03", `Write a number of seconds, such as "max_age: 604800" for a week.`
	case "mx":
		f.ID, f.Fix = "STS-P05", "Write one name a line, as in the MX record, without a dot at the end."
		if at < 0 {
			f.ID, f.Fix = "STS-P04", "Write a line for each MX host, or mode none to end MTA-STS."
		}
	default:
		f.ID, f.Fix = "STS-P08", `Serve plain text in UTF-8, with lines of the form "name: value" and nothing else.`
	}
	return f
}

// judgeLine judges lines that may not have the effect that the domain owner
// meant.
func (l *look) judgeLine(line sts.Line) {
	if line.Err != nil {
		return
	}
	if line.Name == "mx" && strings.HasSuffix(line.Value, ".") {
		l.add(Finding{
			ID: "STS-P05", Severity: Warn, Who: Them, Seen: fmt.Sprintf("line %d: mx: %s ends with a dot", line.Number, line.Value),
			Why: "The dot is ignored here; senders that go by the letter of RFC 8461 refuse the policy.", Fix: "Delete the dot, then change the id of the record.",
		})
	}
	switch known := knownKeys(); {
	case line.Later && slices.Contains(known, line.Name):
		l.add(Finding{
			ID: "STS-P07", Severity: Warn, Who: Them, Seen: fmt.Sprintf("line %d: %s is there again; only the first counts", line.Number, line.Name),
			Fix: "Delete the one that is not meant.",
		})
	case slices.Contains(known, line.Name):
	case likely(line.Name) != "":
		l.add(Finding{
			ID: "STS-P06", Severity: Warn, Who: Them, Seen: fmt.Sprintf("line %d: %q; did they mean %q?", line.Number, line.Name+":", likely(line.Name)+":"),
			Why: "Unknown keys are ignored, whatever they were meant to be.", Fix: "Correct the key.",
		})
	default:
		l.info("STS-P09", "line %d: unknown key %q is ignored, as it should be", line.Number, line.Name)
	}
}

// knownKeys are those of RFC 8461, Section 3.2.
func knownKeys() []string { return []string{"version", "mode", "mx", "max_age"} }

// likely is the key that was meant by one that is unknown, or nothing.
func likely(name string) string {
	plain := strings.ReplaceAll(strings.ToLower(name), "-", "_")
	for _, known := range knownKeys() {
		far := 1
		if len(known) > 4 {
			far = 2
		}
		if distance(plain, known) <= far {
			return known
		}
	}
	return ""
}

// distance is how many letters have to be changed to make a of b, for names,
// which are short.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// judgePolicy is about what a policy says that is one.
func (l *look) judgePolicy(p *sts.Policy, lines []sts.Line) {
	if lines[0].Name != "version" {
		l.info("STS-P01", "version is not the first line; some senders want it there")
	}
	switch p.Mode {
	case sts.Testing:
		l.add(Finding{
			ID: "STS-P10", Severity: Warn, Who: Them, Seen: "mode testing: senders report failures, and deliver all the same",
			Why: "Nothing protects mail to this domain yet.", Fix: "Once the reports are clean, write mode enforce, and change the id.",
		})
	case sts.None:
		l.info("STS-P11", "mode none: MTA-STS is switched off, in the right way")
	case sts.Enforce:
		l.ok("STS-P02", "mode enforce, %s", plural(len(p.MX), "MX pattern", "MX patterns"))
	}
	if p.Mode == sts.None {
		return
	}
	week := 7 * 24 * time.Hour
	switch {
	case p.MaxAge < 24*time.Hour:
		l.add(Finding{
			ID: "STS-P14", Severity: Warn, Who: Them, Seen: fmt.Sprintf("max_age is %d seconds, less than a day", p.MaxAge/time.Second),
			Why: "Between two messages the policy is forgotten, and whoever disturbs DNS then is not noticed.", Fix: "Write some weeks, such as max_age: 2592000.",
		})
	case p.MaxAge < week:
		l.add(Finding{
			ID: "STS-P14", Severity: Warn, Who: Them, Seen: fmt.Sprintf("max_age is %d seconds, less than a week", p.MaxAge/time.Second),
			Why: "The protection is short-lived.", Fix: "Write some weeks, such as max_age: 2592000 (RFC 8461, Section 3.2).",
		})
	default:
		l.ok("STS-P14", "max_age is %d days", p.MaxAge/(24*time.Hour))
	}
	for _, m := range p.MX {
		l.judgePattern(m)
	}
}

// judgePattern is about a pattern that matches too much, or nothing.
func (l *look) judgePattern(m sts.Pattern) {
	if _, err := netip.ParseAddr(string(m)); err == nil || isAddress(string(m)) {
		l.add(Finding{
			ID: "STS-P05", Severity: Warn, Who: Them, Seen: "mx: " + string(m) + " is an address, and no MX host has one as its name",
			Why: "The line matches nothing.", Fix: "Write the name of the MX host.",
		})
		return
	}
	below, wild := strings.CutPrefix(string(m), "*.")
	suffix, icann := publicsuffix.PublicSuffix(below)
	if wild && suffix == below && (icann || !strings.Contains(below, ".")) {
		l.add(Finding{
			ID: "STS-P15", Severity: Warn, Who: Them, Seen: "mx: " + string(m) + " allows hosts of anybody who registers a name there",
			Why: "Whoever can forge DNS can name a host of their own, with a valid certificate.", Fix: "Name the hosts, or a wildcard below a domain of your own.",
		})
	}
}

// judgeCached is about the policy that the daemon has.
func (l *look) judgeCached() {
	if l.c.Known == nil || l.cached == nil {
		return
	}
	e := l.known.Entry
	text := fmt.Sprintf("the daemon has id %s, downloaded %s ago, valid until %s", orNone(e.ID), age(time.Since(e.Fetched)), date(e.Expires))
	if e.Refresh.After(time.Now()) {
		text += ", next download in " + age(time.Until(e.Refresh))
	}
	l.info("STS-P12", "%s", text)
	if l.live == nil {
		return
	}
	var ways []string
	for _, w := range sts.Weakened(l.cached, l.live) {
		ways = append(ways, w.String())
	}
	if len(ways) > 0 {
		l.add(Finding{
			ID: "STS-P13", Severity: Warn, Who: You, Seen: "the policy protects less than the one that is cached: " + several(ways),
			Why: "That happens when a domain moves, and also when somebody else has taken it over.", Fix: "Verify with them that it is meant, by another way than mail.",
		})
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// age is a duration in its greatest unit.
func age(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", d/time.Minute)
	}
	return fmt.Sprintf("%d seconds", max(d, 0)/time.Second)
}
