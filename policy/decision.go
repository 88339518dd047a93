package policy

import (
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"stsmap/dane"
	"stsmap/override"
	"stsmap/sts"
)

// A Kind is what a decision means for mail.
type Kind uint8

// The kinds of decisions.
const (
	// None means that no policy is in force: the domain has none, or one in
	// mode none, or none that could be fetched (RFC 8461, Section 3.3).
	None Kind = iota
	// Testing means a policy that must not keep mail from being delivered
	// (RFC 8461, Section 5).
	Testing
	// Enforce means a policy that mail must not be delivered against.
	Enforce
	// Failed means that mail is deferred: nothing could be found out and the
	// administrator wants that, or the policy cannot be enforced as long as
	// DANE might apply.
	Failed
	// DANE means that MX hosts are to be authenticated with DANE where they
	// can be (RFC 7672, Section 2.2), and no policy is in force.
	DANE
	// DANEOnly means that mail must go only to MX hosts that can be
	// authenticated with DANE.
	DANEOnly
	// Replied means that an override has the text of the answer.
	Replied
)

// String returns the word for k that logs and metrics use.
func (k Kind) String() string {
	return [...]string{"none", "testing", "enforce", "failed", "dane", "dane-only", "said"}[k]
}

// A Decision says which policy applies to a next-hop, and why. It is shared and
// must not be changed.
type Decision struct {
	// What an answer reads stands first, for the processor's cache.

	until   int64 // monotonic: when the decision expires
	recheck int64 // monotonic: when something is to be looked up again on use
	from    *facts
	under   *conditions
	dane    *daneState // nil if DANE does not matter, or must not be used

	// Override is the override that decided. It is nil if there is none; one to
	// enforce decides only about a policy in testing mode.
	Override *override.Override
	// STS is the policy that MTA-STS would have in force: nil if there is none,
	// set for a policy in mode none. Of a Decision that an Engine returns it has
	// only the Mode.
	STS *sts.Policy

	answered   atomic.Bool // was given as an answer before
	overridden bool        // an override decided, whatever the facts are
	// Kind is what the decision means for mail.
	Kind Kind

	// Domain is the policy domain, in A-label form.
	Domain string
	// Answer is what Config.Render made of the policy, also where that is not
	// in force; empty if it was not called. This package never reads it.
	Answer string
	// NextHop is where the mail goes, in the form of dane.NextHop.
	NextHop string

	// ID is the version of the policy (RFC 8461, Section 3.1).
	ID string
	// Reason says why there is no policy, or why it is not in force; it is empty
	// if it is, or if DANE goes before it. It can contain what the domain
	// published, so that it must be escaped before it is printed.
	Reason string
	// DANE is what DNS says about DANE for the next-hop. It is nil if that is
	// not known or does not matter.
	DANE *dane.Result
	// Strict is the decision as if a policy in testing mode were in mode
	// enforce. It is set for such a policy, with Config.Strict.
	Strict *Decision
}

// newDecision returns what facts f and DANE state s mean for mail to h at now,
// under c. s is nil if DANE does not matter or must not be used; f can be nil
// where an override decides alone. It does no I/O.
func newDecision(h *hop, f *facts, s *daneState, c *conditions, now instant) *Decision {
	d := &Decision{NextHop: h.name, Domain: h.domain.name, from: f, under: c}
	kind, o := c.kindOf(h, f, now)
	if o != nil && o.Action != override.Enforce {
		d.setOverride(o, c)
		return d
	}
	d.Answer, d.STS, d.ID = f.answer(), f.policy, f.decoded(d.Domain).ID
	d.until, d.recheck = f.deadline, f.recheck
	if f.policy != nil {
		d.until = min(d.until, f.expires-c.drift)
	}
	if o != nil {
		d.Override = o
		d.endAt(o.Until, c)
	}
	if c.daneMatters(kind) && !c.dane.off() {
		if s == nil {
			d.until = -1 // DANE was switched on meanwhile
		} else {
			d.dane, d.DANE = s, s.result
			d.until, d.recheck = min(d.until, s.until), min(d.recheck, s.due)
		}
	}
	if c.strict && kind == Testing {
		strict := d.clone()
		strict.setKind(Enforce, f, c)
		d.Strict = strict
	}
	d.setKind(kind, f, c)
	return d
}

