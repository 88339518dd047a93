package check

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/idna"

	"stsmap/dane"
	"stsmap/policy"
	"stsmap/resolver"
	"stsmap/sts"
	"stsmap/stsfetch"
)

const (
	// maxHosts is how many MX hosts are looked at, as many as package dane looks
	// at. Postfix tries five addresses (smtp_mx_address_limit).
	maxHosts = 32
	// hostsAtOnce is how many are looked at, and talked with, at the same time.
	hostsAtOnce = 8
	// maxAddresses is how many addresses of an MX host are connected to.
	maxAddresses = 4
)

// A look is one Check under way: the gathered data and the findings. Gathering
// is concurrent, each goroutine with fields of its own. Judging is not
// concurrent and does no I/O.
type look struct {
	*Checker
	*Report
	hop   dane.NextHop
	asked *memo
	blind bool // something decisive could not be found out

	mx      resolver.Answer[resolver.MX]
	mxErr   error
	hosts   []*host
	omitted int // MX hosts that are not in hosts
	dane    dane.Result
	daneErr error

	record    stsfetch.Record
	recordErr error
	wildcard  bool // the record is there for any name
	servers   []nameServer
	zoneErr   error // why the name servers were not found

	visited bool // whether the policy host was asked
	site    stsfetch.Host
	siteErr error
	browser *stsfetch.Host // the same for another User-Agent, if that was tried

	reports, oldName resolver.Answer[string] // about TLSRPT
	reportsErr       error

	known    Known
	knownErr error
	cached   *sts.Policy // that the daemon has, and that still counts

	unsure error // why it is not known whether the resolver validates, or that it does not

	text     string      // the policy as it is served; empty if none is
	live     *sts.Policy // nil if none is served that counts
	decision *policy.Decision
}

// A host is one MX host.
type host struct {
	name       string
	pref       uint16
	addrs      resolver.Answer[netip.Addr]
	err        error
	dane       dane.Host
	tlsa       resolver.Answer[resolver.TLSA]
	tlsaErr    error
	pattern    sts.Pattern // that covers it; empty if none does
	covered    bool
	talks      []*talk
	needsMatch string // filled in by judging: what its certificate has to match
}

// notDomain is the finding about a key without a policy domain.
func notDomain(key string) Finding {
	f := Finding{ID: "STS-A01", Severity: Skip, Seen: quoted(key) + " is not a domain name"}
	if _, err := netip.ParseAddr(strings.Trim(key, "[]")); err == nil {
		f.Seen = quoted(key) + " is an address, and MTA-STS knows none for those (RFC 8461, Section 3.4)"
	} else if strings.HasPrefix(key, ".") {
		f.Seen = quoted(key) + " is a parent domain, and policies hold for one domain each"
	}
	return f
}

// nameOf says how the key was understood, if that is not plain.
func (l *look) nameOf(key string) {
	if unicode, err := idna.Lookup.ToUnicode(l.hop.Domain); err == nil && unicode != l.hop.Domain {
		l.info("STS-A01", "%s is %s in DNS", unicode, l.hop.Domain)
	} else if !strings.EqualFold(strings.TrimSuffix(key, "."), l.hop.Domain) {
		l.info("STS-A01", "%s has the policy domain %s", quoted(key), l.hop.Domain)
	}
}

// gather asks all there is to ask.
func (l *look) gather(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { l.unsure = l.validates(ctx) })
	wg.Go(func() { l.gatherMail(ctx) })
	wg.Go(func() { l.gatherReports(ctx) })
	wg.Go(func() {
		l.gatherKnown(ctx)
		l.gatherPolicy(ctx)
	})
	wg.Wait()
	l.digest()
}

// gatherKnown asks the daemon.
func (l *look) gatherKnown(ctx context.Context) {
	if l.c.Known == nil {
		return
	}
	l.known, l.knownErr = l.c.Known(ctx, l.hop.Domain)
	if e := l.known.Entry; e != nil && e.Policy != "" && !e.Expires.Before(time.Now()) {
		l.cached, _ = sts.ParsePolicy([]byte(e.Policy))
	}
}

