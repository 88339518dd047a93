package admin

import (
	"errors"
	"log/slog"
	"strconv"
	"strings"

	"stsmap/dane"
	"stsmap/policy"
)

// ErrDANEMode is why DANE is off where the administrator wants it so: nothing
// to be warned of.
var ErrDANEMode = errors.New(`dane.mode = "off"`)

// describeDANE is describe for what happens to DANE.
func describeDANE(ev policy.Event) (level slog.Level, message string, attrs []slog.Attr) {
	switch ev.Kind {
	case policy.DANEOn:
		return slog.LevelInfo, "DANE is on", nil
	case policy.DANEOff:
		// In full: it is written by this program, and says what to do.
		attrs = []slog.Attr{slog.String("error", ev.Err.Error())}
		if errors.Is(ev.Err, ErrDANEMode) {
			return slog.LevelInfo, "DANE is off, policies are answered where DANE may apply", attrs
		}
		return slog.LevelWarn, "DANE is off, policies are answered where DANE may apply", attrs
	case policy.DANEChecked:
		return slog.LevelDebug, "DANE looked up", []slog.Attr{
			slog.String("domain", ev.Domain), slog.Bool("mx_secure", ev.DANE.MXSecure), slog.String("hosts", hosts(ev.DANE))}
	}
	return slog.LevelWarn, "DANE could not be determined", []slog.Attr{
		slog.String("domain", ev.Domain), slog.String("error", shorten(ev.Err.Error())), slog.Bool("known", ev.DANE != nil)}
}

// hosts counts the MX hosts of a result by their state.
func hosts(r *dane.Result) string {
	if r.NoMail {
		return "no mail"
	}
	var all []string
	for s := dane.None; s <= dane.Unresolved; s++ {
		if n := r.Count(s); n > 0 {
			all = append(all, strconv.Itoa(n)+" "+s.String())
		}
	}
	return strings.Join(all, ", ")
}
