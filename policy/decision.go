package policy

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/override"
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
	// wants mail to wait for it, or that the policy cannot be put into force
	// as long as DANE might apply.
	Failed
	// DANE means that MX hosts are to be authenticated with DANE where they
	// can be (RFC 7672, Section 2.2), and no policy is in force.
	DANE
	// DANEOnly means that mail must go only to MX hosts that can be
	// authenticated with DANE.
	DANEOnly
	// Said means that the administrator has said what to answer, with an
	// override: see Decision.Override.
	Said
)

// String returns the word for k that logs and metrics use.
func (k Kind) String() string {
	return [...]string{"none", "testing", "enforce", "failed", "dane", "dane-only", "said"}[k]
}

// A Decision says which policy applies to a domain, and why. It is shared by
// all who asked and must not be changed.
//
// Many thousands are kept at hand, so what only people ask for is worked out
// when they do.
type Decision struct {
	// NextHop is where the mail goes, in the form of dane.NextHop.
	NextHop string
	// Domain is the policy domain, in A-label form. It is part of NextHop.
	Domain string
	// Answer is what Config.Render made of the policy, whatever became of that;
	// empty if it was not asked. This package never looks at it.
	Answer string

	// Override is the exception of the administrator that the decision is made
	// of. It is nil if there is none, and one to enforce only where a policy is
	// in mode testing.
	Override *override.Override

	until   int64        // when the decision stops to count, in Unix nanoseconds
	recheck int64        // when something has to be looked at again on use, likewise
	used    atomic.Int64 // hour, since 1970, in which use was last noted
	told    atomic.Bool  // whether the decision was ever given as an answer

	// Kind is what the decision means for mail. What stands up to here is
	// what an answer needs, next to each other for the processor's cache.
	Kind Kind

	standing Kind   // what MTA-STS alone means
	noMX     bool   // of the next-hop
	port     uint16 // of the next-hop

	// STS is the policy that MTA-STS would have in force. It is nil if there
	// is none, and set for a policy in mode none.
	STS *sts.Policy
	// ID is the version of the policy (RFC 8461, Section 3.1).
	ID string
	// Reason tells people why there is no policy, or why it is not in force;
	// it is empty if it is, or if DANE goes before it. It can contain what the
	// domain published, so whoever prints it has to escape it.
	Reason string
	// DANE is what DNS says about DANE for the next-hop. It is nil if that is
	// not known or does not matter.
	DANE *dane.Result

	// Strict is the decision that it would be if the policy were in mode
	// enforce. It is set for a policy in mode testing, with Config.Strict.
	Strict *Decision

	absence string          // why MTA-STS has no policy
	unfit   string          // why STS cannot be put into force: the error of Config.Render
	fetched int64           // when STS was downloaded, in Unix nanoseconds
	expires int64           // when STS, or the knowledge that there is none, expires, likewise
	record  int64           // when to look at the record again on use, likewise
	under   *override.Table // the overrides that it was decided under
	version uint64          // of the domain, when what it is made of was read
	found   *finding        // about DANE; nil if it does not matter
}

// attach puts Answer into one piece of memory with NextHop: whoever reads the
// one has just compared the other. With many thousand domains in use the time
// of an answer is the time that its pieces take to come into the processor.
func (d *Decision) attach() {
	piece := d.NextHop + d.Answer
	d.name(piece[:len(d.NextHop)], d.Domain)
	d.Answer = piece[len(d.NextHop):]
	if d.Strict != nil {
		d.Strict.NextHop, d.Strict.Domain, d.Strict.Answer = d.NextHop, d.Domain, d.Answer
	}
}

// inherit notes that what last, which d is to replace, said was told, as far as
// d says the same.
func (d *Decision) inherit(last *Decision) {
	if last.says(d) {
		d.told.Store(last.told.Load())
	}
	if d.Strict != nil && last.Strict != nil && last.Strict.says(d.Strict) {
		d.Strict.told.Store(last.Strict.told.Load())
	}
}

// name sets NextHop, and Domain to the part of it that is domain.
func (d *Decision) name(nextHop, domain string) {
	begin := 0
	if d.noMX {
		begin = len("[")
	}
	d.NextHop, d.Domain = nextHop, nextHop[begin:begin+len(domain)]
}

// hop is NextHop in its parts.
func (d *Decision) hop() dane.NextHop {
	return dane.NextHop{Domain: d.Domain, Port: d.port, NoMX: d.noMX}
}

// String tells people what the decision rests on, in one line, to be escaped
// like Reason.
func (d *Decision) String() string {
	if d.Override != nil && d.Override.Action != override.Enforce {
		return d.Reason
	}
	text := d.absence
	if d.STS != nil {
		text = fmt.Sprintf("policy in mode %s, id %s, downloaded %s", d.STS.Mode, d.ID, time.Unix(0, d.fetched).UTC().Format(time.RFC3339))
	}
	if d.Reason != "" && d.Reason != d.absence {
		text = strings.TrimSuffix(d.Reason+"; "+text, "; ")
	}
	if d.Override != nil {
		text = because(d.Override) + "; " + text
	}
	if d.DANE != nil {
		text += "; DANE: " + summary(d.DANE)
		if d.found.settled && d.found.err != nil {
			text += ", which cannot be renewed: " + d.found.err.Error()
		}
	}
	return text
}

// DANEError returns why it could not be found out whether DANE applies to the
// next-hop, or why what is known of it cannot be renewed; nil if there is no
// such reason, or DANE does not matter. It is to be escaped like Reason.
func (d *Decision) DANEError() error {
	if d.found == nil {
		return nil
	}
	return d.found.err
}

