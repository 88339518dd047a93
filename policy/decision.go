package policy

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"stsmap/cache"
	"stsmap/sts"
)

// A Kind is what a decision means for mail.
type Kind uint8

// The kinds of decisions.
const (
	// None means that no policy is in force: the domain has none, or one in
	// mode none, or none that could be retrieved (RFC 8461, Section 3.3).
	None Kind = iota
	// Testing means a policy that must not keep mail from being delivered
	// (RFC 8461, Section 5).
	Testing
	// Enforce means a policy that mail must not be delivered against.
	Enforce
	// Failed means that nothing could be found out and that the administrator
	// wants mail to wait for it.
	Failed
)

// String returns the word for k that logs and metrics use.
func (k Kind) String() string {
	return [...]string{"none", "testing", "enforce", "failed"}[k]
}

// A Decision says which policy applies to a domain, and why. It is shared by
// all who asked and must not be changed.
//
// Many thousands are kept at hand, so what only people ask for is worked out
// when they do.
type Decision struct {
	// Domain is the policy domain, in A-label form.
	Domain string
	// Answer is what Config.Render made of the decision; empty if it was not
	// asked. This package never looks at it.
	Answer string

	until   int64        // when STS, or the knowledge that there is none, expires, in Unix nanoseconds
	recheck int64        // when to look at the record again on use, likewise
	used    atomic.Int64 // hour, since 1970, in which use was last noted
	told    atomic.Bool  // whether the decision was ever given as an answer

	// Kind is what the decision means for mail. What stands up to here is
	// what an answer needs, next to each other for the processor's cache.
	Kind Kind
	// STS is the policy that the decision follows from. It is nil if there is
	// none, and set for a policy in mode none.
	STS *sts.Policy
	// ID is the version of the policy (RFC 8461, Section 3.1).
	ID string
	// Reason tells people why there is no policy; it is empty if there is
	// one. It can contain what the domain published, so whoever prints it has
	// to escape it.
	Reason string

	fetched int64 // when STS was downloaded, in Unix nanoseconds
}

// attach sets Answer, in one piece of memory with Domain: whoever reads the one
// has just compared the other. With many thousand domains in use the time of
// an answer is the time that its pieces take to come into the processor.
func (d *Decision) attach(answer string) {
	piece := d.Domain + answer
	d.Domain, d.Answer = piece[:len(d.Domain)], piece[len(d.Domain):]
}

// String tells people what the decision rests on, in one line, to be escaped
// like Reason.
func (d *Decision) String() string {
	if d.STS == nil {
		return d.Reason
	}
	return fmt.Sprintf("policy in mode %s, id %s, downloaded %s", d.STS.Mode, d.ID, time.Unix(0, d.fetched).UTC().Format(time.RFC3339))
}

// says reports whether d and other are the same answer for the same reason.
func (d *Decision) says(other *Decision) bool {
	if d.Kind != other.Kind || d.ID != other.ID || d.Reason != other.Reason || (d.STS == nil) != (other.STS == nil) {
		return false
	}
	return d.STS == nil || slices.Equal(d.STS.MX, other.STS.MX)
}

// Expires returns when the policy, or the knowledge that there is none, stops
// to count. The zero time means at once.
func (d *Decision) Expires() time.Time {
	if d.until == 0 {
		return time.Time{}
	}
	return time.Unix(0, d.until)
}

// decide says what is known about a domain means at the time now. It is the
// only place that does.
func decide(e cache.Entry, now time.Time) *Decision {
	d := &Decision{Domain: e.Domain, until: nanos(e.Expires), recheck: nanos(e.Recheck)}
	d.used.Store(e.Used.Unix() / 3600)
	if !holds(e, now) {
		d.Reason = absence(e)
		return d
	}
	p, err := sts.ParsePolicy([]byte(e.Policy))
	if err != nil {
		// It parsed when it was stored: a disk that lies, or a store that
		// somebody else wrote to. Not knowing is right, guessing is not.
		d.Reason, d.until = "stored policy is unreadable: "+err.Error(), 0
		return d
	}
	// The lines take as much memory as the text, which the store has.
	p.Lines = nil
	d.STS, d.ID, d.fetched = p, e.ID, nanos(e.Fetched)
	switch p.Mode {
	case sts.Enforce:
		d.Kind = Enforce
	case sts.Testing:
		d.Kind = Testing
	}
	return d
}

// holds reports whether e has a policy that still counts (RFC 8461, Section
// 5.1: as long as the time since it was fetched has not exceeded max_age).
func holds(e cache.Entry, now time.Time) bool {
	return e.Policy != "" && !now.After(e.Expires)
}

// absence tells why there is no policy.
func absence(e cache.Entry) string {
	if e.Error != "" {
		return e.Error
	}
	return "no MTA-STS record"
}

// nanos is t in Unix nanoseconds, and 0 for the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
