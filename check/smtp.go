package check

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"stsmap/dane"
	"stsmap/policy"
	"stsmap/postfix"
	"stsmap/postfix/postconf"
	"stsmap/resolver"
	"stsmap/sts"
)

// A fault is what keeps Postfix from delivering at an address as it should.
type fault struct {
	id, seen, fix string
	who           Actor
	soon          bool // it does not yet
}

// judgeSMTP is about the conversations with the MX hosts: STS-S, and what DANE
// says of their certificates.
func (l *look) judgeSMTP() {
	if !l.c.SMTP {
		l.skip("MX hosts are connected to only with --smtp", "STS-S01", "STS-S02", "STS-S03", "STS-S04", "STS-S05", "STS-S06", "STS-S07", "STS-N03")
		l.judgeFinger()
		return
	}
	l.judgeRoots()
	good := 0
	for _, h := range l.hosts {
		l.needs(h)
		l.judgeRoutes(h)
		works := false
		for _, t := range h.talks {
			t.verdict = l.faults(h, t)
			works = works || !t.broken()
		}
		if works && l.uses(h) {
			good++
		}
	}
	none := good == 0 && len(l.hosts) > 0
	for _, h := range l.hosts {
		l.judgeTalks(h, none)
	}
	l.judgeOwnSide()
	l.judgeFinger()
}

// byHost reports whether Postfix holds certificates against names of hosts.
func (l *look) byHost() bool {
	return l.release.Hosts() && l.c.Postfix.Map.Attributes != postfix.Never
}

// judgeRoutes leaves out conversations that could not begin for lack of a
// route, if others could: a host without IPv6 reaches no IPv6 address, and that
// is no fault of the MX host.
func (l *look) judgeRoutes(h *host) {
	routed := slices.DeleteFunc(slices.Clone(h.talks), func(t *talk) bool { return unrouted(t.err) })
	if len(routed) == 0 || len(routed) == len(h.talks) {
		return
	}
	l.info("STS-S07", "%s: %s not asked: this host has no way there", h.name, plural(len(h.talks)-len(routed), "address was", "addresses were"))
	h.talks = routed
}

// judgeRoots is about whether certificates can be judged, and whose fault it is
// if they cannot.
func (l *look) judgeRoots() {
	p := l.c.Postfix
	if p.Roots != nil {
		return
	}
	f := Finding{
		ID: "STS-S04", Severity: Warn, Who: You, Seen: "whom Postfix here trusts is not known: " + p.NoRoots.Error(),
		Why: "Certificates of MX hosts cannot be judged.", Fix: "Run this where Postfix is, or name its configuration in postfix.config_directory.",
	}
	if errors.Is(p.NoRoots, postconf.ErrNoTrust) {
		f.Seen = "Postfix here trusts nobody: " + p.NoRoots.Error()
		f.Why, f.Fix = "Every delivery that needs a valid certificate waits.", "In main.cf: smtp_tls_CAfile = /etc/ssl/certs/ca-certificates.crt"
		if l.decision.Kind == policy.Enforce {
			f.Severity = Fail
		}
	}
	l.add(f)
}

// needs finds out what the certificate of a host has to be.
func (l *look) needs(h *host) {
	h.needsMatch = h.name
	p := l.policy()
	if l.decision.Kind == policy.Enforce && p != nil && !l.byHost() {
		var names []string
		for _, m := range p.MX {
			names = append(names, string(m))
		}
		h.needsMatch = several(names)
	}
}

// byDANE reports whether it is DANE that says which certificate a host may have.
func (l *look) byDANE(h *host) bool {
	k := l.decision.Kind
	return (k == policy.DANE || k == policy.DANEOnly) && h.dane.State == dane.Usable
}

// broken reports whether mail cannot be delivered as it should.
func (t *talk) broken() bool {
	for _, f := range t.verdict {
		if !f.soon {
			return true
		}
	}
	return false
}

