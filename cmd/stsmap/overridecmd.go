package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"stsmap/admin"
	"stsmap/config"
	"stsmap/override"
	"stsmap/postfix"
)

func overrideCommand(c console, g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "override",
		Short: "See and change the exceptions for single domains",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(overrideListCommand(c, g), overrideSetCommand(c, g), overrideRemoveCommand(c, g))
	return cmd
}

func overrideListCommand(c console, g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the overrides",
		Long: `List the overrides that the file has, with how many answers each has decided since
the daemon began, if that can be asked. With --json, each line is an object.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := g.overridesFile()
			if err != nil {
				return err
			}
			table, err := override.Load(path, postfix.CheckText)
			if err != nil {
				return overrideTrouble(err)
			}
			all := listed(table, g.usesOf(cmd.Context()), time.Now())
			if !g.json {
				return written(printOverrides(c.out, all))
			}
			for _, o := range all {
				if err := json.NewEncoder(c.out).Encode(o); err != nil {
					return written(err)
				}
			}
			return nil
		},
	}
}

// overridesFile returns the file to read or to edit.
func (g *globals) overridesFile() (string, error) {
	cfg, err := g.load()
	if err != nil {
		return "", err
	}
	if cfg.Overrides.File == "" {
		return "", &failure{code: exitConfig, err: errors.New("overrides.file is empty: there are no overrides"), hint: "name a file in overrides.file, and reload the daemon"}
	}
	return cfg.Overrides.File, nil
}

// usesOf asks the daemon how often overrides were used, by domain. Without a
// daemon it is not known.
func (g *globals) usesOf(ctx context.Context) map[string]admin.OverrideStatus {
	client, _, err := g.controlClient()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, healthLimit)
	defer cancel()
	s, err := client.Status(ctx)
	if err != nil {
		return nil
	}
	uses := make(map[string]admin.OverrideStatus)
	for _, o := range s.Overrides.List {
		uses[o.Domain] = o
	}
	return uses
}

// listed returns the overrides of a file with the uses that the daemon counted
// of the same ones.
func listed(table *override.Table, uses map[string]admin.OverrideStatus, now time.Time) []admin.OverrideStatus {
	var all []admin.OverrideStatus
	for _, o := range table.All() {
		s := admin.OverrideOf(o, now)
		if known := uses[s.Domain]; known.Action == s.Action && known.Text == s.Text {
			s.Uses = known.Uses
		}
		all = append(all, s)
	}
	return all
}

// printOverrides prints a table, in lines of statusWidth characters unless a
// domain or the reason is long.
func printOverrides(w io.Writer, all []admin.OverrideStatus) error {
	width := len("DOMAIN")
	for _, o := range all {
		width = min(max(width, len(o.Domain)), 36)
	}
	var out strings.Builder
	row := func(domain, action, until, uses, reason string) {
		line := fmt.Sprintf("%-*s  %-7s  %-16s  %6s  %s", width, domain, action, until, uses, reason)
		out.WriteString(strings.TrimRight(escaped(line), " ") + "\n")
	}
	row("DOMAIN", "ACTION", "UNTIL", "USES", "REASON")
	for _, o := range all {
		until, uses, reason := "-", "-", o.Reason
		switch {
		case o.Expired:
			until = "expired"
		case !o.Until.IsZero():
			until = lastDay(o.Until.Local())
		}
		if o.Uses != nil {
			uses = fmt.Sprint(*o.Uses)
		}
		if o.Text != "" {
			reason = strings.TrimSuffix(fmt.Sprintf("%q; %s", o.Text, reason), "; ")
		}
		row(o.Domain, o.Action, until, uses, reason)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// lastDay is when an override ends, as the file has it: a day that it counts to
// the end of, where that is the end.
func lastDay(t time.Time) string {
	if day := t.AddDate(0, 0, -1); t.Equal(time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, t.Location())) {
		return day.Format(time.DateOnly)
	}
	return t.Format("2006-01-02 15:04")
}

func overrideSetCommand(c console, g *globals) *cobra.Command {
	var action, until, reason, text string
	cmd := &cobra.Command{
		Use:   "set DOMAIN",
		Short: "Add an override, or change one",
		Long: `Add an override for DOMAIN, or for everything below it if it begins with a dot, to
the file, or change the one that is there: what no flag is given for stays as it
is, and an empty value takes it away. Comments stay. It counts at once.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var change override.Change
			given := func(name string, value *string) *string {
				if cmd.Flags().Changed(name) {
					return value
				}
				return nil
			}
			change.Text, change.Reason = given("text", &text), given("reason", &reason)
			if err := checkWords(change); err != nil {
				return err
			}
			if given("action", &action) != nil {
				a, err := override.ParseAction(action)
				if err != nil {
					return err
				}
				change.Action = &a
			}
			domain, err := g.overrideDomain(c, args[0])
			if err != nil {
				return err
			}
			if given("until", &until) != nil {
				end, err := endOf(domain, until, time.Now())
				if err != nil {
					return err
				}
				change.Until = &end
			}
			return g.editOverrides(cmd.Context(), c, func(file string) (string, error) {
				file, err := override.Set(file, domain, change)
				if err != nil {
					return "", &failure{code: exitUsage, err: err, hint: "name one with --action: exempt, reply, enforce or defer"}
				}
				return file, nil
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&action, "action", "", "exempt, reply, enforce or defer")
	flags.StringVar(&until, "until", "", "a date or time, or how long from now: 2027-01-31, 30d")
	flags.StringVar(&reason, "reason", "", "why, for people")
	flags.StringVar(&text, "text", "", "with action reply: what Postfix is answered, such as encrypt")
	completeFlag(cmd, "action", words("exempt", "reply", "enforce", "defer"))
	cmd.ValidArgsFunction = once(g.both())
	return cmd
}

// checkWords returns what is wrong with the texts of a change, before the file
// is touched, so that the error does not blame the file.
func checkWords(change override.Change) error {
	if change.Reason != nil {
		if err := override.CheckLine(*change.Reason); err != nil {
			return fmt.Errorf("--reason: %w", err)
		}
	}
	if change.Text == nil || *change.Text == "" {
		return nil
	}
	err := override.CheckLine(*change.Text)
	if err == nil {
		err = postfix.CheckText(*change.Text)
	}
	if err != nil {
		return fmt.Errorf("--text: %.200q is nothing that Postfix accepts: %w", *change.Text, err)
	}
	return nil
}

// overrideDomain returns the domain of an override that the user names, perhaps
// by a key as Postfix sends it, like all other commands. It warns that an
// override applies to more than such a key.
func (g *globals) overrideDomain(c console, name string) (string, error) {
	if strings.ContainsAny(name, "[:") {
		if hop, ok := anyNextHop(name); ok {
			if !g.quiet {
				c.warn("the override is for %s, with and without brackets and at every port", hop.Domain)
			}
			return hop.Domain, nil
		}
	}
	return override.Domain(name)
}

// endOf reads --until: what the file may have, or a duration from now on. The
// past is refused, though a file may have it: what is set would not count.
func endOf(domain, s string, now time.Time) (string, error) {
	if d, ok := config.ParseDuration(s); ok && d > 0 {
		s = override.Ends(now, d)
	}
	end, err := override.ParseUntil(s)
	switch {
	case errors.Is(err, override.ErrYear):
		return "", fmt.Errorf("--until: %w", err)
	case err != nil:
		return "", fmt.Errorf("--until: %.40q is neither a date such as 2027-01-31, nor a time such as 2027-01-31T18:00:00Z, nor a duration such as 30d", s)
	case !end.IsZero() && !now.Before(end):
		return "", &failure{code: exitUsage, err: fmt.Errorf("--until: %s is over", s), hint: "to end an override now: stsmap override remove " + domain}
	}
	return s, nil
}

func overrideRemoveCommand(c console, g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "remove DOMAIN...",
		Short: "Remove overrides",
		Long: `Remove the override of each DOMAIN from the file. Comments above it stay. It ends to
count at once. The exit code is 1 if there is none for one of them.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: g.overrides(),
		RunE: func(cmd *cobra.Command, args []string) error {
			var missing, names []string
			for _, arg := range args {
				name, err := g.overrideDomain(c, arg)
				if err != nil {
					return err
				}
				names = append(names, name)
			}
			err := g.editOverrides(cmd.Context(), c, func(file string) (string, error) {
				for _, name := range names {
					next, found, err := override.Remove(file, name)
					if err != nil {
						return "", err
					}
					if !found {
						missing = append(missing, name)
					}
					file = next
				}
				return file, nil
			})
			if err != nil || len(missing) == 0 {
				return err
			}
			return &failure{code: exitFailed, err: fmt.Errorf("no override for %s", strings.Join(missing, ", "))}
		},
	}
}

// editOverrides changes the file, and has the daemon read it. Without a daemon
// that is all; one that does not confirm it notices by itself.
func (g *globals) editOverrides(ctx context.Context, c console, change func(string) (string, error)) error {
	path, err := g.overridesFile()
	if err != nil {
		return err
	}
	if err := override.Edit(path, postfix.CheckText, change); err != nil {
		return overrideTrouble(err)
	}
	client, _, err := g.controlClient()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, healthLimit)
	defer cancel()
	s, err := client.ReadOverrides(ctx)
	if refused, ok := errors.AsType[*admin.Refusal](err); ok {
		return &failure{code: exitFailed, err: fmt.Errorf("the file was changed, and the daemon cannot read it: %w", refused), hint: "the daemon's user must be able to read it"}
	}
	switch {
	case g.quiet, errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED): // no daemon runs
	case err != nil:
		c.warn("the file was changed, but the daemon did not confirm that it counts: %v; if it runs, it notices within %s", err, overridesEvery)
	case !sameFile(s.File, path):
		c.warn("the daemon reads its overrides from another file: %s", s.File)
	}
	return nil
}

// sameFile reports whether two paths are of the same file.
func sameFile(a, b string) bool {
	real := func(path string) string {
		path, _ = filepath.Abs(path)
		if target, err := filepath.EvalSymlinks(path); err == nil {
			return target
		}
		return path
	}
	return real(a) == real(b)
}

// overrideTrouble says why the file of the overrides cannot be used.
func overrideTrouble(err error) error {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	_, mistakes := errors.AsType[*override.Error](err)
	_, system := errors.AsType[*fs.PathError](err)
	f := &failure{code: exitConfig, err: err}
	switch {
	case mistakes:
		f.hint = "overrides are explained in stsmap.toml(5)"
	case errors.Is(err, fs.ErrPermission):
		f.code, f.hint = exitPermission, "run it as root, or as who may write there"
	case errors.Is(err, fs.ErrNotExist):
		f.hint = "create its directory first"
	case !system:
		return err // of the command line
	}
	return f
}
