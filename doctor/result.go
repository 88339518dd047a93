package doctor

import (
	"fmt"
	"strconv"
	"strings"
)

// A Severity says how much something that was seen matters to mail from here.
type Severity uint8

// The severities.
const (
	Skip Severity = iota // Skip: it was not looked at, and Seen says why.
	OK                   // OK: it is as it should be.
	Info                 // Info: it makes no difference, or may be meant to be so.
	Warn                 // Warn: mail goes, but something is fragile, or weaker than it was meant to be.
	Fail                 // Fail: mail is deferred, or policies are not applied.
)

// String returns the word for s in reports: "skip", "ok", "info", "warn" or
// "fail".
func (s Severity) String() string { return [...]string{"skip", "ok", "info", "warn", "fail"}[s] }

// MarshalText returns String.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Result is one thing that was seen. Its texts are printable.
type Result struct {
	// ID is that of the check, "LOC-05".
	ID string `json:"id"`
	// Severity is how much it matters.
	Severity Severity `json:"severity"`
	// Seen is what was seen.
	Seen string `json:"seen"`
	// Why is why it matters; empty where that goes without saying.
	Why string `json:"why,omitempty"`
	// Who must act: "you", or "nobody" if no action is needed.
	Who string `json:"who"`
	// Fix is what to do, lines to be pasted; empty if there is nothing to do.
	Fix string `json:"fix,omitempty"`
}

// finish completes a finding.
func (f *Result) finish(id string) {
	f.ID, f.Who = id, "nobody"
	if f.Severity >= Warn {
		f.Who = "you"
	}
	f.Seen, f.Why = printable(f.Seen), printable(f.Why)
	lines := strings.Split(f.Fix, "\n")
	for i, l := range lines {
		lines[i] = printable(l)
	}
	f.Fix = strings.Join(lines, "\n")
}

// most bounds a text, in bytes: some texts contain data from other hosts.
const most = 2000

// printable returns s without anything that a terminal would act upon, and not
// too long.
func printable(s string) string {
	if len(s) > most {
		s = s[:most] + "..."
	}
	q := strconv.Quote(s)
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(q[1 : len(q)-1])
}

func ok(format string, args ...any) Result {
	return Result{Severity: OK, Seen: fmt.Sprintf(format, args...)}
}

func info(format string, args ...any) Result {
	return Result{Severity: Info, Seen: fmt.Sprintf(format, args...)}
}

func skip(format string, args ...any) Result {
	return Result{Severity: Skip, Seen: fmt.Sprintf(format, args...)}
}

func warn(format string, args ...any) Result {
	return Result{Severity: Warn, Seen: fmt.Sprintf(format, args...)}
}

func fail(format string, args ...any) Result {
	return Result{Severity: Fail, Seen: fmt.Sprintf(format, args...)}
}

// because adds why it matters.
func (f Result) because(format string, args ...any) Result {
	f.Why = fmt.Sprintf(format, args...)
	return f
}

// fix adds lines to be pasted.
func (f Result) fix(lines ...string) Result {
	f.Fix = strings.Join(lines, "\n")
	return f
}
