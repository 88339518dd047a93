package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"stsmap/admin"
	"stsmap/cache"
	"stsmap/check"
	"stsmap/config"
	"stsmap/override"
	"stsmap/policy"
	"stsmap/postfix"
	"stsmap/postfix/postconf"
	"stsmap/probe"
	"stsmap/socketmap"
)

// A checking is one run of the command.
type checking struct {
	console
	*globals
	smtp, ns, nagios, notice bool
	file                     string
	limit                    time.Duration

	tally check.Tally
	many  bool
	total int // 0: unknown
	bar   bool
	style check.Style
	began time.Time
	drawn time.Time
}

func checkCommand(c console, g *globals) *cobra.Command {
	k := &checking{console: c, globals: g}
	cmd := &cobra.Command{
		Use:   "check DOMAIN...",
		Short: "Look at what a domain publishes, and what mail from here meets",
		Long: `Look at each domain itself, from this host: MX hosts, MTA-STS record, policy host,
policy, DANE and TLS reports; and say what is wrong, why it matters, who has to act,
and what Postfix here makes of it. It needs no daemon; if there is one, it is asked
what it has cached. Nobody is connected to on port 25 unless there is --smtp.
Each check has a name: "stsmap help STS-H05" explains it. stsmap-check(1) has all.

The exit code is 0 if all is fine or there is no policy, 1 for warnings, 2 if mail
from here would be refused or wait, and 3 if it could not be found out.`,
		RunE: func(cmd *cobra.Command, keys []string) error {
			if len(keys) == 0 && k.file == "" {
				return errors.New("no domain is named, and no --file")
			}
			if k.nagios && k.notice || g.json && (k.nagios || k.notice) {
				return errors.New("of --json, --nagios and --notice there can be one")
			}
			if k.limit <= 0 {
				return errors.New("--timeout is not positive")
			}
			return k.run(cmd.Context(), keys)
		},
	}
	cmd.ValidArgsFunction = g.domains()
	flags := cmd.Flags()
	flags.BoolVar(&k.smtp, "smtp", false, "connect to the MX hosts, and look at their certificates")
	flags.BoolVar(&k.ns, "ns", false, "ask each name server of the domain for the record")
	flags.BoolVar(&k.nagios, "nagios", false, "print one line, as monitoring plugins do")
	flags.BoolVar(&k.notice, "notice", false, "print a letter to the postmaster of the domain")
	flags.StringVar(&k.file, "file", "", "check the domains in a file, one a line; - is standard input")
	flags.DurationVar(&k.limit, "timeout", time.Minute, "how long to look at one domain")
	return cmd
}

// run checks all keys.
func (k *checking) run(ctx context.Context, keys []string) error {
	checker, err := k.checker(ctx)
	if err != nil {
		return err
	}
	all, readable, err := k.keys(keys)
	if err != nil {
		return err
	}
	k.style = check.Style{Colour: k.coloured(), Brief: k.quiet}
	k.bar = k.many && k.showsProgress(k.console)
	k.began = time.Now()
	if k.tabular() {
		fmt.Fprintln(k.out, check.TableHead())
	}
	k.draw(true)
	err = checker.Each(ctx, all, k.told)
	k.clear()
	if err == nil {
		err = readable()
	}
	if d := k.tally.Domains; err == nil && k.tabular() {
		fmt.Fprintf(k.console.err, "stsmap: %d domains: %d fine, %d with warnings, %d refused, %d unknown\n",
			k.tally.Total(), d[check.Fine], d[check.Warnings], d[check.Refused], d[check.Unknown])
	}
	if err == nil && k.nagios {
		_, err = fmt.Fprintln(k.out, k.tally.Nagios())
	}
	if err != nil {
		return written(err)
	}
	if code := exitCode(k.tally.Verdict()); code != 0 {
		return &failure{code: code, err: errSilent}
	}
	return nil
}

// tabular reports whether a table is printed, with its head and its sum.
func (k *checking) tabular() bool {
	return k.many && !k.json && !k.nagios && !k.notice && !k.quiet
}

// exitCode is that of a verdict, as monitoring plugins have them.
func exitCode(v check.Verdict) int {
	switch v {
	case check.Warnings:
		return 1
	case check.Refused:
		return 2
	case check.Unknown:
		return 3
	}
	return 0
}

// told counts and prints a report.
func (k *checking) told(r *check.Report) error {
	k.tally.Add(r)
	k.clear()
	err := k.print(r)
	k.draw(false)
	return err
}

// print prints one report.
func (k *checking) print(r *check.Report) (err error) {
	switch {
	case k.nagios:
	case k.quiet && r.Verdict == check.Fine:
	case k.json:
		err = json.NewEncoder(k.out).Encode(r)
	case k.notice:
		letter := r.Letter(time.Now())
		if letter == "" {
			fmt.Fprintf(k.console.err, "stsmap: %s: nothing that its postmaster has to do\n", escaped(r.Key))
		}
		_, err = io.WriteString(k.out, letter)
	case k.many:
		_, err = fmt.Fprintln(k.out, r.Row(k.style))
	default:
		_, err = io.WriteString(k.out, r.Screen(k.style))
	}
	return err
}

// keys are those on the command line, and those of the file.
func (k *checking) keys(args []string) (all iter.Seq[string], readable func() error, err error) {
	k.many, k.total = len(args) > 1 || k.file != "", len(args)
	if k.file == "" {
		return slices.Values(args), func() error { return nil }, nil
	}
	in, err := openInput(k.file)
	if err != nil {
		return nil, nil, err
	}
	if k.total += k.count(); k.total == len(args) {
		k.total = 0
	}
	listed, failed := check.Keys(in)
	return func(yield func(string) bool) {
			defer in.Close()
			for _, key := range args {
				if !yield(key) {
					return
				}
			}
			listed(yield)
		}, func() error {
			if err := failed(); err != nil {
				return &failure{code: exitFailed, err: fmt.Errorf("%s: %w", k.file, err)}
			}
			return nil
		}, nil
}

// count counts the keys of a file, which can be read twice; 0 if it cannot.
func (k *checking) count() (n int) {
	info, err := os.Stat(k.file)
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	f, err := os.Open(k.file)
	if err != nil {
		return 0
	}
	defer f.Close()
	keys, _ := check.Keys(f)
	for range keys {
		n++
	}
	return n
}

// coloured reports whether the output is coloured: on a terminal, unless
// NO_COLOR is set (https://no-color.org).
func (k *checking) coloured() bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(k.out)
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// draw draws the progress bar: for each line of the table, or a few times a
// second.
func (k *checking) draw(begin bool) {
	now := time.Now()
	if !k.bar || !begin && !isTerminal(k.out) && now.Sub(k.drawn) < 200*time.Millisecond {
		return
	}
	k.drawn = now
	done := k.tally.Total()
	line := fmt.Sprintf("%d checked", done)
	if k.total > 0 {
		const width = 24
		bar := min(width*done/k.total, width)
		line = fmt.Sprintf("[%s%s] %d/%d", strings.Repeat("#", bar), strings.Repeat(".", width-bar), done, k.total)
	}
	line += fmt.Sprintf(", %d warnings, %d refused", k.tally.Domains[check.Warnings], k.tally.Domains[check.Refused])
	if done > 0 && done < k.total {
		line += fmt.Sprintf(", %s left", brief(time.Duration(float64(now.Sub(k.began))/float64(done)*float64(k.total-done))))
	}
	_, _ = io.WriteString(k.console.err, "\r"+line+"\x1b[K")
}

// clear takes the bar away, for whatever is to stand in its place.
func (k *checking) clear() {
	if k.bar && (isTerminal(k.out) || k.tally.Total() == 0) {
		_, _ = io.WriteString(k.console.err, "\r\x1b[K")
	}
}