// faults are what is wrong with a conversation.
func (l *look) faults(h *host, t *talk) (all []fault) {
	say := func(id, seen, fix string) { all = append(all, fault{id: id, seen: seen, fix: fix, who: Them}) }
	switch t.stage {
	case dialling:
		if unrouted(t.err) {
			return []fault{{id: "STS-S01", seen: "this host has no way to " + t.addr.String(), fix: "See whether this host is to have IPv6.", who: You}}
		}
		seen := "no connection: " + t.err.Error()
		if isTimeout(t.err) {
			seen = fmt.Sprintf("no answer on port %d", port(l.hop))
		}
		say("STS-S01", seen, "Have the host accept connections, or take it out of DNS.")
		return all
	case greeting:
		say("STS-S01", "no SMTP: "+t.err.Error(), "Have the host accept connections, or take it out of DNS.")
		return all
	case offering:
		say("STS-S02", t.err.Error(), "Switch STARTTLS on.")
		return all
	case shaking:
		say("STS-S03", "the TLS handshake fails: "+t.err.Error(), "Offer TLS 1.2 or 1.3.")
		return all
	}
	if t.version < tls.VersionTLS12 {
		all = append(all, fault{id: "STS-S03", seen: "offers at most " + tls.VersionName(t.version), fix: "Offer TLS 1.2 or 1.3.", who: Them, soon: true})
	}
	if h.dane.State == dane.Usable {
		if match := l.matchTLSA(h, t); !match {
			say("STS-N03", "no TLSA record matches its certificate", "Publish at "+tlsaName(l.hop, h.dane.Base)+": TLSA "+record311(t.certs[0]))
		}
	}
	if l.byDANE(h) {
		return all // nothing else counts
	}
	return append(all, l.certificateFaults(h, t)...)
}

// certificateFaults holds a certificate against the authorities that Postfix
// trusts, the names, and the time, each by itself.
func (l *look) certificateFaults(h *host, t *talk) (all []fault) {
	leaf := t.certs[0]
	say := func(id, seen, fix string) { all = append(all, fault{id: id, seen: seen, fix: fix, who: Them}) }
	left := time.Until(leaf.NotAfter)
	at := time.Now()
	switch {
	case left <= 0:
		say("STS-S06", "its certificate has expired "+age(-left)+" ago", "Renew it.")
		at = leaf.NotAfter.Add(-time.Second) // the chain is another matter
	case at.Before(leaf.NotBefore):
		say("STS-S06", "its certificate is not valid before "+date(leaf.NotBefore), "Install one that is valid.")
		at = leaf.NotBefore.Add(time.Second)
	case left < soonDays*24*time.Hour:
		all = append(all, fault{id: "STS-S06", seen: "its certificate ends in " + age(left), fix: "Renew it.", who: Them, soon: true})
	}
	if err := l.verify(t.certs, at); err != nil {
		fix := "Install a certificate from a public authority, with its intermediate certificates."
		if t := l.c.Postfix.Trust; t != (postconf.Trust{}) {
			fix += " If others trust it, " + t.String() + " here may be too old."
		}
		say("STS-S04", "its certificate is not trusted: issuer "+quoted(leaf.Issuer.String())+" ("+brieferr(err)+")", fix)
	}
	if !l.matches(h, leaf) {
		say("STS-S05", "its certificate is for "+namesOf(leaf)+"; it needs "+h.needsMatch, "Install a certificate with that name.")
	}
	return all
}

// verify holds a chain against the authorities that Postfix trusts, if it is known
// which.
func (l *look) verify(certs []*x509.Certificate, at time.Time) error {
	if l.c.Postfix.Roots == nil {
		return nil
	}
	between := x509.NewCertPool()
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	_, err := certs[0].Verify(x509.VerifyOptions{Roots: l.c.Postfix.Roots, Intermediates: between, CurrentTime: at})
	return err
}

// brieferr is the reason of a failed verification.
func brieferr(err error) string { return strings.TrimPrefix(err.Error(), "x509: ") }

// namesOf lists the names of a certificate.
func namesOf(c *x509.Certificate) string {
	if len(c.DNSNames) == 0 {
		return "no DNS name"
	}
	var all []string
	for _, n := range c.DNSNames {
		all = append(all, printable(n))
	}
	return several(all)
}