// gatherPolicy looks up the record and, if there is a record or a cached
// policy, queries the policy host: other senders do not query it without a
// record either.
func (l *look) gatherPolicy(ctx context.Context) {
	l.record, l.recordErr = l.c.Fetch.Record(ctx, l.hop.Domain)
	if l.recordErr == nil && len(l.record.Texts) > 0 {
		// No domain owner creates this name, so only a wildcard answers for it.
		other, err := l.c.Resolver.TXT(ctx, "_stsmap-check-for-wildcard."+l.hop.Domain)
		l.wildcard = err == nil && slices.Equal(slices.Sorted(slices.Values(other.Records)), slices.Sorted(slices.Values(l.record.Texts)))
	}
	if l.c.NameServers && l.recordErr == nil && !errors.Is(l.record.Why, sts.ErrNoRecord) {
		l.gatherNameServers(ctx)
	}
	if l.cached == nil && (l.recordErr != nil || errors.Is(l.record.Why, sts.ErrNoRecord)) {
		return
	}
	l.visited = true
	l.site, l.siteErr = l.c.Fetch.Probe(ctx, l.hop.Domain)
	if l.siteErr == nil && slices.ContainsFunc(l.site.Probes, refusesUs) {
		if site, err := l.c.Fetch.As("Mozilla/5.0").Probe(ctx, l.hop.Domain); err == nil {
			l.browser = &site
		}
	}
}

// gatherMail looks up the MX hosts, and whatever DANE says of them, and asks
// them for STARTTLS if that is wanted.
func (l *look) gatherMail(ctx context.Context) {
	if l.hop.NoMX {
		l.mx.Secure = true
		l.hosts = []*host{{name: l.hop.Domain}}
	} else {
		l.mx, l.mxErr = l.asked.MX(ctx, l.hop.Domain)
		l.hosts, l.omitted = exchangers(l.mx, l.mxErr, l.hop.Domain)
	}
	var wg sync.WaitGroup
	wg.Go(func() { l.dane, l.daneErr = dane.Check(ctx, l.asked, l.hop) })
	slots := make(chan struct{}, hostsAtOnce)
	for _, h := range l.hosts {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			h.addrs, h.err = l.asked.Addr(ctx, h.name)
			if l.c.SMTP && h.err == nil {
				l.converse(ctx, h)
			}
		})
	}
	wg.Wait()
	for _, h := range l.hosts {
		if i := slices.IndexFunc(l.dane.Hosts, func(d dane.Host) bool { return d.Name == h.name }); i >= 0 {
			h.dane = l.dane.Hosts[i]
		}
		if h.dane.Base != "" {
			h.tlsa, h.tlsaErr = l.asked.TLSA(ctx, tlsaName(l.hop, h.dane.Base))
		}
	}
}

// exchangers returns the MX hosts, the preferred ones first: those of the
// records, or the domain itself if there is none (RFC 5321, Section 5.1); and
// how many there are beyond maxHosts.
func exchangers(mx resolver.Answer[resolver.MX], err error, domain string) (hosts []*host, omitted int) {
	if err != nil || mx.NXDomain {
		return nil, 0
	}
	if len(mx.Records) == 0 {
		return []*host{{name: domain}}, 0
	}
	sorted := slices.SortedFunc(slices.Values(mx.Records), func(a, b resolver.MX) int {
		return cmp.Or(cmp.Compare(a.Pref, b.Pref), cmp.Compare(a.Host, b.Host))
	})
	seen := make(map[string]bool)
	for _, x := range sorted {
		if x.Host == "" || seen[x.Host] {
			continue
		}
		if seen[x.Host] = true; len(hosts) == maxHosts {
			omitted++
			continue
		}
		hosts = append(hosts, &host{name: x.Host, pref: x.Pref})
	}
	return hosts, omitted
}

