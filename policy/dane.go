package policy

import (
	"context"
	"fmt"
	"strings"

	"stsmap/dane"
)

// DANEConfig says how DANE and MTA-STS go together (RFC 8461, Section 2). The
// zero value leaves DANE out.
type DANEConfig struct {
	// Check finds out which MX hosts of a next-hop DANE applies to, as
	// dane.Check does; nil leaves DANE out.
	Check func(ctx context.Context, hop dane.NextHop) (dane.Result, error)
	// All has every domain checked. Otherwise only those are that have a
	// policy to be enforced, and for the others Postfix does what it does
	// without this server.
	All bool
	// Partial lets Postfix use, of a domain with a policy to be enforced, MX
	// hosts without TLSA records beside those that have them. It does so
	// without authentication.
	Partial bool
	// FallBack puts a policy into force while it cannot be found out whether
	// DANE applies; otherwise mail waits.
	FallBack bool
}

// sameAs reports whether decisions made with c hold with other.
func (c DANEConfig) sameAs(other DANEConfig) bool {
	return (c.Check == nil) == (other.Check == nil) && c.All == other.All && c.Partial == other.Partial && c.FallBack == other.FallBack
}

// weighs reports whether what DANE says matters where MTA-STS says k.
func (c DANEConfig) weighs(k Kind) bool { return c.Check != nil && (c.All || k == Enforce) }

// weigh says what is to be done where MTA-STS alone says standing, and f was
// found out about DANE. The reason is empty where it is the one of MTA-STS.
//
// Mail is never answered with less than DANE where a host has records to be
// authenticated with (RFC 8461, Section 2), and never with less than the
// policy where it has none (RFC 8461, Section 5). One answer has to be right
// for all MX hosts of the next-hop:
//
//	MX records      hosts                      enforced       other
//	secure          all usable                 dane-only      dane-only
//	secure          some usable                dane-only (1)  dane
//	secure          none usable, some failed   failed (2)     dane
//	secure          none usable, some unusable the policy     dane
//	secure          none                       the policy     as it stands
//	insecure        some usable                the policy     dane
//	insecure        other                      the policy     as it stands
//	not found out                              failed (2)     dane
//	secure: no mail, or no such domain         none           none
//
// (1) "dane" with Partial; (2) the policy with FallBack.
//
// "dane" lets Postfix use hosts without records at its level "may", and demands
// TLS of hosts whose records are unusable (smtp/smtp_tls_policy.c); with
// "dane-only" such hosts are not used. With insecure MX records DANE is an
// option (RFC 7672, Section 2.2.1), and the policy is stronger: whoever forges
// them can name a host without TLSA records, but none that the policy lists.
// For the same reason an insecure word that there is no mail takes no policy
// out of force.
func (c DANEConfig) weigh(standing Kind, f *finding) (k Kind, reason string) {
	k, reason = c.outweigh(standing, f)
	if standing == Failed && k == DANE {
		// There may be a policy to be enforced, which "dane" is less than.
		return Failed, ""
	}
	return k, reason
}

func (c DANEConfig) outweigh(standing Kind, f *finding) (k Kind, reason string) {
	enforced, r := standing == Enforce, f.result
	if r == nil {
		if !enforced {
			// Postfix asks the same questions, and makes mail wait for the
			// same reason.
			return DANE, ""
		}
		return c.unknown(f.err)
	}
	usable := r.Count(dane.Usable)
	switch {
	case r.NoMail && r.MXSecure:
		return None, "the domain takes no mail, or does not exist"
	case !r.MXSecure && usable > 0 && !enforced:
		return DANE, ""
	case !r.MXSecure:
		return standing, ""
	case usable > 0 && usable == len(r.Hosts)-r.Count(dane.Absent):
		return DANEOnly, ""
	case usable > 0 && (!enforced || c.Partial):
		return DANE, ""
	case usable > 0:
		return DANEOnly, ""
	case r.Count(dane.Failed) > 0 && enforced:
		return c.unknown(failure(r))
	case r.Count(dane.Failed)+r.Count(dane.Unusable) > 0 && !enforced:
		return DANE, ""
	}
	return standing, ""
}

// unknown is what happens to a policy to be enforced while DANE might apply.
func (c DANEConfig) unknown(err error) (k Kind, reason string) {
	if c.FallBack {
		return Enforce, ""
	}
	return Failed, "DANE: " + err.Error()
}

// failure is why the first of the hosts that failed did.
func failure(r *dane.Result) error {
	for _, h := range r.Hosts {
		if h.State == dane.Failed {
			return h.Err
		}
	}
	return nil
}

// mostNamed is how many hosts summary names.
const mostNamed = 8

// summary tells people what DNS says about DANE.
func summary(r *dane.Result) string {
	var b strings.Builder
	b.WriteString("MX records insecure")
	if r.MXSecure {
		b.Reset()
		b.WriteString("MX records secure")
	}
	if r.NoMail {
		b.WriteString(", the domain takes no mail")
	}
	for i, h := range r.Hosts {
		if i == mostNamed {
			fmt.Fprintf(&b, ", and %d more hosts", len(r.Hosts)-i)
			break
		}
		fmt.Fprintf(&b, ", %s %s", h.Name, h.State)
		if h.Err != nil {
			fmt.Fprintf(&b, " (%s)", brief(h.Err.Error()))
		}
	}
	return b.String()
}

// A permit says whether DANE may be used.
type permit struct {
	why error // why not; nil if it may
}

// denied reports whether it is known that DANE may not be used.
func (e *Engine) denied() bool {
	p := e.permit.Load()
	return p != nil && p.why != nil
}

// AllowDANE says whether DANE may be used: why is nil if it may, and otherwise
// tells what stands against it, such as a resolver that does not validate (RFC
// 7672, Section 2.1.1) or a Postfix that does not look up DNSSEC. Without DANE
// the policies are in force. Until it was called for the first time, lookups
// that need to know wait for it, as they do for DNS. A call that changes
// nothing does nothing. It may be called concurrently.
func (e *Engine) AllowDANE(why error) {
	e.permitting.Lock()
	defer e.permitting.Unlock()
	last := e.permit.Load()
	if last != nil && fmt.Sprint(last.why) == fmt.Sprint(why) {
		return
	}
	e.settling.Lock()
	e.permit.Store(&permit{why})
	if last != nil && (last.why == nil) != (why == nil) {
		// What was found out before need not be true: a resolver that has
		// stopped to validate finds nothing secure.
		e.findings.clear()
		e.ready.clear()
	}
	e.settling.Unlock()
	if last == nil {
		close(e.permitted)
	}
	ev := Event{Kind: DANEOn}
	if why != nil {
		ev = Event{Kind: DANEOff, Err: why}
	}
	e.observe(ev)
}
