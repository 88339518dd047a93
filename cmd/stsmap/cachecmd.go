package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"stsmap/admin"
)

func cacheCommand(c console, g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "See and change what the daemon remembers of domains",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(cacheListCommand(c, g), cacheShowCommand(c, g), cacheRefreshCommand(c, g), cacheForgetCommand(c, g),
		cacheExportCommand(c, g), cacheImportCommand(c, g), cacheStatsCommand(c, g), cacheSetupCommand(c, g))
	return cmd
}

// addFilter adds the flags that say which records are meant.
func addFilter(cmd *cobra.Command, f *admin.Filter) {
	cmd.Flags().StringVar(&f.Mode, "mode", "", "only those in this mode: enforce, testing, none or absent")
	completeFlag(cmd, "mode", words("enforce", "testing", "none", admin.Absent))
	cmd.Flags().BoolVar(&f.Failing, "failing", false, "only those that could not be retrieved the last time")
	cmd.Flags().DurationVar(&f.Older, "older", 0, "only what was learned at least so long ago, such as 24h")
	cmd.Flags().DurationVar(&f.Younger, "younger", 0, "only what was learned less long ago than this")
}

func cacheListCommand(c console, g *globals) *cobra.Command {
	var filter admin.Filter
	cmd := &cobra.Command{
		Use:   "list [PATTERN]",
		Short: "List what is remembered, a domain a line",
		Long: `List what is remembered, a domain a line, all of it or what PATTERN matches, in which
each * stands for any characters. With --json, each line is an object.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				filter.Match = args[0]
			}
			if err := filter.Check(); err != nil {
				return err
			}
			client, path, err := g.controlClient()
			if err != nil {
				return err
			}
			if g.json {
				return eachRecord(cmd.Context(), client, path, filter, json.NewEncoder(c.out).Encode)
			}
			var rows []row
			now := time.Now()
			err = eachRecord(cmd.Context(), client, path, filter, func(r any) error {
				rows = append(rows, rowOf(r.(admin.Record), now))
				return nil
			})
			if err != nil {
				return err
			}
			return written(printRows(c.out, rows))
		},
	}
	addFilter(cmd, &filter)
	return cmd
}

// eachRecord calls do for each record that the filter means.
func eachRecord(ctx context.Context, client *admin.Client, path string, filter admin.Filter, do func(record any) error) error {
	for rec, err := range client.List(ctx, filter) {
		if err != nil {
			return uncontrolled(path, err)
		}
		if err := do(rec); err != nil {
			return written(err)
		}
	}
	return nil
}

func cacheShowCommand(c console, g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "show DOMAIN...",
		Short: "Show all that is remembered of a domain",
		Long: `Show all that is remembered of each domain, with its policy as it was served.
The exit code is 1 if nothing is known of one of them.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: g.domains(),
		RunE: func(cmd *cobra.Command, keys []string) error {
			return eachKey(cmd.Context(), c, g, keys, func(ctx context.Context, client *admin.Client, key string) error {
				rec, err := client.Show(ctx, key)
				if err != nil {
					return err
				}
				if g.json {
					return written(json.NewEncoder(c.out).Encode(rec))
				}
				return written(showRecord(c.out, rec, time.Now()))
			})
		},
	}
}

