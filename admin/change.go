package admin

import (
	"log/slog"
	"slices"
	"strings"
	"time"

	"stsmap/cache"
	"stsmap/policy"
	"stsmap/sts"
)

// A change is what became of the protection of a domain.
type change uint8

const (
	unchanged   change = iota
	appeared           // the first policy of a domain
	updated            // replaced by a policy that does not protect less
	weakened           // replaced by a policy that protects less
	removed            // replaced by a policy in mode none, or the record is absent while the policy is in force
	expired            // the policy has expired, and no other one replaced it
	changeKinds = iota
)

// String returns the word for c that metrics use.
func (c change) String() string {
	return [...]string{"unchanged", "new", "updated", "weakened", "removed", "expired"}[c]
}

// maxWithdrawn bounds how many domains with a withdrawn record are kept. If
// there are more, the set is cleared, and their withdrawal is reported a second
// time.
const maxWithdrawn = 10000

// changeOf returns what ev changed for its domain, and whether it did.
func (m *Monitor) changeOf(ev policy.Event) (c change, ok bool) {
	switch ev.Kind {
	case policy.PolicyNew:
		c = appeared
	case policy.PolicyChanged:
		c = updated
		switch {
		case slices.ContainsFunc(ev.Weaker, endsIt):
			c = removed
		case len(ev.Weaker) > 0:
			c = weakened
		}
	case policy.PolicyGone:
		c = expired
	case policy.PolicyFailed:
		if lost(ev) {
			c = expired
		}
	case policy.RecordAbsent:
		if withdrawn(ev) && m.isWithdrawn(ev.Domain) {
			c = removed
		}
		return c, c != unchanged
	}
	if c != unchanged {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.withdrawn, ev.Domain)
	}
	return c, c != unchanged
}

// withdrawn reports whether a domain with a policy in force has no record.
func withdrawn(ev policy.Event) bool { return ev.Kind == policy.RecordAbsent && protects(ev.After) }

// isWithdrawn notes that a domain with a policy in force has no record, and
// reports whether that is new. The record is rechecked every few minutes.
func (m *Monitor) isWithdrawn(domain string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.withdrawn[domain] {
		return false
	}
	if len(m.withdrawn) >= maxWithdrawn {
		clear(m.withdrawn)
	}
	m.withdrawn[domain] = true
	return true
}

// endsIt reports whether w takes a policy away, as RFC 8461, Section 8.3 has it
// done.
func endsIt(w sts.Weakening) bool { return w.Field == "mode" && w.After == sts.None.String() }

// lost reports whether a policy that could not be downloaded is not in force
// any more.
func lost(ev policy.Event) bool {
	return ev.After.Policy == "" && protects(ev.Before)
}

// protects reports whether e has a policy that is not in mode none.
func protects(e *cache.Entry) bool {
	return e != nil && e.Policy != "" && !modeNone(e.Policy)
}

// describeWeaker describes a policy that protects less than the one it
// replaces. A domain owner may have good reasons for that. An attacker with
// control of the policy host does the same.
func describeWeaker(ev policy.Event, attrs []slog.Attr) (slog.Level, string, []slog.Attr) {
	attrs = append(attrs, slog.String("weaker", weaknesses(ev.Weaker)), slog.String("id_before", ev.Before.ID))
	return slog.LevelWarn, "policy protects less than before", append(attrs, policyAttrs(ev.After.ID, ev.After.Policy)...)
}

// describeWithdrawn describes the absence of a domain's record. The policy
// stays in force until it expires (RFC 8461, Section 3.1).
func describeWithdrawn(ev policy.Event) (slog.Level, string, []slog.Attr) {
	return slog.LevelInfo, "record is gone, the policy stays in force until it expires", []slog.Attr{
		slog.String("domain", ev.Domain), slog.String("id", ev.After.ID),
		slog.Duration("expires_in", time.Until(ev.After.Expires).Round(time.Minute))}
}

// weaknesses puts all ways in which a policy became weaker into one line.
func weaknesses(all []sts.Weakening) string {
	var words []string
	for _, w := range all {
		words = append(words, w.String())
	}
	return shorten(strings.Join(words, "; "))
}
