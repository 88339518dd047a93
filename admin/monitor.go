// Package admin shows the people who run the daemon what happens: in the log,
// in metrics, on a status page and on the control socket.
//
// It decides nothing and delays no answer. It learns of lookups and fetches
// from policy.Event alone, and the caller provides the rest of a Status.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"stsmap/cache"
	"stsmap/policy"
	"stsmap/sts"
)

// quietFor is how long the same kind of failure makes no second log line. What
// breaks for one domain often breaks for all of them.
const quietFor = time.Minute

// dailyFailures is about how often a refresh is tried in a day once it is
// tried hourly: a policy that cannot be refreshed warns once a day.
const dailyFailures = 24

// A Monitor turns events into log lines and counts. Its methods may be called
// concurrently.
type Monitor struct {
	log     *slog.Logger
	lookups atomic.Value                                   // string: which lookups make a line
	counts  [policy.Replied + 1][policy.Missed + 1]counter // of answers, by policy.Kind and policy.Source
	changes [changeKinds]counter                           // of policies
	dane    atomic.Value                                   // string: "on", or "off: " and why; nothing until it is known

	mu        sync.Mutex
	quiet     map[trouble]*silence // to what was not logged of it
	withdrawn map[string]bool      // domains with a policy in force but without a record
}

// A trouble is a kind of failure. Those of domains with a policy, or a DANE
// result, in force count for themselves, so that junk cannot cover them up.
type trouble struct {
	kind    policy.EventKind
	inForce bool
}

// A silence is about repeated failures of one kind.
type silence struct {
	since   time.Time // when a line was last written
	omitted int       // lines that were not written since
}

// NewMonitor returns a Monitor that writes to log. lookups says which lookups
// make a line: "none", "changes" or "all".
func NewMonitor(log *slog.Logger, lookups string) *Monitor {
	m := &Monitor{log: log, quiet: make(map[trouble]*silence), withdrawn: make(map[string]bool)}
	m.LogLookups(lookups)
	return m
}

// LogLookups changes which lookups make a line: "none", "changes" (an answer
// that differs from the last one for its domain) or "all".
func (m *Monitor) LogLookups(which string) { m.lookups.Store(which) }

// Answers is how many answers there were so far.
func (m *Monitor) Answers() (n int64) {
	for k := range policy.Kind(len(m.counts)) {
		n += m.answers(k)
	}
	return n
}

// answers is how many there were of a kind.
func (m *Monitor) answers(k policy.Kind) (n int64) {
	for i := range m.counts[k] {
		n += int64(m.counts[k][i].Load())
	}
	return n
}

// sources is how many answers there were from each policy.Source.
func (m *Monitor) sources() (all [policy.Missed + 1]uint64) {
	for k := range m.counts {
		for i := range all {
			all[i] += m.counts[k][i].Load()
		}
	}
	return all
}

// Counts has the answers so far by the word for their policy.Kind.
func (m *Monitor) Counts() map[string]int64 {
	all := make(map[string]int64)
	for k := range policy.Kind(len(m.counts)) {
		all[k.String()] = m.answers(k)
	}
	return all
}

// Summary is one line about the answers so far and about DANE, for the service
// manager.
func (m *Monitor) Summary() string {
	line := fmt.Sprintf("%d answers: ", m.Answers())
	for i, k := range kinds() {
		if i > 0 {
			line += ", "
		}
		line += fmt.Sprintf("%d %s", m.answers(k), k)
	}
	if n := m.answers(policy.Replied); n > 0 { // omitted if 0: few sites have such overrides
		line += fmt.Sprintf(", %d %s", n, policy.Replied)
	}
	if state, ok := m.dane.Load().(string); ok {
		line += "; DANE " + state
	}
	return line
}

// kinds are those of answers, in the order in which people read of them.
func kinds() []policy.Kind {
	return []policy.Kind{policy.Enforce, policy.DANE, policy.DANEOnly, policy.Testing, policy.None, policy.Failed}
}

// Observe logs and counts an event; it is meant for policy.Config.Observe.
func (m *Monitor) Observe(ev policy.Event) {
	if ev.Kind == policy.Lookup {
		m.counts[ev.Decision.Kind][ev.Source].Add(1)
		if ev.First || m.lookups.Load() == "all" {
			m.logLookup(ev)
		}
		return
	}
	switch ev.Kind {
	case policy.DANEOn:
		m.dane.Store("on")
	case policy.DANEOff:
		m.dane.Store("off: " + cut(ev.Err.Error(), 100))
	}
	if ev.Kind == policy.StoreFailed && errors.Is(ev.Err, cache.ErrUnreachable) {
		return // cache.Breaker reported that, once
	}
	change, changed := m.changeOf(ev)
	if changed {
		m.changes[change].Add(1)
	}
	level, message, attrs := describe(ev)
	if change == removed && ev.Kind == policy.RecordAbsent {
		level, message, attrs = describeWithdrawn(ev)
	}
	ctx := context.Background()
	if !m.log.Enabled(ctx, level) {
		return
	}
	if omitted, repeated := m.repeated(ev); repeated {
		return
	} else if omitted > 0 {
		attrs = append(attrs, slog.Int("omitted", omitted))
	}
	m.log.LogAttrs(ctx, level, message, attrs...)
}

// logLookup writes the line of an answer. The usual answer, without a policy,
// is of level debug.
func (m *Monitor) logLookup(ev policy.Event) {
	which, level := m.lookups.Load(), slog.LevelInfo
	if which == "none" {
		return
	}
	if which == "changes" && ev.Decision.Kind == policy.None {
		level = slog.LevelDebug
	}
	m.log.LogAttrs(context.Background(), level, "lookup", slog.String("domain", ev.Domain),
		slog.String("decision", ev.Decision.Kind.String()), slog.String("reason", ev.Decision.String()))
}

