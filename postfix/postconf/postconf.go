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

// ErrNotFound means that there is no postconf on this machine: the settings
// of Postfix have to be said by its owner.
var ErrNotFound = errors.New("there is no postconf in PATH, /usr/sbin or /usr/local/sbin")

// ErrUnexpectedOutput means that postconf said something that no postconf is known
// to say; who asked can only do as if it had not been asked.
var ErrUnexpectedOutput = errors.New("not understood")

// errTooLong ends a program that does not stop to write.
var errTooLong = errors.New("too much output")

// An Error says that postconf gave no answer. It wraps ErrUnexpectedOutput,
// the error of the context, or what package os/exec says.
type Error struct {
	// Output is the line of its errout, or the one that is odd. It is empty if
	// it said nothing, and not escaped.
	Output string
	// Err is what is wrong.
	Err error
}

// Error tells what postconf said, and otherwise how it ended.
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

// settings asks for values, with what $name stands for.
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

func unexpected(line string) error { return &Error{Output: line, Err: ErrUnexpectedOutput} }

// A program is postconf, asked about one directory.
type program struct {
	path      string
	directory string
}

// find looks in PATH and, because that of a service can be short, where it
// usually is.
func (p *program) find() error {
	for _, name := range []string{"postconf", "/usr/sbin/postconf", "/usr/local/sbin/postconf"} {
		if path, err := exec.LookPath(name); err == nil {
			p.path = path
			return nil
		}
	}
	return ErrNotFound
}

// maxOutput is more than any configuration prints, in bytes.
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
	// What it may have started must not keep us waiting.
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		switch {
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case out.exceeded || errout.exceeded:
			err = errTooLong // and not the signal that it died of
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

// fatalLine is the line of a errout that tells why it ended; warnings that do
// not matter can stand before it.
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

// limitedBuffer is a buffer that takes no more than maxOutput. It does not embed the
// other: io.Copy would find ReadFrom, which knows no bound.
type limitedBuffer struct {
	buf      bytes.Buffer
	exceeded bool // whether there was more
}

// Write fails when there is too much, which ends the program that writes.
func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.buf.Len()+len(p) > maxOutput {
		b.exceeded = true
		return 0, errTooLong
	}
	return b.buf.Write(p)
}