// matches reports whether Postfix would accept the names of a certificate: that
// of the host, or from a release that does not compare hosts, any that the policy
// lists, where "*.example.com" stands for every name below (tls/tls_client.c).
func (l *look) matches(h *host, c *x509.Certificate) bool {
	p := l.policy()
	if l.decision.Kind != policy.Enforce || p == nil || l.byHost() {
		return c.VerifyHostname(h.name) == nil
	}
	for _, m := range p.MX {
		below, wild := strings.CutPrefix(string(m), "*")
		if !wild && c.VerifyHostname(string(m)) == nil {
			return true
		}
		for _, n := range c.DNSNames {
			if wild && strings.HasSuffix(strings.ToLower(n), below) {
				return true
			}
		}
	}
	return false
}

// matchTLSA reports whether a usable TLSA record matches a certificate that the
// host showed (RFC 7672, Section 3.1). The names in a certificate that is issued
// by one that matches have to match, too.
func (l *look) matchTLSA(h *host, t *talk) bool {
	for _, r := range h.tlsa.Records {
		if dane.Usability(r) != nil {
			continue
		}
		certs := t.certs
		if r.Usage == 3 {
			certs = certs[:1]
		}
		for _, c := range certs {
			if !sameAs(r, c) {
				continue
			}
			if r.Usage == 3 || issuedBelow(t.certs, c, h.name, h.dane.Base) {
				return true
			}
		}
	}
	return false
}

// issuedBelow reports whether the first of certs is issued below anchor, for one
// of the names.
func issuedBelow(certs []*x509.Certificate, anchor *x509.Certificate, names ...string) bool {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(anchor)
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	for _, n := range names {
		if _, err := certs[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: n}); err == nil {
			return true
		}
	}
	return false
}

// record311 is the TLSA record for a certificate that survives its renewal with
// the same key.
func record311(c *x509.Certificate) string {
	return fmt.Sprintf("3 1 1 %x", sha256.Sum256(c.RawSubjectPublicKeyInfo))
}

// judgeTalks tells the faults of a host. none says that no host works, so that
// they keep mail from being delivered.
func (l *look) judgeTalks(h *host, none bool) {
	broken := 0
	for _, t := range h.talks {
		if t.broken() {
			broken++
		}
	}
	told := make(map[string]bool)
	for _, t := range h.talks {
		for _, f := range t.verdict {
			if told[f.id+f.seen] {
				continue // at another address, too
			}
			told[f.id+f.seen] = true
			if broken == len(h.talks) || f.soon {
				l.add(Finding{ID: f.id, Severity: l.weight(h, f, none), Seen: t.where(h) + ": " + f.seen, Why: l.effect(h, f, none), Who: f.who, Fix: f.fix})
				continue
			}
			// Another address of the same host works.
			l.add(Finding{
				ID: "STS-S07", Severity: Warn, Who: Them, Seen: t.where(h) + ": " + f.seen + "; another address of the host works",
				Why: "Mail is delayed whenever this address is tried first.", Fix: f.fix,
			})
		}
	}
	for _, t := range h.talks {
		if len(t.verdict) == 0 {
			l.ok(map[bool]string{true: "STS-N03", false: "STS-S04"}[l.byDANE(h)], "%s: STARTTLS, %s, %s", t.where(h), tls.VersionName(t.version), l.praise(h, t))
		}
	}
}

// praise says what is good about a certificate.
func (l *look) praise(h *host, t *talk) string {
	if l.byDANE(h) {
		return "TLSA matches"
	}
	trust := "certificate matches"
	if l.c.Postfix.Roots == nil {
		trust = "the name in the certificate matches"
	}
	text := fmt.Sprintf(trust+", valid for %d days", int(time.Until(t.certs[0].NotAfter).Hours()/24))
	if h.dane.State == dane.Usable {
		text += ", TLSA matches"
	}
	return text
}

