package site

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
)

// A Log is a file that a neighbour appends lines to. It is read anew for every question, which is quick enough for
// the few hundred lines of a scenario and cannot miss anything.
type Log string

// Mark returns the present end of the log, to be given to the other methods; 0 if there is no log yet.
func (l Log) Mark() int64 {
	info, err := os.Stat(string(l))
	if err != nil {
		return 0
	}
	return info.Size()
}

// Since returns the complete lines that were appended after from.
func (l Log) Since(from int64) []string {
	data, err := os.ReadFile(string(l))
	if err != nil || int64(len(data)) <= from {
		return nil
	}
	data = data[from:]
	data = data[:bytes.LastIndexByte(data, '\n')+1]
	return strings.FieldsFunc(string(data), func(r rune) bool { return r == '\n' })
}

// Find returns the submatches of the first complete line after from in which re is found; nil if there is none yet.
func (l Log) Find(re *regexp.Regexp, from int64) []string {
	for _, line := range l.Since(from) {
		if m := re.FindStringSubmatch(line); m != nil {
			return m
		}
	}
	return nil
}

// Wait waits until Find finds re, and returns what it found. The error is that of ctx, with what was waited for.
func (l Log) Wait(ctx context.Context, re *regexp.Regexp, from int64) ([]string, error) {
	for {
		if m := l.Find(re, from); m != nil {
			return m, nil
		}
		if err := pause(ctx); err != nil {
			return nil, fmt.Errorf("%s: nothing like %q: %w", string(l), re, err)
		}
	}
}

// pause waits a moment before the next look at another program, or returns the error of ctx. The other programs report
// what they do only in their logs.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(5 * time.Millisecond):
		return nil
	}
}
