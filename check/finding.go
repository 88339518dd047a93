package check

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Severity says how much something that was seen matters to mail from here.
type Severity uint8

// The severities. Of two that are shown together, the greater counts.
const (
	Skip Severity = iota // Skip: it was not looked at, and Seen says why.
	OK                   // OK: it is as it should be.
	Info                 // Info: it makes no difference, or is meant to be so.
	Warn                 // Warn: mail goes, but something is fragile, or weaker than it was meant to be.
	Fail                 // Fail: mail from here is or will be refused, or waits.
)

// String returns the word for s in reports: "skip", "ok", "info", "warn" or
// "fail".
func (s Severity) String() string { return [...]string{"skip", "ok", "info", "warn", "fail"}[s] }

// MarshalText returns String.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// An Actor is the party that has to fix a finding.
type Actor uint8

// The actors.
const (
	Nobody Actor = iota // Nobody: no action is needed.
	You                 // You: the administrator of the Postfix here.
	Them                // Them: the owner of the domain that was checked.
)

// String returns the word for a in reports: "nobody", "you" or "them".
func (a Actor) String() string { return [...]string{"nobody", "you", "them"}[a] }

// MarshalText returns String.
func (a Actor) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// A Finding is one thing that was seen. Its texts are printable, whatever was
// published.
type Finding struct {
	// ID is the check's, "STS-H05"; see Lookup.
	ID string `json:"id"`
	// Severity is how much it matters here.
	Severity Severity `json:"severity"`
	// Seen is what was seen.
	Seen string `json:"seen"`
	// Why is why it matters; empty where that goes without saying.
	Why string `json:"why,omitempty"`
	// Who must act.
	Who Actor `json:"who"`
	// Fix is what they have to do.
	Fix string `json:"fix,omitempty"`
}

// A Verdict is what all findings come to.
type Verdict uint8

// The verdicts.
const (
	Fine     Verdict = iota // Fine: nothing is wrong, or there is no policy.
	Warnings                // Warnings: see the findings of severity Warn.
	Refused                 // Refused: mail from here would be refused, or wait.
	Unknown                 // Unknown: it could not be found out.
)

// String returns the word for v in reports: "fine", "warnings", "refused" or
// "unknown".
func (v Verdict) String() string { return [...]string{"fine", "warnings", "refused", "unknown"}[v] }

// MarshalText returns String.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// Worse returns the worse one of two verdicts. Refused is worse than Unknown.
func (v Verdict) Worse(w Verdict) Verdict {
	rank := [...]int{Fine: 0, Warnings: 1, Unknown: 2, Refused: 3}
	if rank[w] > rank[v] {
		return w
	}
	return v
}

// add takes in a finding, in a form that is fit to be printed.
func (r *Report) add(f Finding) {
	f.Seen, f.Why, f.Fix = printable(f.Seen), printable(f.Why), printable(f.Fix)
	switch f.Severity {
	case Warn:
		r.Warnings++
	case Fail:
		r.Failures++
	}
	r.Findings = append(r.Findings, f)
}

// ok, info and skip add findings that need no action.
func (r *Report) ok(id, format string, args ...any) {
	r.add(Finding{ID: id, Severity: OK, Seen: fmt.Sprintf(format, args...)})
}

func (r *Report) info(id, format string, args ...any) {
	r.add(Finding{ID: id, Severity: Info, Seen: fmt.Sprintf(format, args...)})
}

func (r *Report) skip(why string, ids ...string) {
	for _, id := range ids {
		if r.found(id) {
			continue
		}
		r.add(Finding{ID: id, Severity: Skip, Seen: why})
	}
}

// sort brings the findings into the order of the groups.
func (r *Report) sort() {
	const order = "ADHPMSNTL"
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Compare(strings.IndexByte(order, a.ID[len(prefix)]), strings.IndexByte(order, b.ID[len(prefix)]))
	})
}

// skipGroup skips all checks of a group.
func (r *Report) skipGroup(letter byte, why string) {
	for _, c := range Catalogue() {
		if c.ID[len(prefix)] == letter {
			r.skip(why, c.ID)
		}
	}
}

// verdict sums up the findings. blind says that something decisive could not be
// found out.
func (r *Report) verdict(blind bool) Verdict {
	switch {
	case r.Failures > 0:
		return Refused
	case blind:
		return Unknown
	case r.Warnings > 0:
		return Warnings
	}
	return Fine
}

// most bounds a text that can contain published data.
const most = 1000

// printable returns s without anything that a terminal would act upon, and not
// too long.
func printable(s string) string {
	var b strings.Builder
	for i := 0; i < len(s) && b.Len() <= most; {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r != utf8.RuneError && strconv.IsPrint(r) {
			b.WriteString(s[i : i+n])
		} else {
			q := strconv.QuoteToASCII(s[i : i+n])
			b.WriteString(q[1 : len(q)-1])
		}
		i += n
	}
	if b.Len() <= most {
		return b.String()
	}
	return strings.ToValidUTF8(b.String()[:most-3], "") + "..."
}

// quoted is remote text in quotes, short enough for a line.
func quoted(s string) string {
	const long = 50
	if len(s) > long {
		return strconv.Quote(strings.ToValidUTF8(s[:long], "")) + "..."
	}
	return strconv.Quote(s)
}