// says reports whether d and other are the same answer for the same reason.
func (d *Decision) says(other *Decision) bool {
	if d.Kind != other.Kind || d.standing != other.standing || d.ID != other.ID || d.Reason != other.Reason || d.Override != other.Override || (d.STS == nil) != (other.STS == nil) {
		return false
	}
	return d.STS == nil || slices.Equal(d.STS.MX, other.STS.MX)
}

// Expires returns when the decision stops to count: when the policy expires or
// the knowledge that there is none, or what is known about DANE. The zero time
// means at once.
func (d *Decision) Expires() time.Time {
	if d.until == 0 {
		return time.Time{}
	}
	return time.Unix(0, d.until)
}

// decide says what is known about a domain means at the time now, as far as
// MTA-STS goes. It is for mail to the domain itself; see with for other
// next-hops and for DANE.
func decide(e cache.Entry, now time.Time) *Decision {
	d := &Decision{NextHop: e.Domain, Domain: e.Domain}
	d.used.Store(e.Used.Unix() / 3600)
	d.lasts(nanos(e.Expires), nanos(e.Recheck))
	if !holds(e, now) {
		d.lacks(absence(e))
		return d
	}
	p, err := sts.ParsePolicy([]byte(e.Policy))
	if err != nil {
		// It parsed when it was stored: a disk that lies, or a store that
		// somebody else wrote to. Not knowing is right, guessing is not.
		d.lacks("stored policy is unreadable: " + err.Error())
		d.lasts(0, d.record)
		return d
	}
	d.STS, d.ID, d.fetched = p, e.ID, nanos(e.Fetched)
	switch p.Mode {
	case sts.Enforce:
		d.standing = Enforce
	case sts.Testing:
		d.standing = Testing
	}
	d.Kind = d.standing
	return d
}

// decide is the function decide, of what f has found out, with what
// Config.Render makes of the policy.
func (e *Engine) decide(f *flight, entry cache.Entry, now time.Time) *Decision {
	d := decide(entry, now)
	d.under, d.version = e.overrides.Load(), f.version
	if d.STS == nil {
		return d
	}
	d.enforceTesting(now)
	if e.render != nil && d.standing != None {
		var err error
		if d.Answer, err = e.render(d); err != nil {
			d.unfit = err.Error()
		}
	}
	d.STS.Lines = nil
	d.STS.MX = compact(d.STS.MX)
	return d
}

// compact returns patterns that do not keep the text of their policy in memory.
// That of every decision at hand would be, and the store has it.
func compact(patterns []sts.Pattern) []sts.Pattern {
	var b strings.Builder
	for _, p := range patterns {
		b.WriteString(string(p))
	}
	out, rest := make([]sts.Pattern, len(patterns)), b.String()
	for i, p := range patterns {
		out[i], rest = sts.Pattern(rest[:len(p)]), rest[len(p):]
	}
	return out
}

// lasts sets when what MTA-STS says expires, and when the record is to be
// looked at again, in Unix nanoseconds.
func (d *Decision) lasts(expires, record int64) {
	d.expires, d.record = expires, record
	d.until, d.recheck = expires, record
}

// lacks sets why there is no policy.
func (d *Decision) lacks(why string) { d.absence, d.Reason = why, why }

// otherHop is how long a decision about a next-hop other than its policy domain
// is at hand. What becomes known about the domain replaces only the decision
// about the domain itself.
const otherHop = time.Minute

// replaced returns until when a decision made now about a next-hop other than
// its policy domain is at hand: until the record is looked at again, if that is
// not just happening.
func (d *Decision) replaced(now time.Time) int64 {
	if d.record <= now.UnixNano() {
		return now.Add(time.Second).UnixNano()
	}
	return min(d.record, now.Add(otherHop).UnixNano())
}

// with returns what d, about any next-hop of its domain, means for hop together
// with f, which is nil if DANE may not be used. It does not change d.
func (d *Decision) with(hop dane.NextHop, f *finding, s *settings, now time.Time) *Decision {
	n := d.about(hop, f, s, now)
	n.means(d.standing, s.dane)
	if s.strict && d.standing == Testing {
		n.Strict = d.about(hop, f, s, now)
		n.Strict.means(Enforce, s.dane)
	}
	return n
}

// about returns all that with does but what it means for mail.
func (d *Decision) about(hop dane.NextHop, f *finding, s *settings, now time.Time) *Decision {
	n := &Decision{
		standing: d.standing, noMX: hop.NoMX, port: hop.Port, Answer: d.Answer,
		STS: d.STS, ID: d.ID, absence: d.absence, unfit: d.unfit, fetched: d.fetched,
		Override: d.Override, under: d.under,
	}
	n.name(hop.String(), d.Domain)
	n.used.Store(d.used.Load())
	n.lasts(d.expires, d.record)
	if n.NextHop != n.Domain {
		n.until = min(n.until, n.replaced(now))
		n.recheck = n.until
	}
	if d.Override != nil && !d.Override.Until.IsZero() {
		n.until = min(n.until, d.Override.Until.UnixNano())
	}
	if f != nil && s.matters(d.standing) {
		n.found, n.DANE = f, f.result
		n.until, n.recheck = min(n.until, f.until), min(n.recheck, f.due)
	}
	return n
}

// means sets what d means for mail if MTA-STS says standing.
func (d *Decision) means(standing Kind, c DANEConfig) {
	d.Kind, d.Reason = standing, d.absence
	if d.found != nil && c.weighs(standing) {
		if k, reason := c.weigh(standing, d.found); k != standing {
			d.Kind, d.Reason = k, reason
		}
	}
	if d.Kind == Enforce && d.unfit != "" {
		d.Kind, d.Reason = Failed, d.unfit
	}
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
