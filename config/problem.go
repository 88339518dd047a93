package config

import (
	"strconv"
	"strings"
)

// An Error is every mistake of a configuration, in the order of the lines, and those of the environment
// last. The caller shows it and does not start; one that runs already goes on with what it has.
type Error struct {
	Path     string    // Path is the file, empty if none was read.
	Problems []Problem // Problems has at least one.
}

// A Problem is one mistake.
type Problem struct {
	// Line counts from 1. It is 0 for the environment.
	Line int
	// Key is its path in the file, such as "fetch.timeout", or the name of the environment variable. It
	// is empty if the file is not TOML there.
	Key string
	// Reason says what is wrong and what is allowed.
	Reason string
}

// Error has a line for each problem: `stsmap.toml:12: fetch.time_out: unknown key; did you mean
// "timeout"?`.
func (e *Error) Error() string {
	var lines []string
	for _, p := range e.Problems {
		line := p.Reason
		if p.Key != "" {
			line = p.Key + ": " + line
		}
		if p.Line > 0 {
			line = e.Path + ":" + strconv.Itoa(p.Line) + ": " + line
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}
