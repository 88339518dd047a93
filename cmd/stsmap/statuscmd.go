package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"stsmap/admin"
	"stsmap/policy"
)

func statusCommand(c console, g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how the daemon is",
		Long: `Show how the daemon is: its answers so far, whether DANE can be used and if not
why, the resolver, and Postfix. It is asked over its control socket, admin.socket.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, path, err := g.controlClient()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), healthLimit)
			defer cancel()
			s, err := client.Status(ctx)
			if err != nil {
				return uncontrolled(path, err)
			}
			if g.json {
				return written(json.NewEncoder(c.out).Encode(s))
			}
			return written(showStatus(c.out, s, time.Now()))
		},
	}
}

// labelWidth is how far values stand to the right in a status; with them a line
// has statusWidth characters at most, unless a word is longer.
const (
	labelWidth  = 10
	statusWidth = 80
)

// A screen is a status as people read it: labels on the left, values on the
// right.
type screen struct {
	strings.Builder
}

// row adds one value; those after the first of a label have an empty one. What
// is empty is left out.
func (s *screen) row(label, format string, args ...any) {
	line := ""
	for word := range strings.FieldsSeq(escaped(fmt.Sprintf(format, args...))) {
		switch {
		case line == "":
			line = fmt.Sprintf("%-*s%s", labelWidth, label, word)
		case len(line)+1+len(word) > statusWidth:
			s.WriteString(line + "\n")
			line = strings.Repeat(" ", labelWidth) + word
		default:
			line += " " + word
		}
	}
	if line != "" {
		s.WriteString(line + "\n")
	}
}

// showStatus prints s as it is at the time now.
func showStatus(w io.Writer, s admin.Status, now time.Time) error {
	var out screen
	out.row("stsmap", "%s, up since %s", s.Version, ago(s.Since, now))
	for _, c := range s.Checks {
		if c.Error != "" {
			out.row("", "not ready: %s: %s", c.Name, c.Error)
		}
	}
	total := int64(0)
	var each []string
	for _, k := range []policy.Kind{policy.Enforce, policy.DANE, policy.DANEOnly, policy.Testing, policy.None, policy.Failed} {
		n := s.Answers[k.String()]
		total += n
		each = append(each, fmt.Sprintf("%d %s", n, k))
	}
	if n := s.Answers[policy.Replied.String()]; n > 0 {
		total += n
		each = append(each, fmt.Sprintf("%d %s", n, policy.Replied))
	}
	out.row("lookups", "%d: %s", total, strings.Join(each, ", "))
	since := ""
	if !s.DANE.Since.IsZero() {
		since = " since " + ago(s.DANE.Since, now)
	}
	out.row("DANE", "%s%s; dane.mode = %q", s.DANE.State, since, s.DANE.Mode)
	for _, reason := range s.DANE.Reasons {
		out.row("", "- %s", reason)
	}
	out.row("resolver", "%s", strings.Join(s.Resolver.Servers, ", "))
	out.condition("answering", s.Resolver.Answering, now)
	out.probeResult("validates", s.Resolver.Validates, now)
	out.row("Postfix", "%s", orElse(s.Postfix.Release, "release not known"))
	if s.Postfix.Error != "" {
		out.row("", "- %s", s.Postfix.Error)
	}
	out.row("", "policy attributes: %s", yesNo(s.Postfix.Attributes))
	out.probeResult("looks up DNSSEC", s.Postfix.DNSSEC, now)
	out.row("store", "%s", s.Store.Name)
	out.condition("reading", s.Store.Reading, now)
	out.condition("writing", s.Store.Writing, now)
	if s.Store.Waiting > 0 {
		out.row("", "%d policies wait in memory until they can be written", s.Store.Waiting)
	}
	out.cache(s)
	out.overrides(s.Overrides, now)
	out.failures(s, now)
	out.lapsing(s.Cache, now)
	out.changes(s.Changes, now)
	out.row("listen", "%s; %s", strings.Join(s.Listen, ", "), connectionWords(s.Connections))
	out.row("page", "%s", s.Admin)
	_, err := io.WriteString(w, out.String())
	return err
}

// finding adds what was found out, and when. Why not stands above, with DANE.
func (s *screen) probeResult(what string, f admin.ProbeResult, now time.Time) {
	switch {
	case f.Verdict == "":
		s.row("", "%s: not asked", what)
	case f.At.IsZero():
		s.row("", "%s: %s", what, f.Verdict)
	default:
		s.row("", "%s: %s, asked %s", what, f.Verdict, ago(f.At, now))
	}
	if f.Error != "" && f.Verdict != "unknown" {
		s.row("", "since then not known: %s", f.Error)
	}
}

// condition adds whether something works, if it ever did not.
func (s *screen) condition(what string, c admin.Condition, now time.Time) {
	switch {
	case c.Since.IsZero():
	case c.Error == "":
		s.row("", "%s: works again since %s", what, ago(c.Since, now))
	default:
		s.row("", "%s: fails since %s: %s", what, ago(c.Since, now), c.Error)
	}
}

// cache adds the counts of the cache, if they are known.
func (s *screen) cache(status admin.Status) {
	if v := status.Cache; v != nil {
		s.row("known", "%d policies enforced, %d testing, %d none; %d domains without", v.Modes["enforce"], v.Modes["testing"], v.Modes["none"], v.Modes[admin.Absent])
	}
	s.row("memory", "%d of %d domains", status.Memory.Entries, status.Memory.Most)
	if n := status.Memory.Policies; n > 0 {
		s.row("", "%d policies that counted were forgotten for want of room: raise cache.entries", n)
	}
}

// How much of each a status shows: it is one screen.
const maxTroubles, maxLapsing, maxChanges = 5, 3, 5

// failures adds what fails now.
func (s *screen) failures(status admin.Status, now time.Time) {
	label, all := "failing", status.Failures
	for _, f := range all[:min(len(all), maxTroubles)] {
		kept := ""
		if f.InForce {
			kept = " (what is known stays in force)"
		}
		s.row(label, "%s for %s: %s%s", f.Domain, admin.Span(now.Sub(f.Since)), f.Error, kept)
		label = ""
	}
	if more := len(all) + status.Omitted - maxTroubles; more > 0 {
		s.row("", "and %d more: stsmap cache list --failing", more)
	}
	if len(all) == 0 {
		s.row(label, "nothing")
	}
}

// lapsing adds the policies that expire soon, if there are any.
func (s *screen) lapsing(v *admin.Survey, now time.Time) {
	if v == nil {
		return
	}
	label := "lapsing"
	for _, l := range v.Soonest[:min(len(v.Soonest), maxLapsing)] {
		s.row(label, "%s in %s: %s", l.Domain, admin.Span(l.Expires.Sub(now)), l.Error)
		label = ""
	}
	if more := v.Lapsing - maxLapsing; more > 0 {
		s.row("", "and %d more within a day", more)
	}
}

// changes adds what happened lately.
func (s *screen) changes(all []admin.Change, now time.Time) {
	label := "changes"
	for _, c := range all[:min(len(all), maxChanges)] {
		text := strings.TrimSuffix(c.Message+": "+c.Text, ": ")
		s.row(label, "%s ago %s %s", admin.Span(now.Sub(c.Time)), c.Domain, text)
		label = ""
	}
}

// connectionWords tells how many connections there are.
func connectionWords(c admin.ConnectionStatus) string {
	n := 0
	for _, each := range c.Listeners {
		n += each
	}
	return fmt.Sprintf("%d connections, %d lookups under way", n, c.Busy)
}

// maxOverrides is how many overrides a status shows.
const maxOverrides = 10

// overrides adds the overrides, if there are any.
func (s *screen) overrides(o admin.OverridesStatus, now time.Time) {
	label := "overrides"
	for i, one := range o.List {
		if i == maxOverrides {
			s.row("", "and %d more: stsmap override list", len(o.List)-i)
			break
		}
		s.row(label, "%s", overrideText(one, now))
		label = ""
	}
	switch {
	case o.Error == "":
	case o.Read.IsZero():
		s.row(label, "not read, none counts: %s", o.Error)
	default:
		s.row(label, "not read, the old ones count: %s", o.Error)
	}
}

// overrideText describes an override.
func overrideText(o admin.OverrideStatus, now time.Time) string {
	text := o.Domain + " " + o.Action
	if o.Text != "" {
		text += fmt.Sprintf(" %q", o.Text)
	}
	switch {
	case o.Expired:
		text += ", expired " + ago(o.Until, now)
	case !o.Until.IsZero():
		text += ", until " + moment(o.Until)
	}
	if o.Uses != nil {
		text += fmt.Sprintf(", used %d %s", *o.Uses, map[bool]string{true: "time", false: "times"}[*o.Uses == 1])
	}
	if o.Reason != "" {
		text += ": " + o.Reason
	}
	return text
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// ago is a time of the past, and how long ago that is.
func ago(t, now time.Time) string {
	return fmt.Sprintf("%s (%s ago)", moment(t), admin.Span(now.Sub(t)))
}

// moment is a time in this machine's zone.
func moment(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }
