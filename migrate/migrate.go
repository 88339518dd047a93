// Package migrate turns the configuration of a program that stsmap can take the place of into one of
// stsmap: that of postfix-tlspol, and that of postfix-mta-sts-resolver. The aim is that an administrator
// stops the one daemon and starts the other, and main.cf stays as it is.
//
// It does not read the caches of those programs, main.cf, systemd units or any other file: it converts
// one document in memory, and adds notes on what the administrator has to do. Nothing that it
// returns has a value of theirs that may be a password.
package migrate

import (
	"fmt"
	"slices"

	"stsmap/config"
)

// The programs that are known, by the names of their projects.
const (
	tlspolName   = "postfix-tlspol"
	resolverName = "postfix-mta-sts-resolver"
)

// A Result is what became of a configuration.
type Result struct {
	// From is the program that the configuration was for: "postfix-tlspol" or "postfix-mta-sts-resolver".
	From string
	// Text is a configuration file that [config.Load] accepts, with comments that say where each value
	// comes from. What has the default of stsmap is not in it.
	Text string
	// Notes has what Text cannot say, in the order of the lines; nil if there is nothing.
	Notes []Note
}

// A Note is about one setting of the old configuration that has no counterpart, means something else
// now, or needs a hand.
type Note struct {
	Line int    // Line is where the setting stands in the old file, from 1.
	Key  string // Key is its path there, such as "server.prefetch".
	Text string // Text says what happens to the setting; lower case, no period at the end.
}

// Import reads data, a configuration of either program, which it finds out by itself. The name is what
// the file is called in Text and in errors.
//
// If data is not YAML, belongs to neither program, or has a value that its own program would not start
// with or that leaves open what is meant, the error is a [*config.Error] that names each of these with
// its line. A key that its program ignores is no error but a note.
func Import(name string, data []byte) (*Result, error) {
	root, bad := parse(data)
	if bad != nil {
		return nil, &config.Error{Path: name, Problems: []config.Problem{*bad}}
	}
	from, bad := recognise(root)
	if bad != nil {
		return nil, &config.Error{Path: name, Problems: []config.Problem{*bad}}
	}
	r := &reading{from: from}
	d := newDraft(name, from)
	top := &section{r: r, node: root}
	if from == tlspolName {
		fromTLSPol(top, d)
	} else {
		fromResolver(top, d)
	}
	top.rest()
	if r.problems != nil {
		slices.SortStableFunc(r.problems, func(a, b config.Problem) int { return a.Line - b.Line })
		return nil, &config.Error{Path: name, Problems: r.problems}
	}
	slices.SortStableFunc(r.notes, func(a, b Note) int { return a.Line - b.Line })
	return &Result{From: from, Text: d.text(), Notes: r.notes}, nil
}

// knows reports whether key stands at the top of a configuration of the program.
func knows(program, key string) bool {
	switch key {
	case "server", "dns", "redis":
		return program == tlspolName
	case "host", "port", "path", "mode", "reuse_port", "shutdown_timeout", "cache_grace", "cache",
		"proactive_policy_fetching", "default_zone", "zones":
		return program == resolverName
	}
	return false
}

// recognise finds out by the keys at the top whose file it is. One stray key does not matter: both
// programs ignore those that they do not know.
func recognise(root *node) (program string, bad *config.Problem) {
	neither := fmt.Sprintf("not a configuration of %s or %s: ", tlspolName, resolverName)
	switch {
	case root.kind == null:
		return "", &config.Problem{Line: 1, Reason: neither + "there is nothing in it"}
	case root.kind != mapping:
		return "", &config.Problem{Line: root.line, Reason: neither + "is " + root.kind.String() + ", want keys with values"}
	case len(root.entries) == 0:
		return "", &config.Problem{Line: root.line, Reason: neither + "there is nothing in it"}
	}
	var tlspol, resolver int
	for _, e := range root.entries {
		if knows(tlspolName, e.key) {
			tlspol++
		}
		if knows(resolverName, e.key) {
			resolver++
		}
	}
	first := root.entries[0]
	switch {
	case tlspol == 0 && resolver == 0:
		return "", &config.Problem{Line: first.line, Key: printable(first.key), Reason: neither + "no key at the top is one of theirs"}
	case tlspol == resolver:
		return "", &config.Problem{Line: first.line, Key: printable(first.key), Reason: "has keys of both " + tlspolName + " and " + resolverName}
	case tlspol > resolver:
		return tlspolName, nil
	}
	return resolverName, nil
}
