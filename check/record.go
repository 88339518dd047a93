package check

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"stsmap/sts"
)

// judgeRecord is about the TXT record: STS-D.
func (l *look) judgeRecord() {
	name := "_mta-sts." + l.hop.Domain
	switch {
	case l.recordErr != nil:
		l.blind = true
		f := Finding{
			ID: "STS-D01", Severity: Skip, Who: l.blame(l.recordErr), Seen: "DNS error: " + l.recordErr.Error(),
			Why: "Nobody can tell whether there is a policy. " + l.meanwhile(),
			Fix: "If other domains can be looked up, their name servers are at fault, or their DNSSEC signatures; else look at the resolver.",
		}
		if l.cached == nil && l.c.Policy.Defer {
			f.Severity, f.Why = Fail, `Mail waits: dns.on_failure = "defer".`
		}
		l.add(f)
	case errors.Is(l.record.Why, sts.ErrNoRecord):
		l.judgeAbsence(name)
	case errors.Is(l.record.Why, sts.ErrManyRecords):
		l.add(Finding{
			ID: "STS-D02", Severity: Warn, Who: Them, Seen: fmt.Sprintf("more than one TXT record at %s begins with v=STSv1", name),
			Why: "Senders have to act as if there were none (RFC 8461, Section 3.1). " + l.meanwhile(), Fix: "Delete all but one.",
		})
	case l.record.Why != nil:
		l.judgeMistake(name)
	default:
		l.ok("STS-D02", "one TXT record, id %s", l.record.ID)
	}
	if l.recordErr != nil || len(l.record.Texts) == 0 {
		return
	}
	if l.record.Name != name {
		l.info("STS-D06", "%s is an alias of %s", name, l.record.Name)
	} else if l.wildcard {
		l.info("STS-D06", "the record comes from a wildcard: every name below %s has it", l.hop.Domain)
	}
	l.judgeNameServers()
	if ttl := l.record.TTL; l.record.ID != "" && (ttl > 24*time.Hour || ttl < 30*time.Second) {
		l.info("STS-D08", "the record may be remembered for %s: %s", age(ttl), map[bool]string{
			true:  "a new policy is noticed no sooner",
			false: "senders ask for it very often",
		}[ttl > time.Hour])
	}
	l.judgeChange()
}

// meanwhile describes what applies while the policy cannot be fetched.
func (l *look) meanwhile() string {
	if l.cached != nil && l.cached.Mode == sts.Enforce {
		return "The policy that is cached here stays in force until " + date(l.known.Entry.Expires) + "."
	}
	return "Mail is sent as to a domain without MTA-STS, unless a sender has a policy cached."
}

// judgeAbsence is about a domain without a record.
func (l *look) judgeAbsence(name string) {
	if l.cached != nil && l.cached.Mode != sts.None {
		l.add(Finding{
			ID: "STS-D01", Severity: Warn, Who: You, Seen: "the record at " + name + " is gone",
			Why: "That takes no policy away (RFC 8461, Section 3.1), and is also what an attacker would do. " + l.meanwhile(),
			Fix: "Ask them, by another way than mail, whether they mean to end MTA-STS: then the policy has to be in mode none for a while.",
		})
		return
	}
	text := "no MTA-STS record at " + name
	if len(l.record.Texts) > 0 {
		text += ", only other TXT records"
	}
	l.info("STS-D01", "%s", text)
}

// judgeMistake tells by the place of a mistake which check it fails.
func (l *look) judgeMistake(name string) {
	f := Finding{
		ID: "STS-D05", Severity: Warn, Who: Them, Seen: "the record at " + name + " is not valid: " + strings.TrimPrefix(l.record.Why.Error(), "TXT record: "),
		Why: "Senders ignore it. " + l.meanwhile(), Fix: `Publish "v=STSv1; id=20260101T000000;", with an id of letters and digits.`,
	}
	mistake, _ := errors.AsType[*sts.SyntaxError](l.record.Why)
	switch {
	case mistake == nil:
	case mistake.Field == "id":
		f.ID = "STS-D04"
	case mistake.Field == "v" || mistake.Field == "" && !l.begins():
		f.ID = "STS-D03"
	}
	l.add(f)
}

// begins reports whether one of the TXT records begins as it should.
func (l *look) begins() bool {
	for _, t := range l.record.Texts {
		if strings.HasPrefix(t, "v=STSv1") {
			return true
		}
	}
	return false
}

// judgeChange holds what is published against what the daemon has.
func (l *look) judgeChange() {
	if l.c.Known == nil || l.cached == nil || l.live == nil || l.record.ID == "" {
		return
	}
	e := l.known.Entry
	same := strings.TrimSpace(e.Policy) == strings.TrimSpace(l.text)
	switch {
	case e.ID == l.record.ID && !same:
		l.add(Finding{
			ID: "STS-D09", Severity: Warn, Who: Them, Seen: "the policy has changed, and the id of the record, " + e.ID + ", has not",
			Why: "Other senders keep the old policy until their daily refresh, or longer.", Fix: "Change the id with every change of the policy.",
		})
	case e.ID != l.record.ID && same:
		l.info("STS-D09", "the id is new, %s in the place of %s, and the policy is the same", l.record.ID, e.ID)
	case e.ID != l.record.ID:
		l.info("STS-D09", "there is a new policy, id %s in the place of %s; the daemon takes it over when it looks next", l.record.ID, e.ID)
	default:
		l.ok("STS-D09", "the daemon has the policy that is published")
	}
}

// date formats a time in UTC: the reader may live in another time zone.
func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
