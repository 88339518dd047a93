// Package postconf asks the Postfix of this machine how it is configured, by
// running postconf(1) and reading the files that its settings name: its release,
// whether it looks up DNSSEC, its services and tables, the authorities it trusts.
//
// It changes nothing, keeps nothing and decides nothing: each call asks again.
// What a release understands is known to package postfix.
package postconf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// ErrNotFound means that there is no postconf on this machine. The administrator
// has to configure what it would say.
var ErrNotFound = errors.New("there is no postconf in PATH, /usr/sbin or /usr/local/sbin")

// ErrUnexpectedOutput means that postconf printed something that no release of it
// prints. The caller has learned nothing.
var ErrUnexpectedOutput = errors.New("not understood")

// errTooLong ends a program that prints without end.
var errTooLong = errors.New("too much output")

// An Error is a failed run of postconf. The caller has learned nothing. It wraps
// ErrUnexpectedOutput, the error of the context, or that of package os/exec.
type Error struct {
	// Output is the line that postconf failed with, or the unexpected one. It is
	// not escaped, and empty if there was none.
	Output string
	// Err is the reason, and is never nil.
	Err error
}

// Error returns the message of postconf; without one, how it ended.
func (e *Error) Error() string {
	if e.Output == "" {
		return "postconf: " + e.Err.Error()
	}
	if errors.Is(e.Err, ErrUnexpectedOutput) {
		return fmt.Sprintf("postconf: %v: %.100q", e.Err, e.Output)
	}
	return "postconf: " + strings.TrimPrefix(e.Output, "postconf: ")
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// settings returns the values of parameters, with $name expanded.
func (p *program) settings(ctx context.Context, args ...string) (settings, error) {
	out, err := p.ask(ctx, append([]string{"-x"}, args...)...)
	if err != nil {
		return nil, err
	}
	all := make(settings)
	for _, line := range out {
		name, value, ok := parseSetting(line)
		if !ok {
			return nil, unexpected(line)
		}
		all[name] = value
	}
	return all, nil
}

// parseSetting splits "name = value".
func parseSetting(line string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(line, "=")
	name = strings.TrimSpace(name)
	return name, strings.TrimSpace(value), ok && name != "" && !strings.ContainsAny(name, " \t")
}

// unexpected returns the error for a line that no postconf prints.
func unexpected(line string) error { return &Error{Output: line, Err: ErrUnexpectedOutput} }

// A program is postconf(1) for one configuration directory.
type program struct {
	path      string
	directory string // empty: the default of postconf
}

// find looks up postconf in PATH and, because that of a service may be short, in
// its usual directories.
func (p *program) find() error {
	for _, name := range []string{"postconf", "/usr/sbin/postconf", "/usr/local/sbin/postconf"} {
		if path, err := exec.LookPath(name); err == nil {
			p.path = path
			return nil
		}
	}
	return ErrNotFound
}

// maxOutput limits the output of postconf, in bytes. No configuration comes near.
const maxOutput = 1 << 20

// ask runs postconf and returns the lines that it printed.
func (p *program) ask(ctx context.Context, args ...string) ([]string, error) {
	if p.directory != "" {
		args = append([]string{"-c", p.directory}, args...)
	}
	var out, errout limitedBuffer
	cmd := exec.CommandContext(ctx, p.path, args...)
	cmd.Args[0] = "postconf" // as it names itself
	cmd.Stdout, cmd.Stderr = &out, &errout
	// A child of postconf that keeps the pipes open must not delay Run.
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		switch {
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case out.exceeded || errout.exceeded:
			err = errTooLong // rather than the signal that ended it
		default:
			return nil, &Error{Output: fatalLine(errout.buf.String()), Err: err}
		}
		return nil, &Error{Err: err}
	}
	var lines []string
	for line := range strings.Lines(out.buf.String()) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// fatalLine returns the fatal line of an error output, which warnings may precede;
// without one, the first line.
func fatalLine(errout string) (first string) {
	for line := range strings.Lines(errout) {
		line = strings.TrimSpace(line)
		if strings.Contains(line, "fatal:") {
			return line
		}
		if first == "" {
			first = line
		}
	}
	return first
}

// A limitedBuffer is a buffer of at most maxOutput bytes. It does not embed
// bytes.Buffer: io.Copy would use its ReadFrom, which has no limit.
type limitedBuffer struct {
	buf      bytes.Buffer
	exceeded bool // there was more
}

// Write fails if the limit is exceeded, which ends the program that writes.
func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.buf.Len()+len(p) > maxOutput {
		b.exceeded = true
		return 0, errTooLong
	}
	return b.buf.Write(p)
}
