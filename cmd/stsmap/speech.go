package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Rules of speech, for everything that the program says on a terminal:
//
//   - Results go to standard output, one a line, fit to be read by a program.
//   - Everything else goes to standard error and begins "stsmap: ".
//   - An error is one line, "stsmap: error: …", in lower case, without a
//     period, from the outside in; what can be done about it follows as
//     "stsmap: hint: …".
//   - What came from elsewhere is printed escaped.
//   - An action that succeeds is silent.

// A console is where the program speaks.
type console struct {
	out io.Writer // results
	err io.Writer // everything else
}

// Exit codes, those of sysexits.h where it has one.
const (
	exitFailed      = 1
	exitUsage       = 64
	exitUnreachable = 69 // the daemon cannot be reached
	exitBug         = 70
	exitPermission  = 77
	exitConfig      = 78
)

// A failure is an error with an exit code and a hint. Errors that are none
// come from the command line's own parser and mean wrong usage.
type failure struct {
	code int
	err  error
	hint string // what to do; empty if there is nothing to say
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// errSilent is the error of a command that has said everything already.
var errSilent = errors.New("silent")

// finish reports how a command ended and returns its exit code.
func (c console) finish(err error) int {
	if err == nil {
		return 0
	}
	f, ok := errors.AsType[*failure](err)
	if !ok {
		f = &failure{code: exitUsage, err: err, hint: "run: stsmap --help"}
	}
	if !errors.Is(f.err, errSilent) {
		for line := range strings.Lines(f.err.Error()) {
			fmt.Fprintf(c.err, "stsmap: error: %s\n", escaped(strings.TrimRight(line, "\n")))
		}
	}
	if f.hint != "" {
		fmt.Fprintf(c.err, "stsmap: hint: %s\n", f.hint)
	}
	return f.code
}

// warn says something that does not keep a command from going on.
func (c console) warn(format string, args ...any) {
	fmt.Fprintf(c.err, "stsmap: warning: %s\n", escaped(fmt.Sprintf(format, args...)))
}

// escaped returns s without anything that a terminal would act upon.
func escaped(s string) string {
	q := fmt.Sprintf("%q", s)
	q = q[1 : len(q)-1]
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(q)
}
