// Command stsmap answers Postfix's lookups of outbound TLS policy with the
// MTA-STS policies (RFC 8461) of the destination domains.
//
// It contains wiring and printing: package policy decides what a policy means,
// and package postfix makes the replies.
package main

import (
	"fmt"
	"os"
	"runtime/debug"
)

func main() {
	os.Exit(run(os.Args[1:], console{out: os.Stdout, err: os.Stderr}))
}

// run executes one command line and returns the exit code. It is all of the
// program but the call of os.Exit, so that tests can run the real thing.
func run(args []string, c console) (code int) {
	defer func() {
		if p := recover(); p != nil {
			code = c.finish(&failure{code: exitBug, err: fmt.Errorf("bug: %v\n%s", p, debug.Stack()), hint: "please report this"})
		}
	}()
	root := rootCommand(c)
	root.SetArgs(args)
	return c.finish(root.Execute())
}