func cacheRefreshCommand(c console, g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "refresh DOMAIN...",
		Short: "Ask a domain now, whatever is remembered",
		Long: `Ask each domain now: look up its record, and download its policy, whatever is
remembered and even if that has just failed. A policy that is known stays in force
if that fails (RFC 8461, Section 3.3); then the exit code is 1.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: g.domains(),
		RunE: func(cmd *cobra.Command, keys []string) error {
			return eachKey(cmd.Context(), c, g, keys, func(ctx context.Context, client *admin.Client, key string) error {
				rec, err := client.Retrieve(ctx, key, true)
				if err != nil {
					return err
				}
				if g.json {
					err = json.NewEncoder(c.out).Encode(rec)
				} else {
					_, err = fmt.Fprintln(c.out, escaped(rec.Domain+": "+outcome(rec, time.Now())))
				}
				if err == nil && rec.Error != "" {
					err = errSilent
				}
				return written(err)
			})
		},
	}
}

// eachKey queries the daemon about each key. It reports a key that is not
// cached or that the daemon refuses, and goes on with the next.
func eachKey(ctx context.Context, c console, g *globals, keys []string, ask func(context.Context, *admin.Client, string) error) error {
	client, path, err := g.controlClient()
	if err != nil {
		return err
	}
	failed := false
	for _, key := range keys {
		err := ask(ctx, client, key)
		refused, isRefusal := errors.AsType[*admin.Refusal](err)
		_, isFailure := errors.AsType[*failure](err)
		switch {
		case err == nil:
			continue
		case errors.Is(err, errSilent):
		case isRefusal, errors.Is(err, admin.ErrUnknown):
			if !isRefusal {
				refused = &admin.Refusal{Reason: err.Error()}
			}
			fmt.Fprintf(c.err, "stsmap: error: %s: %s\n", escaped(cutKey(key)), escaped(refused.Reason))
		case isFailure:
			return err
		default:
			return uncontrolled(path, err)
		}
		failed = true
	}
	if failed {
		return &failure{code: exitFailed, err: errSilent}
	}
	return nil
}

// cutKey shortens a key for messages.
func cutKey(key string) string {
	if len(key) > 80 {
		return strings.ToValidUTF8(key[:80], "") + "..."
	}
	return key
}

func cacheForgetCommand(c console, g *globals) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "forget DOMAIN|PATTERN...",
		Short: "Forget domains",
		Long: `Forget each domain, or each that a pattern such as '*.example.com' matches, or with
--all every one. The next message to such a domain is met without protection, if the
policy cannot be retrieved then: to have one downloaded again, "refresh" is better.`,
		ValidArgsFunction: g.domains(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if all != (len(args) == 0) {
				return errors.New("either domains are named, or --all")
			}
			if all {
				args = []string{"*"}
			}
			return eachKey(cmd.Context(), c, g, args, func(ctx context.Context, client *admin.Client, key string) error {
				if !strings.Contains(key, "*") {
					return client.Forget(ctx, key)
				}
				n, err := client.ForgetMany(ctx, admin.Filter{Match: key})
				if err == nil && !g.quiet {
					fmt.Fprintf(c.err, "stsmap: %d domains forgotten\n", n)
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "forget every domain")
	return cmd
}

func cacheExportCommand(c console, g *globals) *cobra.Command {
	var table bool
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print all policies, for import or as a Postfix table",
		Long: `Print all policies that count, one JSON object a line, for "import". With --postfix,
print instead what Postfix would be told now of each domain with a policy or an override,
as the source of a table for postmap(1): a stand-in for hours without the daemon, and
wrong once a policy changes. DANE goes before it, as in an answer. What no table can say
is a comment, NOT EXPRESSIBLE.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, path, err := g.controlClient()
			if err != nil {
				return err
			}
			if table {
				if err := client.Table(cmd.Context(), c.out); err != nil {
					return uncontrolled(path, err)
				}
				return nil
			}
			enc, now := json.NewEncoder(c.out), time.Now()
			return eachRecord(cmd.Context(), client, path, admin.Filter{}, func(r any) error {
				if rec := r.(admin.Record); rec.Policy == "" || rec.Expired(now) {
					return nil
				}
				return enc.Encode(r)
			})
		},
	}
	cmd.Flags().BoolVar(&table, "postfix", false, "print the source of a Postfix table")
	return cmd
}

