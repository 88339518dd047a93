package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"stsmap/admin"
)

// A row is a record in one line of a table.
type row struct{ domain, mode, age, left, note string }

// rowOf returns rec as it is at the time now.
func rowOf(rec admin.Record, now time.Time) row {
	r := row{domain: rec.Domain, mode: rec.Mode, age: "-", left: "-"}
	if at := rec.Learned(); !at.IsZero() {
		r.age = brief(now.Sub(at))
	}
	switch {
	case rec.Expired(now):
		r.left = "expired"
	case !rec.Expires.IsZero():
		r.left = brief(rec.Expires.Sub(now))
	}
	if r.note = rec.Error; rec.Failures > 0 {
		r.note = fmt.Sprintf("failed %dx: %s", rec.Failures, rec.Error)
	}
	return r
}

// brief is a duration in its greatest unit.
func brief(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= time.Minute:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// printRows prints a table, by domain, in lines of statusWidth characters unless
// a domain is longer than most.
func printRows(w io.Writer, rows []row) error {
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(a.domain, b.domain) })
	width := len("DOMAIN")
	for _, r := range rows {
		width = min(max(width, len(r.domain)), 36)
	}
	var out strings.Builder
	for _, r := range append([]row{{"DOMAIN", "MODE", "AGE", "LEFT", "LAST FAILURE"}}, rows...) {
		line := fmt.Sprintf("%-*s  %-7s  %5s  %7s  %s", width, r.domain, r.mode, r.age, r.left, r.note)
		line = strings.TrimRight(escaped(line), " ")
		if len(line) > statusWidth && len(r.domain) <= width {
			line = strings.ToValidUTF8(line[:statusWidth-3], "") + "..."
		}
		out.WriteString(line + "\n")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// outcome describes the record of a domain in a few words.
func outcome(rec admin.Record, now time.Time) string {
	text := "no policy"
	switch {
	case rec.Expired(now):
		text = "policy has expired"
	case rec.Policy != "":
		text = fmt.Sprintf("policy in mode %s, id %s, expires in %s", rec.Mode, rec.ID, brief(rec.Expires.Sub(now)))
	}
	if rec.Error != "" {
		text += "; " + rec.Error
	}
	return text
}

// showRecord prints all of rec as it is at the time now.
func showRecord(w io.Writer, rec admin.Record, now time.Time) error {
	var out screen
	out.row("domain", "%s", rec.Domain)
	out.row("mode", "%s", rec.Mode)
	out.row("id", "%s", rec.ID)
	out.row("mx", "%s", strings.Join(rec.MX, " "))
	if rec.MaxAge > 0 {
		out.row("max_age", "%d (%s)", rec.MaxAge, brief(time.Duration(rec.MaxAge)*time.Second))
	}
	out.when("fetched", rec.Fetched, now)
	out.when("expires", rec.Expires, now)
	out.when("checked", rec.Checked, now)
	out.when("recheck", rec.Recheck, now)
	out.when("refresh", rec.Refresh, now)
	out.when("used", rec.Used, now)
	if rec.Failures > 0 {
		out.row("failures", "%d in a row, for id %s", rec.Failures, rec.FailedID)
	}
	out.row("error", "%s", rec.Error)
	out.row("result", "%s", rec.Result)
	out.when("retry", rec.Retry, now)
	label := "policy"
	for line := range strings.Lines(rec.Policy) {
		// Not a row, which would break it where it likes.
		fmt.Fprintf(&out, "%-*s%s\n", labelWidth, label, escaped(strings.TrimRight(line, "\r\n")))
		label = ""
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// when adds a time, of the past or of the future; the zero time is left out.
func (s *screen) when(label string, t, now time.Time) {
	switch {
	case t.IsZero():
	case t.After(now):
		s.row(label, "%s (in %s)", moment(t), admin.Span(t.Sub(now)))
	default:
		s.row(label, "%s", ago(t, now))
	}
}
