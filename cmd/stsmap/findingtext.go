package main

import (
	"fmt"
	"os"
	"strings"

	"stsmap/doctor"
)

// A palette says whether words are coloured.
type palette bool

// colours returns the palette for results: coloured on a terminal, unless
// NO_COLOR is set (https://no-color.org).
func (c console) colours() palette {
	return palette(os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(c.out))
}

// paint colours text by how bad what it says is.
func (p palette) paint(s doctor.Severity, text string) string {
	if !p {
		return text
	}
	code := map[doctor.Severity]string{doctor.OK: "32", doctor.Info: "36", doctor.Warn: "33", doctor.Fail: "1;31", doctor.Skip: "2"}[s]
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// findingWidth is how far the text of a finding stands to the right.
const findingWidth = 16

// showFinding returns a finding as people read it, in lines of statusWidth
// characters. Only what is to be pasted is never broken.
func showFinding(f doctor.Result, p palette) string {
	word := "[" + strings.ToUpper(f.Severity.String()) + "]"
	head := fmt.Sprintf(" %s%s  %s  ", p.paint(f.Severity, word), strings.Repeat(" ", len("[FAIL]")-len(word)), f.ID)
	indent := strings.Repeat(" ", findingWidth+1)
	lines := wrapped(f.Seen, statusWidth-len(indent))
	if f.Why != "" {
		lines = append(lines, wrapped(f.Why, statusWidth-len(indent))...)
	}
	var b strings.Builder
	for i, line := range lines {
		if i > 0 {
			head = indent
		}
		b.WriteString(strings.TrimRight(head+line, " ") + "\n")
	}
	if f.Fix != "" {
		for line := range strings.Lines(f.Fix) {
			b.WriteString(indent + "  " + strings.TrimRight(line, "\n") + "\n")
		}
	}
	return b.String()
}

// wrapped breaks a text between words, and where a word is longer than a line
// after it.
func wrapped(text string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