func cacheImportCommand(c console, g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Remember what an export has",
		Long: `Remember the policies that FILE has, or standard input if FILE is -, in the form of
"export". Each is held for as long as it says, counted from when it was downloaded.
What is known and was downloaded later stays. Who can change FILE can switch protection
off: of other programs' caches, import the names only, with "stsmap warm".`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := openInput(args[0])
			if err != nil {
				return err
			}
			defer in.Close()
			client, path, err := g.controlClient()
			if err != nil {
				return err
			}
			result, err := client.Import(cmd.Context(), in)
			if err != nil {
				return uncontrolled(path, err)
			}
			if g.json {
				err = json.NewEncoder(c.out).Encode(result)
			} else {
				_, err = fmt.Fprintf(c.out, "%d imported, %d known already, %d refused\n", result.Imported, result.Known, len(result.Refused)+result.Omitted)
			}
			if err != nil || len(result.Refused) == 0 {
				return written(err)
			}
			for _, r := range result.Refused {
				fmt.Fprintf(c.err, "stsmap: error: %s\n", escaped(fmt.Sprintf("%s:%d: %s", args[0], r.Line, strings.TrimPrefix(r.Domain+": "+r.Error, ": "))))
			}
			if result.Omitted > 0 {
				fmt.Fprintf(c.err, "stsmap: error: %s: %d more lines\n", escaped(args[0]), result.Omitted)
			}
			return &failure{code: exitFailed, err: errSilent}
		},
	}
}

// openInput opens a file that was named, or standard input for "-".
func openInput(path string) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(os.Stdin), nil
	}
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, &failure{code: exitPermission, err: err}
	case err != nil:
		return nil, &failure{code: exitFailed, err: err}
	}
	return f, nil
}

func cacheStatsCommand(c console, g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "stats",
		Short: "Count what is remembered",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, path, err := g.controlClient()
			if err != nil {
				return err
			}
			s, err := client.Stats(cmd.Context())
			if err != nil {
				return uncontrolled(path, err)
			}
			if g.json {
				return written(json.NewEncoder(c.out).Encode(s))
			}
			return written(showStats(c.out, s, time.Now()))
		},
	}
}

func cacheSetupCommand(c console, g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "setup",
		Short: "Print what to run on the server of a shared store",
		Long: `Print what an administrator of the server runs for the user that cache.store names:
for PostgreSQL, the SQL that creates the tables and gives the rights on them, for psql;
for Redis, the commands that give the user the rights it needs and no others, for
redis-cli. PostgreSQL needs it only if the user may not create a schema. The daemon is
not asked.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := g.load()
			if err != nil {
				return err
			}
			r := remote(cfg.Cache.Store)
			if r == nil {
				return &failure{code: exitFailed, err: fmt.Errorf("cache.store: %s needs nothing to be set up on a server", redacted(cfg.Cache.Store))}
			}
			text, err := r.setup(cfg.Cache.Store)
			if err != nil {
				return &failure{code: exitConfig, err: fmt.Errorf("cache.store: %w", err)}
			}
			_, err = io.WriteString(c.out, text)
			return written(err)
		},
	}
}

// showStats prints s as it is at the time now.
func showStats(w io.Writer, s admin.Stats, now time.Time) error {
	var out screen
	out.row("domains", "%d", s.Domains)
	for _, mode := range []string{"enforce", "testing", "none", admin.Absent} {
		out.row("", "%d %s", s.Modes[mode], mode)
	}
	for _, mode := range slices.Sorted(maps.Keys(s.Modes)) {
		if !slices.Contains([]string{"enforce", "testing", "none", admin.Absent}, mode) {
			out.row("", "%d %s", s.Modes[mode], mode)
		}
	}
	out.row("", "%d with an expired policy", s.Expired)
	out.row("failing", "%d could not be retrieved the last time", s.Failing)
	out.row("lapsing", "%d policies lapse within a day unless they are renewed", s.Soon)
	if !s.Oldest.IsZero() {
		out.row("oldest", "%s", ago(s.Oldest, now))
	}
	out.row("store", "%s", s.Store)
	if s.Bytes != nil && s.Unused != nil {
		out.row("", "%s, of which %s unused", size(*s.Bytes), size(*s.Unused))
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// size is a number of bytes as people read it.
func size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