// gatherReports looks for the record that says where reports go, and for the
// names that it is often put under by mistake.
func (l *look) gatherReports(ctx context.Context) {
	l.reports, l.reportsErr = l.c.Resolver.TXT(ctx, "_smtp._tls."+l.hop.Domain)
	if l.reportsErr == nil && len(l.reports.Records) == 0 {
		l.oldName, _ = l.c.Resolver.TXT(ctx, "_smtp-tlsrpt."+l.hop.Domain)
	}
}

// digest makes of what was gathered what several judgements need.
func (l *look) digest() {
	for _, v := range l.site.Probes {
		// The first that answers is used, as in a retrieval; of those that serve
		// something else, the first is explained.
		if v.Err == nil && l.live == nil {
			l.text, l.live = v.Text, v.Policy
		}
	}
	for _, v := range l.site.Probes {
		if l.text == "" {
			l.text = v.Text
		}
	}
	if l.recordErr == nil && errors.Is(l.record.Why, sts.ErrNoRecord) && l.live != nil {
		// Served without a record: only senders with a cached policy fetch it.
		l.live = nil
	}
	p := l.policy()
	for _, h := range l.hosts {
		if p == nil {
			continue
		}
		if i := slices.IndexFunc(p.MX, func(m sts.Pattern) bool { return m.Match(h.name) }); i >= 0 {
			h.pattern, h.covered = p.MX[i], true
		}
	}
}

// policy is the one that counts: the one that is published, or else the one
// that the daemon has; nil if there is none.
func (l *look) policy() *sts.Policy {
	if l.live != nil && l.record.ID != "" {
		return l.live
	}
	if l.cached != nil {
		return l.cached
	}
	return nil
}

// judge says what all that means.
func (l *look) judge(ctx context.Context) {
	l.decide(ctx)
	l.judgeMail()
	l.judgeRecord()
	l.judgeSite()
	l.judgeText()
	l.judgeCoverage()
	l.judgeSMTP()
	l.judgeDANE()
	l.judgeReports()
	l.judgeHere()
	l.describe()
}

// describe fills in the parts of the report that are not findings.
func (l *look) describe() {
	if l.live != nil && l.record.ID != "" {
		l.Policy = policyOf(l.live, l.record.ID)
	}
	if l.cached != nil {
		l.Cached = policyOf(l.cached, l.known.Entry.ID)
	}
	for _, h := range l.hosts {
		x := Exchanger{Name: h.name, Preference: h.pref, Pattern: string(h.pattern)}
		if l.daneErr == nil && h.dane.Name != "" {
			x.DANE = h.dane.State.String()
		}
		for _, a := range h.addrs.Records[:min(len(h.addrs.Records), maxHosts)] {
			x.Addresses = append(x.Addresses, a.String())
		}
		for _, t := range h.talks {
			x.SMTP = append(x.SMTP, t.report())
		}
		l.Hosts = append(l.Hosts, x)
	}
	for _, v := range l.site.Probes {
		l.Addresses = append(l.Addresses, addressOf(v))
	}
}

// policyOf is a policy for the report.
func policyOf(p *sts.Policy, id string) *Policy {
	out := &Policy{ID: printable(id), Mode: p.Mode.String(), MaxAge: int64(p.MaxAge.Seconds()), MX: []string{}}
	for _, m := range p.MX {
		out.MX = append(out.MX, string(m))
	}
	return out
}

// isNotValidating reports whether an error says for certain that the resolver
// does not validate.
func isNotValidating(err error) bool { return errors.Is(err, resolver.ErrNotValidating) }

// unrouted reports whether an error is that this host has no way to an address,
// such as one of IPv6.
func unrouted(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

// isTimeout reports whether err is a timeout.
func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout() || errors.Is(err, context.DeadlineExceeded)
}
