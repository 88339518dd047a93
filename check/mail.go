package check

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"stsmap/dane"
	"stsmap/resolver"
)

// judgeMail is about the domain itself, and where mail to it goes: STS-A.
func (l *look) judgeMail() {
	l.judgeMX()
	for _, h := range l.hosts {
		l.judgeTarget(h)
	}
	if broken := l.unreachable(); len(l.hosts) > 0 && broken == len(l.hosts) {
		l.add(Finding{
			ID: "STS-A03", Severity: Fail, Who: Them, Seen: "no MX host has an address",
			Why: "Mail from here waits until one has, or is returned.", Fix: "Give the MX hosts A or AAAA records.",
		})
	} else if len(l.hosts) > 0 && broken == 0 && !l.found("STS-A03") {
		l.ok("STS-A03", "every MX host has addresses")
	}
	if l.mxErr != nil || l.hop.NoMX || l.unsure != nil || l.mx.Unknown != nil {
		return
	}
	if l.mx.Secure {
		l.ok("STS-A04", "the MX records are signed with DNSSEC")
	} else {
		l.info("STS-A04", "the MX records are not signed with DNSSEC")
	}
}

// found reports whether there is a finding already.
func (r *Report) found(id string) bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.ID == id })
}

// judgeMX tells apart what an MX lookup can say.
func (l *look) judgeMX() {
	const id = "STS-A02"
	null := slices.ContainsFunc(l.mx.Records, func(m resolver.MX) bool { return m.Host == "" })
	switch {
	case l.hop.NoMX:
		l.ok(id, "%s is a host, and MX records are not looked up", l.hop.Domain)
	case l.mxErr != nil:
		l.blind = true
		l.add(Finding{
			ID: id, Severity: Skip, Who: l.blame(l.mxErr), Seen: "DNS error: " + l.mxErr.Error(),
			Why: "Nobody can tell where mail goes: it waits.",
			Fix: "If other domains can be looked up, their name servers are at fault, or their DNSSEC signatures; else look at the resolver.",
		})
	case l.mx.NXDomain:
		l.add(Finding{
			ID: id, Severity: Fail, Who: Nobody, Seen: l.hop.Domain + " does not exist",
			Why: "Mail to it is returned.",
		})
	case null && len(l.mx.Records) == 1:
		l.add(Finding{
			ID: id, Severity: Fail, Who: Nobody, Seen: "the domain says that it accepts no mail (null MX)",
			Why: "Postfix returns mail to it (RFC 7505).",
		})
	case len(l.mx.Records) == 0:
		l.info(id, "no MX records: mail goes to %s itself", l.hop.Domain)
	case null:
		l.add(Finding{
			ID: id, Severity: Warn, Who: Them, Seen: "a null MX record stands beside others, which RFC 7505 forbids",
			Why: "Some senders take it that the domain accepts no mail.", Fix: `Delete the record "MX 0 .".`,
		})
	default:
		var names []string
		for _, h := range l.hosts {
			names = append(names, l.listed(h))
		}
		l.ok(id, "%s", several(names))
	}
	if l.omitted > 0 {
		l.info(id, "only the first %d MX hosts are looked at, and not %d more", maxHosts, l.omitted)
	}
}

// listed is a host with its preference, if it has one.
func (l *look) listed(h *host) string {
	if len(l.mx.Records) == 0 {
		return h.name
	}
	return fmt.Sprintf("%s (%d)", h.name, h.pref)
}

// blame is whose fault it probably is that DNS gave no answer: the domain's, if
// the resolver says that it tried.
func (l *look) blame(err error) Actor {
	if e, ok := errors.AsType[*resolver.Error](err); ok && e.Kind == resolver.ServFail {
		return Them
	}
	return You
}

// judgeTarget is about what one MX record points to.
func (l *look) judgeTarget(h *host) {
	const id = "STS-A03"
	switch {
	case h.dane.State == dane.NoAddress && h.dane.Name != "" && isAddress(h.name):
		l.add(Finding{
			ID: id, Severity: Warn, Who: Them, Seen: "the MX record has the address " + h.name + " in the place of a name",
			Why: "No certificate can match it, and few senders use it.", Fix: "Give the host a name, and put that into the MX record.",
		})
	case h.err != nil:
		l.add(Finding{
			ID: id, Severity: Warn, Who: l.blame(h.err), Seen: h.name + ": DNS error: " + h.err.Error(),
			Why: "Mail cannot use this host as long as its address is not known.", Fix: "Look at the name servers of " + h.name + ".",
		})
	case len(h.addrs.Records) == 0:
		what := "has no address"
		if h.addrs.NXDomain {
			what = "does not exist"
		}
		l.add(Finding{
			ID: id, Severity: Warn, Who: Them, Seen: "MX host " + h.name + " " + what,
			Why: "It is ignored; if the others are down, mail waits.", Fix: "Delete the MX record, or give the host an address.",
		})
	case h.addrs.Name != h.name && !l.hop.NoMX:
		l.add(Finding{
			ID: id, Severity: Info, Who: Them, Seen: "MX host " + h.name + " is an alias of " + h.addrs.Name,
			Why: "RFC 5321, Section 5.1 wants a name with addresses; the policy and the certificate have to have the name of the MX record.",
			Fix: "Put the real name into the MX record, or the addresses to this one.",
		})
	}
}

// unreachable counts the hosts that mail cannot go to.
func (l *look) unreachable() (n int) {
	for _, h := range l.hosts {
		if h.err != nil || len(h.addrs.Records) == 0 {
			n++
		}
	}
	return n
}

// isAddress tells whether an MX record has an address for a name: no top-level
// domain is a number.
func isAddress(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	return strings.Trim(last, "0123456789") == ""
}

// several lists names, as many as a line can bear.
func several(names []string) string {
	const some = 6
	if n := len(names); n > some {
		return strings.Join(names[:some], ", ") + fmt.Sprintf(" and %d more", n-some)
	}
	return strings.Join(names, ", ")
}

// plural is "1 address", "2 addresses".
func plural(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}
