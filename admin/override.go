package admin

import (
	"log/slog"
	"strings"
	"time"

	"stsmap/override"
	"stsmap/policy"
)

// An OverridesStatus tells about the exceptions of the administrator.
type OverridesStatus struct {
	// File is overrides.file; empty if there is none.
	File string `json:"file"`
	// Error is why the file as it is now does not count; those read before do.
	// Empty if it does.
	Error string `json:"error,omitempty"`
	// Read is when the overrides in force were read; zero if none ever were,
	// since there was an Error from the start on.
	Read time.Time `json:"read,omitzero"`
	// List has them, in the order of the file.
	List []OverrideStatus `json:"list"`
}

// An OverrideStatus is one of them.
type OverrideStatus struct {
	Domain  string    `json:"domain"` // with a dot before it: everything below
	Action  string    `json:"action"`
	Text    string    `json:"text,omitempty"`
	Until   time.Time `json:"until,omitzero"`
	Expired bool      `json:"expired"` // it does not count any more
	Reason  string    `json:"reason,omitempty"`
	Uses    *int64    `json:"uses,omitempty"` // answers since the daemon began; absent if it was not asked
}

// covers reports whether o is for a domain.
func (o OverrideStatus) covers(domain string) bool {
	return o.Domain == domain || strings.HasPrefix(o.Domain, ".") && strings.HasSuffix(domain, o.Domain)
}

// OverrideOf returns o as it is at the time now, without Uses.
func OverrideOf(o *override.Override, now time.Time) OverrideStatus {
	return OverrideStatus{
		Domain: o.Domain, Action: o.Action.String(), Text: o.Text, Until: o.Until, Expired: o.Expired(now), Reason: o.Reason,
	}
}

// CountedOverride is OverrideOf with Uses.
func CountedOverride(o *override.Override, now time.Time) OverrideStatus {
	s, n := OverrideOf(o, now), o.Uses()
	s.Uses = &n
	return s
}

// OverrideAttrs are the attributes of an override in the log.
func OverrideAttrs(o *override.Override) []slog.Attr {
	attrs := []slog.Attr{slog.String("override", o.Domain), slog.String("action", o.Action.String())}
	if !o.Until.IsZero() {
		attrs = append(attrs, slog.Time("until", o.Until))
	}
	return append(attrs, slog.String("reason", o.Reason), slog.Int64("uses", o.Uses()))
}

// describeOverride is describe for the use of an override.
func describeOverride(ev policy.Event) (level slog.Level, message string, attrs []slog.Attr) {
	attrs = append([]slog.Attr{slog.String("domain", ev.Domain)}, OverrideAttrs(ev.Decision.Override)...)
	return slog.LevelInfo, "override used", attrs
}