// kindOf returns what MTA-STS alone says of h by facts f at now, and the override
// that has a part in it: one that decides alone, or one that enforces a policy in
// testing mode. f can be nil where an override decides alone.
func (c *conditions) kindOf(h *hop, f *facts, now instant) (Kind, *override.Override) {
	o := c.override(h.domain.name, now.wall)
	switch {
	case o != nil && o.Action != override.Enforce:
		return None, o
	case f.bug || f.unknown && c.deferred:
		return Failed, nil
	case f.kind == Testing && o != nil:
		return Enforce, o
	}
	return f.kind, nil
}

// clone returns a copy of d that was never answered with.
func (d *Decision) clone() *Decision {
	return &Decision{
		NextHop: d.NextHop, Domain: d.Domain, Answer: d.Answer, until: d.until, recheck: d.recheck, from: d.from, under: d.under,
		dane: d.dane, Override: d.Override, STS: d.STS, ID: d.ID, DANE: d.DANE,
	}
}

// setOverride makes d the decision of o alone.
func (d *Decision) setOverride(o *override.Override, c *conditions) {
	d.Override, d.overridden, d.Reason = o, true, overrideReason(o)
	switch o.Action {
	case override.Reply:
		d.Kind = Replied
	case override.Defer:
		d.Kind = Failed
	}
	d.until, d.recheck = math.MaxInt64, math.MaxInt64
	d.endAt(o.Until, c)
}

// endAt has d expire at a time on the wall clock at the latest; the zero time
// means never.
func (d *Decision) endAt(t time.Time, c *conditions) {
	if !t.IsZero() {
		d.until = min(d.until, t.UnixNano()-c.drift)
	}
}

// setKind sets Kind and Reason, where MTA-STS alone says kind.
func (d *Decision) setKind(kind Kind, f *facts, c *conditions) {
	d.Kind, d.Reason = kind, f.noPolicy()
	if d.dane != nil && c.daneConfig.relevant(kind) {
		if k, reason := c.daneConfig.combine(kind, d.dane); k != kind {
			d.Kind, d.Reason = k, reason
		}
	}
	if d.Kind == Enforce && f.policy != nil && f.reason != "" {
		d.Kind, d.Reason = Failed, f.reason
	}
}

// inherit takes over from last, which d replaces, that the same answer was given
// before.
func (d *Decision) inherit(last *Decision) {
	if last.sameAnswer(d) {
		d.answered.Store(last.answered.Load())
	}
	if d.Strict != nil && last.Strict != nil && last.Strict.sameAnswer(d.Strict) {
		d.Strict.answered.Store(last.Strict.answered.Load())
	}
}

// sameAnswer reports whether d and other are the same answer for the same reason.
func (d *Decision) sameAnswer(other *Decision) bool {
	return d.Kind == other.Kind && d.STS == other.STS && d.ID == other.ID && d.Answer == other.Answer &&
		d.Reason == other.Reason && d.Override == other.Override
}

// String says what the decision rests on, in one line, to be escaped like Reason.
func (d *Decision) String() string {
	if d.Override != nil && d.Override.Action != override.Enforce {
		return d.Reason
	}
	var fetched int64
	noPolicy := ""
	if d.from != nil {
		fetched, noPolicy = d.from.fetched, d.from.noPolicy()
	}
	text := noPolicy
	if d.STS != nil {
		text = fmt.Sprintf("policy in mode %s, id %s, downloaded %s", d.STS.Mode, d.ID, time.Unix(0, fetched).UTC().Format(time.RFC3339))
	}
	if d.Reason != "" && d.Reason != noPolicy {
		text = strings.TrimSuffix(d.Reason+"; "+text, "; ")
	}
	if d.Override != nil {
		text = overrideReason(d.Override) + "; " + text
	}
	if d.DANE != nil {
		text += "; DANE: " + summary(d.DANE)
		if d.dane.conclusive && d.dane.err != nil {
			text += ", which cannot be renewed: " + d.dane.err.Error()
		}
	}
	return text
}

// DANEError returns why it could not be found out whether DANE applies to the
// next-hop, or why its last state cannot be renewed; nil if there is no
// such reason, or DANE does not matter. It is to be escaped like Reason.
func (d *Decision) DANEError() error {
	if d.dane == nil {
		return nil
	}
	return d.dane.err
}

// Expires returns when the decision expires: with its policy or absence, with
// the DANE state, or with an override. The zero time means at once, or
// if an override without an end decided, never.
func (d *Decision) Expires() time.Time {
	if d.until <= 0 || d.until == math.MaxInt64 || d.under == nil {
		return time.Time{}
	}
	return time.Unix(0, d.until+d.under.drift)
}

// overrideReason describes an override.
func overrideReason(o *override.Override) string {
	if o.Reason != "" {
		return "override: " + o.Reason
	}
	return "override"
}
