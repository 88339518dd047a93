// Command stsmap answers Postfix's questions about outbound TLS policy with
// the MTA-STS policies (RFC 8461) of the domains that mail goes to.
//
// It is wiring and speech: what a policy means is decided by package policy,
// and what Postfix is told by package postfix.
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