// repeated reports whether such a failure was logged a moment ago, and
// otherwise how many were left out since.
func (m *Monitor) repeated(ev policy.Event) (omitted int, repeated bool) {
	switch ev.Kind {
	case policy.StoreFailed, policy.RecordFailed, policy.DANEFailed, policy.FetchEnded, policy.ResourcesShort:
	default:
		return 0, false
	}
	kind := trouble{ev.Kind, ev.After != nil && ev.After.Policy != "" || ev.DANE != nil}
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.quiet[kind]
	if q == nil {
		q = new(silence)
		m.quiet[kind] = q
	}
	if time.Since(q.since) < quietFor {
		q.omitted++
		return 0, true
	}
	omitted, q.omitted, q.since = q.omitted, 0, time.Now()
	return omitted, false
}

// describe says what the log says of ev.
func describe(ev policy.Event) (level slog.Level, message string, attrs []slog.Attr) {
	switch ev.Kind {
	case policy.DANEOn, policy.DANEOff, policy.DANEChecked, policy.DANEFailed:
		return describeDANE(ev)
	case policy.OverrideUsed:
		return describeOverride(ev)
	}
	attrs = []slog.Attr{slog.String("domain", ev.Domain)}
	failed := func() { attrs = append(attrs, slog.String("error", shorten(ev.Err.Error()))) }
	switch ev.Kind {
	case policy.PolicyNew:
		return slog.LevelInfo, "policy found", append(attrs, policyAttrs(ev.After.ID, ev.After.Policy)...)
	case policy.PolicyChanged:
		if len(ev.Weaker) > 0 {
			return describeWeaker(ev, attrs)
		}
		return slog.LevelInfo, "policy changed", append(attrs, policyAttrs(ev.After.ID, ev.After.Policy)...)
	case policy.PolicyRenewed:
		return slog.LevelDebug, "policy renewed", attrs
	case policy.PolicyGone:
		return slog.LevelInfo, "policy expired and not replaced", attrs
	case policy.RecordAbsent:
		return slog.LevelDebug, "no record", attrs
	case policy.RecordInvalid:
		failed()
		return slog.LevelInfo, "record does not count", attrs
	case policy.RecordFailed:
		failed()
		if ev.After != nil && modeNone(ev.After.Policy) {
			return slog.LevelDebug, "record could not be looked up", attrs
		}
		return slog.LevelWarn, "record could not be looked up", attrs
	case policy.PolicyFailed:
		return policyFailed(ev, attrs)
	case policy.Recovered:
		return slog.LevelDebug, "failure is over", attrs
	case policy.PolicyExpiring:
		failed()
		return slog.LevelWarn, "policy will lapse within a day, and cannot be refreshed", append(attrs, slog.Time("expires", ev.After.Expires))
	case policy.StoreFailed:
		failed()
		return slog.LevelError, "store failed; answers go on from memory", attrs
	case policy.FetchEnded:
		failed()
		return slog.LevelWarn, "fetch ended early", attrs
	case policy.ResourcesShort:
		failed()
		return slog.LevelError, "descriptors or memory exhausted; no fetch was possible", attrs
	case policy.Panicked:
		failed()
		return slog.LevelError, "bug: retrieval panicked", append(attrs, slog.String("stack", string(ev.Stack)))
	}
	return slog.LevelError, "bug: unknown event", attrs
}

// policyFailed says that a policy could not be downloaded, as loudly as it
// matters (RFC 8461, Section 3.3: not at all for a policy in mode none).
func policyFailed(ev policy.Event, attrs []slog.Attr) (slog.Level, string, []slog.Attr) {
	attrs = append(attrs, slog.String("error", shorten(ev.Err.Error())), slog.String("result", ev.After.Result),
		slog.Int("failures", ev.After.Failures), slog.Time("retry", ev.After.Retry))
	if lost(ev) {
		return slog.LevelWarn, "policy expired and could not be retrieved, it is no longer in force", attrs
	}
	if ev.After.Policy == "" {
		return slog.LevelInfo, "policy could not be retrieved", attrs
	}
	level := slog.LevelWarn
	if modeNone(ev.After.Policy) || ev.After.Failures%dailyFailures != 1 {
		level = slog.LevelDebug
	}
	left := time.Until(ev.After.Expires).Round(time.Minute)
	return level, "policy could not be refreshed, the known one stays in force", append(attrs, slog.Duration("expires_in", left))
}

// modeNone reports whether a policy says that there is none, and so is nothing
// to be alarmed about (RFC 8461, Section 3.3).
func modeNone(text string) bool {
	p, err := sts.ParsePolicy([]byte(text))
	return err == nil && p.Mode == sts.None
}

// policyAttrs describes a policy.
func policyAttrs(id, text string) []slog.Attr {
	p, err := sts.ParsePolicy([]byte(text))
	if err != nil {
		return []slog.Attr{slog.String("id", id)}
	}
	names := make([]string, len(p.MX))
	for i, m := range p.MX {
		names[i] = string(m)
	}
	return []slog.Attr{
		slog.String("id", id),
		slog.String("mode", p.Mode.String()),
		slog.Duration("max_age", p.MaxAge),
		slog.String("mx", shorten(strings.Join(names, " "))),
	}
}

// shorten keeps what strangers can make long readable.
func shorten(s string) string { return cut(s, 300) }

// cut keeps about the first most bytes of s.
func cut(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
