package check

import (
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"

	"stsmap/dane"
	"stsmap/policy"
)

// digestOf is the data of a TLSA record (RFC 6698, Section 2.1.3).
func digestOf(matching uint8, data []byte) string {
	switch matching {
	case 1:
		sum := sha256.Sum256(data)
		return string(sum[:])
	case 2:
		sum := sha512.Sum512(data)
		return string(sum[:])
	}
	return string(data)
}

// judgeDANE is about TLSA records, as far as DNS tells: STS-N.
func (l *look) judgeDANE() {
	if !l.judgeResolver() {
		l.skip("without secure answers nobody can tell", "STS-N01", "STS-N02", "STS-N04")
		l.judgePrecedence()
		return
	}
	if l.daneErr != nil || len(l.hosts) == 0 || l.dane.NoMail {
		l.skip("there are no MX hosts to look at", "STS-N01", "STS-N02", "STS-N04")
		return
	}
	var states []string
	failed, usable, absent := 0, 0, 0
	for _, h := range l.hosts {
		states = append(states, h.name+" "+h.dane.State.String())
		switch h.dane.State {
		case dane.Usable:
			usable++
		case dane.Failed:
			failed++
		case dane.NoAddress:
			absent++
		}
		l.judgeRecords(h)
	}
	secure := "the MX records are signed"
	if !l.dane.MXSecure {
		secure = "the MX records are not signed"
	}
	f := Finding{ID: "STS-N01", Severity: Info, Seen: secure + "; TLSA records: " + several(states)}
	if failed > 0 {
		f.Severity, f.Who = Warn, Them
		f.Why, f.Fix = "Mail does not go to a host whose TLSA records cannot be looked up (RFC 7672).", "See that their name servers answer questions for TLSA records."
		f.Seen += l.firstFailure()
	}
	l.add(f)
	if usable > 0 && usable < len(l.hosts)-absent {
		l.add(Finding{
			ID: "STS-N04", Severity: Warn, Who: Them, Seen: fmt.Sprintf("%d of %s has usable TLSA records", usable, plural(len(l.hosts)-absent, "MX host", "MX hosts")),
			Why: "The others are not used, or not authenticated, while DANE goes before the policy.", Fix: "Publish TLSA records for every MX host, or for none.",
		})
	}
	l.judgePrecedence()
}

// firstFailure is why the TLSA records of a host could not be looked up.
func (l *look) firstFailure() string {
	for _, h := range l.hosts {
		if h.dane.State == dane.Failed && h.dane.Err != nil {
			return " (" + h.dane.Err.Error() + ")"
		}
	}
	return ""
}

// judgeResolver is about whether anything can be said, and reports that.
func (l *look) judgeResolver() bool {
	const id = "STS-N06"
	switch {
	case l.unsure == nil:
		l.ok(id, "the resolver here validates DNSSEC")
		return true
	case !isNotValidating(l.unsure):
		l.skip("whether the resolver validates is not known: "+l.unsure.Error(), id)
	case l.c.DANE && l.c.Postfix.DNSSEC == nil:
		l.add(Finding{
			ID: id, Severity: Warn, Who: You, Seen: l.unsure.Error(),
			Why: "DANE is off here, though Postfix is set up for it.", Fix: "Run a validating resolver on this host.",
		})
	default:
		l.info(id, "no DANE here: %s", l.unsure.Error())
	}
	return false
}

// judgeRecords is about TLSA records that are good for nothing.
func (l *look) judgeRecords(h *host) {
	bad := 0
	var first string
	for _, r := range h.tlsa.Records {
		if err := dane.Usability(r); err != nil {
			if bad++; bad == 1 {
				first = fmt.Sprintf("%d %d %d: %v", r.Usage, r.Selector, r.Matching, err)
			}
		}
	}
	if bad == 0 {
		return
	}
	f := Finding{
		ID: "STS-N02", Severity: Info, Who: Them, Seen: fmt.Sprintf("%s: %s unusable, such as %s", h.name, plural(bad, "TLSA record is", "TLSA records are"), first),
		Why: "Others are usable.", Fix: `Publish records that begin "3 1 1" or "2 1 1".`,
	}
	if h.dane.State != dane.Usable {
		f.Severity, f.Why = Warn, "Senders that do DANE encrypt, and authenticate nobody."
	}
	l.add(f)
}

// judgePrecedence says who wins here.
func (l *look) judgePrecedence() {
	const id = "STS-N05"
	off := l.noDANE()
	switch k := l.decision.Kind; {
	case k == policy.DANEOnly:
		l.info(id, "DANE goes before MTA-STS: mail goes only to hosts with TLSA records")
	case k == policy.DANE:
		l.info(id, "DANE is used where it applies")
	case off != nil && l.policy() != nil:
		l.info(id, "MTA-STS is used, and not DANE: %s", reasonOf(off))
	case k == policy.Enforce:
		text := "MTA-STS is used: DANE does not apply to this domain"
		if l.dane.Count(dane.Unresolved) > 0 {
			text = "MTA-STS is used: DANE does not apply to the hosts whose addresses are known"
		}
		l.info(id, "%s", text)
	}
}

// reasonOf is an error in one clause.
func reasonOf(err error) string {
	if isNotValidating(err) {
		return "the resolver here does not validate"
	}
	if err == nil {
		err = errors.New("nothing is known")
	}
	return err.Error()
}