// weight is how much a fault of a host matters for mail from here.
func (l *look) weight(h *host, f fault, none bool) Severity {
	certificate := f.id == "STS-S04" || f.id == "STS-S05" || f.id == "STS-S06" || f.id == "STS-N03"
	enforced := l.decision.Kind == policy.Enforce || l.decision.Kind == policy.DANEOnly || l.byDANE(h)
	switch {
	case f.soon:
		return Warn
	case f.id == "STS-S01" && none:
		return Fail // no mail goes there, policy or not
	case f.id == "STS-S01":
		return Warn
	case f.id == "STS-N03" && !l.byDANE(h):
		return Warn
	case enforced && !l.uses(h):
		return Info // it is not used anyway
	case enforced && none:
		return Fail
	case enforced, l.decision.Kind == policy.Testing:
		return Warn
	case certificate:
		return Info // without a policy, Postfix does not verify it
	}
	return Warn
}

// effect says what weight means.
func (l *look) effect(h *host, f fault, none bool) string {
	enforced := l.decision.Kind == policy.Enforce || l.decision.Kind == policy.DANEOnly || l.byDANE(h)
	switch {
	case f.soon && f.id == "STS-S03":
		return "Whether Postfix accepts that depends on its settings, and on OpenSSL."
	case f.soon:
		return ""
	case f.id == "STS-S01" && none:
		return "Mail from here waits."
	case f.id == "STS-S01":
		return "Mail uses the other hosts, or waits."
	case f.id == "STS-N03" && !l.byDANE(h):
		return "Senders that do DANE refuse this host."
	case enforced && !l.uses(h):
		return "Mail from here does not use this host anyway."
	case enforced && none:
		return "Mail from here is not delivered to this host, and no other will do: it waits."
	case enforced:
		return "Mail from here is not delivered to this host; if the others are down, it waits."
	case l.decision.Kind == policy.Testing:
		return "With mode enforce, mail would not be delivered to this host."
	}
	return "Mail is delivered all the same, to whoever answers there."
}

// judgeOwnSide looks for what all hosts have in common: then it may be the
// network here that is at fault.
func (l *look) judgeOwnSide() {
	talks, silent, bare := 0, 0, 0
	for _, h := range l.hosts {
		for _, t := range h.talks {
			talks++
			if t.stage == dialling && isTimeout(t.err) {
				silent++
			}
			if t.stage == offering {
				bare++
			}
		}
	}
	switch {
	case talks == 0:
	case silent == talks:
		l.add(Finding{
			ID: "STS-S01", Severity: Warn, Who: You, Seen: "no MX host answers on port 25: it may be blocked on your side",
			Why: "Many providers block outgoing connections to port 25.", Fix: "Try another domain; if that is the same, ask your provider.",
		})
	case bare == talks && talks > 1:
		l.add(Finding{
			ID: "STS-S02", Severity: Warn, Who: You, Seen: "no MX host offers STARTTLS: something on your side may strip it",
			Why: "Firewalls that inspect SMTP do that.", Fix: "Try another domain; if that is the same, switch SMTP inspection off.",
		})
	}
}

// judgeFinger gives the command that does the same with Postfix's own code.
func (l *look) judgeFinger() {
	p := l.policy()
	if p == nil || p.Mode == sts.None {
		return
	}
	for _, h := range l.hosts {
		if !h.covered {
			continue
		}
		trust := "-P /etc/ssl/certs"
		switch t := l.c.Postfix.Trust; {
		case t.File != "":
			trust = "-F " + t.File
		case t.Directory != "":
			trust = "-P " + t.Directory
		}
		match := h.name
		if !l.byHost() {
			match = strings.TrimPrefix(string(h.pattern), "*")
		}
		l.info("STS-S08", "to see the same with Postfix: posttls-finger -c -l secure %s -s %s '[%s]' %s", trust, h.name, h.name, match)
		return
	}
}

// sameAs reports whether a TLSA record is the one of a certificate (RFC 6698,
// Section 2.1).
func sameAs(r resolver.TLSA, c *x509.Certificate) bool {
	data := c.Raw
	if r.Selector == 1 {
		data = c.RawSubjectPublicKeyInfo
	}
	return digestOf(r.Matching, data) == string(r.Data)
}
