package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"stsmap/admin"
	"stsmap/policy"
	"stsmap/postfix"
)

func explainCommand(c console, g *globals) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "explain DOMAIN",
		Short: "Show what Postfix is told of a domain now, and why",
		Long: `Show what Postfix is told of DOMAIN now, every step that leads to it, and what
happened to the domain before. DOMAIN can be any key that Postfix sends. It goes the
way that a lookup goes, so a domain that is not known is asked, but it is no use of
the domain, and is not counted. The daemon is asked over its control socket.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, path, err := g.controlClient()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), askLimit)
			defer cancel()
			e, err := client.Explain(ctx, name, args[0])
			if err != nil {
				return uncontrolled(path, err)
			}
			if g.json {
				return written(json.NewEncoder(c.out).Encode(e))
			}
			return written(showExplanation(c.out, e, time.Now()))
		},
	}
	cmd.Flags().StringVar(&name, "map", "postfix", "socketmap name to explain it for")
	completeFlag(cmd, "map", g.mapNames())
	cmd.ValidArgsFunction = once(g.domains())
	return cmd
}

// explain answers a key as the handler would.
func (d *daemon) explain(ctx context.Context, e *admin.Explanation) *policy.Decision {
	x := d.handler.Load().Explain(ctx, e.Map, e.Key)
	e.MapKnown, e.Attributes = x.Known, x.Attributes
	e.Testing = [...]string{postfix.Ignore: "ignore", postfix.Report: "report", postfix.Enforce: "enforce"}[x.Map.Testing]
	e.Reply = admin.ReplyText{Status: x.Reply.Status.String(), Text: x.Reply.Text}
	return x.Decision
}

// shownHistory is how much of what happened is shown to people, and shownMX how
// many patterns of a policy.
const shownHistory, shownMX = 8, 10

// showExplanation prints e as it is at the time now, in the order in which it
// comes about.
func showExplanation(w io.Writer, e admin.Explanation, now time.Time) error {
	var out screen
	if e.Domain == "" {
		out.row("key", "%s: it has no policy domain, and is answered without looking", e.Key)
	} else {
		out.row("domain", "%s", e.Domain)
		if e.NextHop != e.Domain {
			out.row("next-hop", "%s", e.NextHop)
		}
	}
	out.explainMap(e)
	if e.Domain != "" {
		out.explainOverrides(e, now)
		out.remembered(e, now)
		out.daneFindings(e.DANE)
		out.row("decision", "%s", strings.TrimSuffix(e.Decision+": "+e.Reason, ": "))
		switch {
		case e.Until.After(now):
			out.row("", "holds until %s", moment(e.Until))
		case e.Override == nil || e.Override.Action == "enforce":
			out.row("", "for this one answer")
		}
	}
	out.row("Postfix", "%s, is sent policy attributes: %s", orElse(e.Postfix.Release, "release not known"), yesNo(e.Attributes))
	out.row("reply", "%s %s", e.Reply.Status, e.Reply.Text)
	out.history(e.History)
	_, err := io.WriteString(w, out.String())
	return err
}

// explainMap adds what the name of the map means.
func (s *screen) explainMap(e admin.Explanation) {
	text := e.Map
	if !e.MapKnown {
		text += " (not known, answered as postfix)"
	}
	s.row("map", "%s; policies in mode testing: %s", text, e.Testing)
}

// explainOverrides adds the override in force, and the others for the domain.
func (s *screen) explainOverrides(e admin.Explanation, now time.Time) {
	label := "override"
	if e.Override != nil {
		s.row(label, "%s", overrideText(*e.Override, now))
		label = ""
	}
	for _, o := range e.Others {
		why := "does not count"
		switch {
		case o.Expired:
		case e.Override != nil:
			why += ", another is more specific"
		case o.Action == "enforce":
			why += ", there is no policy in mode testing"
		}
		s.row(label, "%s (%s)", overrideText(o, now), why)
		label = ""
	}
}

// remembered adds the cached record of the domain.
func (s *screen) remembered(e admin.Explanation, now time.Time) {
	rec := e.Record
	switch {
	case e.StoreError != "":
		s.row("policy", "not known, the store cannot be read: %s", e.StoreError)
		return
	case rec == nil:
		s.row("policy", "nothing is remembered of the domain")
		return
	case rec.Policy == "":
		s.row("policy", "none is known")
	case rec.Expired(now):
		s.row("policy", "mode %s, id %s, has expired", rec.Mode, rec.ID)
	default:
		s.row("policy", "mode %s, id %s", rec.Mode, rec.ID)
	}
	line := func(what string, t time.Time) {
		if t.IsZero() {
			return
		}
		var one screen
		one.when("", t, now)
		s.row("", "%s %s", what, strings.TrimSpace(one.String()))
	}
	if rec.Policy != "" {
		more := ""
		if n := len(rec.MX) - shownMX; n > 0 {
			more = fmt.Sprintf(" and %d more: stsmap cache show %s", n, rec.Domain)
		}
		s.row("", "mx %s%s", strings.Join(rec.MX[:min(len(rec.MX), shownMX)], " "), more)
		line("downloaded", rec.Fetched)
		line("expires", rec.Expires)
		line("to be downloaded again", rec.Refresh)
	}
	line("record looked at", rec.Checked)
	line("record looked at again on use from", rec.Recheck)
	if rec.Error != "" {
		s.row("failure", "%s", rec.Error)
		if rec.Failures > 0 {
			s.row("", "%d in a row, for id %s (%s)", rec.Failures, rec.FailedID, rec.Result)
		}
		line("next attempt", rec.Retry)
	}
}

// daneFindings adds the DANE findings.
func (s *screen) daneFindings(f *admin.DANEFindings) {
	switch {
	case f == nil:
		return
	case f.State != "on":
		s.row("DANE", "%s", f.State)
		for _, reason := range f.Reasons {
			s.row("", "- %s", reason)
		}
		return
	case !f.Looked && f.Error != "":
		s.row("DANE", "could not be determined: %s", f.Error)
		return
	case !f.Looked:
		s.row("DANE", "not looked up: it does not matter here")
		return
	}
	text := "MX records insecure"
	if f.MXSecure {
		text = "MX records secure"
	}
	if f.NoMail {
		text += ", the domain takes no mail"
	}
	s.row("DANE", "%s", text)
	for _, h := range f.Hosts {
		text := h.Name + " " + h.State
		if h.Base != "" && h.Base != h.Name {
			text += " (records of " + h.Base + ")"
		}
		if h.Error != "" {
			text += ": " + h.Error
		}
		s.row("", "%s", text)
	}
	if f.Error != "" && !slices.ContainsFunc(f.Hosts, func(h admin.DANEHost) bool { return h.Error == f.Error }) {
		s.row("", "cannot be renewed: %s", f.Error)
	}
}

// history adds what happened.
func (s *screen) history(all []admin.Change) {
	label := "history"
	for _, c := range all[:min(len(all), shownHistory)] {
		times := ""
		if c.Count > 1 {
			times = fmt.Sprintf(" (%d times since %s)", c.Count, c.First.Local().Format("2006-01-02 15:04:05"))
		}
		text := strings.TrimSuffix(c.Message+times+": "+c.Text, ": ")
		s.row(label, "%s %s", c.Time.Local().Format("2006-01-02 15:04:05"), text)
		label = ""
	}
	if label != "" {
		s.row(label, "nothing has happened since the daemon began")
	}
}