// checker makes what does the work, from the configuration and what Postfix here
// says of itself.
func (k *checking) checker(ctx context.Context) (*check.Checker, error) {
	loaded, err := k.load()
	if err != nil {
		return nil, err
	}
	cfg := &loaded.Config
	resolve, err := newResolver(cfg, nil)
	if err != nil {
		return nil, err
	}
	anchors, err := trustAnchors(cfg.Fetch.CAFile)
	if err != nil {
		return nil, err
	}
	fetch, err := newFetcher(cfg, resolve, anchors)
	if err != nil {
		return nil, err
	}
	maps := postfixMaps(cfg)
	c := check.Config{
		Resolver: resolve,
		Fetch:    fetch,
		Policy: policy.Config{
			Timeout: cfg.Fetch.Timeout,
			Defer:   cfg.DNS.OnFailure == "defer",
			Strict:  maps["postfix"].Testing == postfix.Enforce,
			DANE:    daneConfig(cfg, resolve),
		},
		DANE:        cfg.DANE.Mode != "off",
		Postfix:     k.postfix(ctx, cfg),
		SMTP:        k.smtp,
		NameServers: k.ns,
		Timeout:     k.limit,
	}
	c.Postfix.Map = maps["postfix"]
	c.Overrides, c.NoOverrides = override.Load(cfg.Overrides.File, postfix.CheckText)
	if cfg.Admin.Socket != "" {
		c.Known = known(admin.NewClient(cfg.Admin.Socket), cfg.Admin.Socket)
	}
	return check.New(c), nil
}

// postfixLimit bounds the time that postconf may take for check.
const postfixLimit = 10 * time.Second

// postfix gathers the settings of the Postfix on this host with postconf. What
// it cannot determine is part of the findings that need it.
func (k *checking) postfix(ctx context.Context, cfg *config.Config) (p check.Postfix) {
	ctx, cancel := context.WithTimeout(ctx, postfixLimit)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		s := probe.Once(ctx, probe.Config{Release: cfg.Postfix.Release, DNSSEC: cfg.Postfix.DNSSEC, ConfigDirectory: cfg.Postfix.ConfigDirectory})
		p.Release = s.Release.Release
		if p.DNSSEC = s.DNSSEC.Reason; s.DNSSEC.Err != nil {
			p.DNSSEC = fmt.Errorf("not known whether Postfix looks up DNSSEC: %w", s.DNSSEC.Err)
		}
	})
	if k.smtp {
		wg.Go(func() {
			if p.Trust, p.NoRoots = postconf.DetectTrust(ctx, cfg.Postfix.ConfigDirectory); p.NoRoots == nil {
				p.Roots, p.NoRoots = p.Trust.Pool()
			}
		})
	}
	wg.Wait()
	return p
}

// known asks the daemon what it has cached.
func known(client *admin.Client, path string) func(context.Context, string) (check.Known, error) {
	return func(ctx context.Context, domain string) (check.Known, error) {
		rec, err := client.Show(ctx, domain)
		switch {
		case errors.Is(err, admin.ErrUnknown):
			return check.Known{}, nil
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
			return check.Known{}, errors.New("no daemon runs here")
		case errors.Is(err, fs.ErrPermission):
			return check.Known{}, fmt.Errorf("no permission to ask the daemon at %s; run it as root", path)
		case err != nil:
			return check.Known{}, fmt.Errorf("the daemon does not answer: %w", err)
		}
		k := check.Known{Entry: &cache.Entry{
			Domain: rec.Domain, ID: rec.ID, Policy: rec.Policy, Fetched: rec.Fetched, Expires: rec.Expires,
			Checked: rec.Checked, Recheck: rec.Recheck, Refresh: rec.Refresh, Used: rec.Used,
		}}
		// Only if the domain is cached: Explain would fetch it otherwise.
		e, err := client.Explain(ctx, "postfix", domain)
		if err != nil {
			return k, fmt.Errorf("the daemon does not explain: %w", err)
		}
		k.Reply = strings.TrimSpace(e.Reply.Status + " " + e.Reply.Text)
		k.Waits = e.Reply.Status == socketmap.Temp.String()
		for _, h := range e.History {
			k.Events = append(k.Events, happened(h))
		}
		return k, nil
	}
}

// happened is a change in one line.
func happened(h admin.Change) string {
	text := h.Time.Local().Format("2006-01-02 15:04") + " " + h.Message
	if h.Count > 1 {
		text += fmt.Sprintf(" (%d times)", h.Count)
	}
	if h.Text != "" {
		text += ": " + h.Text
	}
	return text
}
