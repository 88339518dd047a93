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

// relevant reports whether what DANE says matters where MTA-STS says k.
func (c DANEConfig) relevant(k Kind) bool { return c.Check != nil && (c.All || k == Enforce) }

// combine returns what applies where MTA-STS alone says sts, and s is what DNS
// says about DANE. The reason is empty where it is the one of MTA-STS.
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
// Hosts without addresses do not count, nor do Unresolved ones, but for the first
// two rows: beside a host that is usable, an unresolved one is like one that failed.
//
// "dane" lets Postfix use hosts without records at its level "may", and demands
// TLS of hosts whose records are unusable (smtp/smtp_tls_policy.c); with
// "dane-only" such hosts are not used. With insecure MX records DANE is an
// option (RFC 7672, Section 2.2.1), and the policy is stronger: an attacker who forges
// them can name a host without TLSA records, but none that the policy lists.
// For the same reason an insecure answer that there is no mail takes no policy
// out of force.
func (c DANEConfig) combine(sts Kind, s *daneState) (k Kind, reason string) {
	k, reason = c.combineTable(sts, s)
	if sts == Failed && k == DANE {
		// There may be a policy to be enforced, which "dane" is less than.
		return Failed, ""
	}
	return k, reason
}

func (c DANEConfig) combineTable(sts Kind, s *daneState) (k Kind, reason string) {
	enforced, r := sts == Enforce, s.result
	if r == nil {
		if !enforced {
			// Postfix asks the same questions, and makes mail wait for the
			// same reason.
			return DANE, ""
		}
		return c.unknown(s.err)
	}
	usable := r.Count(dane.Usable)
	switch {
	case r.NoMail && r.MXSecure:
		return None, "the domain takes no mail, or does not exist"
	case !r.MXSecure && usable > 0 && !enforced:
		return DANE, ""
	case !r.MXSecure:
		return sts, ""
	case usable > 0 && usable == len(r.Hosts)-r.Count(dane.NoAddress):
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
	return sts, ""
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

// maxNamed is how many hosts summary names.
const maxNamed = 8

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
		if i == maxNamed {
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
