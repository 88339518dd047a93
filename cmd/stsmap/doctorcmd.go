package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"stsmap/doctor"
	"stsmap/postfix"
	"stsmap/stsfetch"
)

// lookAs is the command by which doctor calls this program again.
const lookAs = "look-as"

func doctorCommand(c console, g *globals) *cobra.Command {
	var domain string
	cmd := &cobra.Command{
		Use:   "doctor [ID...]",
		Short: "Find out what is wrong on this host",
		Long: `Look at Postfix, the daemon, DNS, HTTPS and the units on this host, and say what
is wrong, why it matters, and what to paste. Run it as root: sockets are tried
as the user of Postfix, and in its chroot. Nothing is changed.

An ID such as LOC-05 makes only that check. The exit code is 0 if all is well and
1 if there is a failure or a warning.`,
		RunE: func(cmd *cobra.Command, ids []string) error {
			return runDoctor(cmd.Context(), c, g, domain, ids)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var ids []string
			for _, check := range doctor.Checks() {
				ids = append(ids, check.ID+"\t"+check.Title)
			}
			return ids, cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.Flags().StringVar(&domain, "domain", "", "a domain with a policy, to try things out with (default: one that is remembered)")
	return cmd
}

// lookAsCommand is for doctor alone, which starts this program as another user.
func lookAsCommand() *cobra.Command {
	return &cobra.Command{
		Use:    lookAs,
		Short:  "Look at something as another user",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := doctor.Look(cmd.Context(), os.Stdin, os.Stdout); err != nil {
				return &failure{code: exitFailed, err: err}
			}
			return nil
		},
	}
}

// runDoctor makes the checks and prints what was found.
func runDoctor(ctx context.Context, c console, g *globals, domain string, ids []string) error {
	only, err := checkIDs(ids)
	if err != nil {
		return err
	}
	cfg, err := g.load()
	if err != nil {
		return err
	}
	d := doctor.Config{
		Settings: &cfg.Config, File: g.file(), Version: version(), Look: []string{lookAs}, Only: only,
	}
	if domain != "" {
		hop, ok := postfix.NextHop(domain, true)
		if !ok {
			return &failure{code: exitUsage, err: fmt.Errorf("%.100q has no policy domain", domain)}
		}
		d.Domain = hop.Domain
	}
	if d.Program, err = os.Executable(); err != nil {
		return &failure{code: exitFailed, err: err}
	}
	if d.Resolver, err = newResolver(&cfg.Config, nil); err != nil {
		return err
	}
	// Anchors that cannot be read are a finding.
	anchors, _ := trustAnchors(cfg.Fetch.CAFile)
	d.Fetcher, err = stsfetch.New(stsfetch.Config{
		Resolver: d.Resolver, Anchors: anchors, Timeout: cfg.Fetch.Timeout, MaxSize: cfg.Fetch.MaxSize,
		AllowPrivate: cfg.Fetch.AllowPrivate, Proxy: cfg.Fetch.Proxy, UserAgent: "stsmap/" + version(),
	})
	if err != nil {
		return &failure{code: exitConfig, err: fmt.Errorf("fetch: %w", err)}
	}
	found := doctor.Examine(ctx, d)
	failures, warnings := tally(found)
	if g.json {
		err = showDiagnosis(c.out, found, failures, warnings)
	} else {
		err = printDiagnosis(c, g, found, failures, warnings)
	}
	if err != nil {
		return written(err)
	}
	if failures+warnings > 0 {
		return &failure{code: exitFailed, err: errSilent}
	}
	return nil
}

// file is the path of the configuration that was read, if there is one.
func (g *globals) file() string {
	path, optional := g.path()
	if _, err := os.Stat(path); optional && errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return path
}

// checkIDs reads the checks that are wanted; none are all of them.
func checkIDs(ids []string) (only []string, err error) {
	var known []string
	for _, check := range doctor.Checks() {
		known = append(known, check.ID)
	}
	for _, id := range ids {
		id = strings.ToUpper(id)
		if !slices.Contains(known, id) {
			return nil, &failure{code: exitUsage, err: fmt.Errorf("there is no check %.40q", id), hint: "they are " + known[0] + " to " + known[len(known)-1]}
		}
		only = append(only, id)
	}
	return only, nil
}

// tally counts what has to be acted upon.
func tally(found []doctor.Result) (failures, warnings int) {
	for _, f := range found {
		switch f.Severity {
		case doctor.Fail:
			failures++
		case doctor.Warn:
			warnings++
		}
	}
	return failures, warnings
}

// showDiagnosis prints it for programs.
func showDiagnosis(w io.Writer, found []doctor.Result, failures, warnings int) error {
	return json.NewEncoder(w).Encode(struct {
		Version  int             `json:"version"` // of this form; names are only ever added to one
		Stsmap   string          `json:"stsmap"`
		Failures int             `json:"failures"`
		Warnings int             `json:"warnings"`
		Findings []doctor.Result `json:"findings"`
	}{1, version(), failures, warnings, found})
}

// printDiagnosis prints the findings as text; with --quiet only those that need
// action.
func printDiagnosis(c console, g *globals, found []doctor.Result, failures, warnings int) error {
	colours := c.colours()
	var b strings.Builder
	for _, f := range found {
		if !g.quiet || f.Severity >= doctor.Warn {
			b.WriteString(showFinding(f, colours))
		}
	}
	if !g.quiet {
		fmt.Fprintf(&b, "\n%s, %s\n", plural(failures, "failure"), plural(warnings, "warning"))
	}
	_, err := io.WriteString(c.out, b.String())
	return err
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
