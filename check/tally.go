package check

import (
	"fmt"
	"strings"
)

// A Tally sums up reports, however many there are. The zero Tally is ready to
// use.
type Tally struct {
	// Domains is how many there are of each Verdict.
	Domains [4]int

	verdict            Verdict
	worst              *Report // the first with that verdict
	failures, warnings int
	seconds            float64
}

// Add takes in one more.
func (t *Tally) Add(r *Report) {
	t.Domains[r.Verdict]++
	t.failures += r.Failures
	t.warnings += r.Warnings
	t.seconds += r.Seconds
	if v := t.verdict.Worse(r.Verdict); t.worst == nil || v != t.verdict {
		t.verdict, t.worst = v, r
	}
}

// Verdict is the worst of all verdicts; Fine if there are none.
func (t *Tally) Verdict() Verdict { return t.verdict }

// Total is how many there are.
func (t *Tally) Total() (n int) {
	for _, d := range t.Domains {
		n += d
	}
	return n
}

// Nagios returns all in the one line that monitoring plugins print, with figures
// behind a bar.
func (t *Tally) Nagios() string {
	word := [...]string{Fine: "OK", Warnings: "WARNING", Refused: "CRITICAL", Unknown: "UNKNOWN"}[t.verdict]
	text := "nothing was checked"
	if t.worst != nil {
		text = t.worst.name() + t.worst.headline()
		if f := t.worst.Worst(); f != nil {
			text = t.worst.name() + ": " + f.ID + " " + f.Seen
		}
	}
	if n := t.Total(); n > 1 {
		if text = fmt.Sprintf("%d of %d domains: %s", n-t.Domains[Fine], n, text); t.Domains[Fine] == n {
			text = fmt.Sprintf("%d domains", n)
		}
	}
	// A bar begins the figures, and ends the text.
	text = cut(strings.ReplaceAll(text, "|", "/"), 200)
	return fmt.Sprintf("STSMAP %s - %s | failures=%d;;1;0 warnings=%d;1;;0 time=%.3fs;;;0", word, text, t.failures, t.warnings, t.seconds)
}
