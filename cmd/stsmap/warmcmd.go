package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"stsmap/admin"
	"stsmap/warm"
)

func warmCommand(c console, g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "warm [FILE]",
		Short: "Retrieve the policies of domains before mail goes there",
		Long: `Have the daemon retrieve the policies of the domains that FILE names, or standard
input if there is none or it is -, so that none is met unprotected. FILE has one domain
a line, or is Postfix's log: then the domains that smtp(8) had messages for are meant,
those with most messages first. What is known is not asked for again. Of another
program's cache, this takes the names.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := "-"
			if len(args) > 0 {
				name = args[0]
			}
			list, err := readDomains(name)
			if err != nil {
				return err
			}
			if !g.quiet {
				c.warnBad(name, list)
			}
			client, path, err := g.controlClient()
			if err != nil {
				return err
			}
			w := &warming{console: c, globals: g, client: client, path: path, total: len(list.Domains), began: time.Now(), bar: g.showsProgress(c)}
			return w.run(cmd.Context(), list.Domains)
		},
	}
}

// readDomains reads the domains that a file names.
func readDomains(name string) (warm.List, error) {
	in, err := openInput(name)
	if err != nil {
		return warm.List{}, err
	}
	defer in.Close()
	list, err := warm.Read(in, func(key string) (string, bool) {
		hop, ok := anyNextHop(key)
		return hop.Domain, ok
	})
	if err != nil {
		return list, &failure{code: exitFailed, err: fmt.Errorf("%s: %w", name, err)}
	}
	return list, nil
}

// warnBad says which lines name no domain.
func (c console) warnBad(name string, list warm.List) {
	for _, b := range list.Bad {
		c.warn("%s:%d: no policy domain: %s", name, b.Line, b.Text)
	}
	if list.Omitted > 0 {
		c.warn("%s: %d more lines with no policy domain", name, list.Omitted)
	}
}

// showsProgress reports whether standard error is a terminal and may have a
// progress bar.
func (g *globals) showsProgress(c console) bool {
	f, ok := c.err.(*os.File)
	if !ok || g.quiet {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// A warming is one run of the command.
type warming struct {
	console
	*globals
	client *admin.Client
	path   string
	total  int
	began  time.Time
	bar    bool

	mu     sync.Mutex
	drawn  time.Time
	broken error // that keeps it from going on
	counts warmCounts
}

// warmCounts are what became of domains.
type warmCounts struct {
	Domains  int `json:"domains"`
	Policies int `json:"policies"`
	Absent   int `json:"absent"`
	Failed   int `json:"failed"`
}

// add counts a domain that was retrieved.
func (n *warmCounts) add(rec admin.Record, now time.Time) {
	n.Domains++
	switch {
	case rec.Policy != "" && !rec.Expired(now):
		n.Policies++
	case rec.Error != "" && rec.Checked.IsZero(), rec.Failures > 0:
		n.Failed++
	default:
		n.Absent++
	}
}

func (n warmCounts) String() string {
	return fmt.Sprintf("%d domains: %d with a policy, %d without, %d failed", n.Domains, n.Policies, n.Absent, n.Failed)
}

// run has all domains retrieved.
func (w *warming) run(ctx context.Context, domains []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.draw(true)
	warm.Each(ctx, domains, func(ctx context.Context, domain string) {
		rec, err := w.client.Retrieve(ctx, domain, false)
		if _, refused := errors.AsType[*admin.Refusal](err); refused {
			rec, err = admin.Record{Domain: domain, Mode: admin.Absent, Error: err.Error(), Failures: 1}, nil
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if err == nil && w.json {
			err = written(json.NewEncoder(w.out).Encode(rec))
		}
		if err != nil {
			if w.broken == nil {
				w.broken = err
			}
			cancel()
			return
		}
		w.counts.add(rec, time.Now())
		w.draw(false)
	})
	if w.bar {
		fmt.Fprint(w.console.err, "\r\x1b[K")
	}
	if w.broken != nil {
		if _, ok := errors.AsType[*failure](w.broken); ok {
			return w.broken
		}
		return uncontrolled(w.path, w.broken)
	}
	if w.json {
		return nil
	}
	_, err := fmt.Fprintln(w.out, w.counts)
	return written(err)
}

// draw draws the progress bar, a few times a second.
func (w *warming) draw(begin bool) {
	now := time.Now()
	if !w.bar || !begin && now.Sub(w.drawn) < 200*time.Millisecond {
		return
	}
	w.drawn = now
	_, _ = io.WriteString(w.console.err, "\r"+progress(w.counts, w.total, now.Sub(w.began))+"\x1b[K")
}

// progress is a bar of less than 80 characters.
func progress(n warmCounts, total int, took time.Duration) string {
	const width = 24
	done := width * n.Domains / max(total, 1)
	line := fmt.Sprintf("[%s%s] %d/%d, %d with a policy", strings.Repeat("#", done), strings.Repeat(".", width-done), n.Domains, total, n.Policies)
	if n.Domains > 0 && n.Domains < total {
		left := time.Duration(float64(took) / float64(n.Domains) * float64(total-n.Domains))
		line += fmt.Sprintf(", %s left", brief(left))
	}
	return line
}

// warm retrieves the domains that a file names, if there is one, behind all that
// mail waits for.
func (d *daemon) warm(ctx context.Context, path string) {
	if path == "" {
		return
	}
	list, err := readDomains(path)
	if err != nil {
		d.log.Warn("cache.warm cannot be read, domains are met when mail goes there", "error", err.Error())
		return
	}
	var mu sync.Mutex
	var n warmCounts
	began := time.Now()
	warm.Each(ctx, list.Domains, func(ctx context.Context, domain string) {
		entry, err := d.engine.Retrieve(ctx, domain, false)
		rec := admin.RecordOf(entry)
		if err != nil {
			rec.Failures++
		}
		mu.Lock()
		defer mu.Unlock()
		n.add(rec, time.Now())
	})
	if ctx.Err() == nil {
		d.log.Info("domains of cache.warm are known", "domains", n.Domains, "policies", n.Policies, "absent", n.Absent,
			"failed", n.Failed, "bad_lines", len(list.Bad)+list.Omitted, "took", time.Since(began).Round(time.Second))
	}
}
