package check

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"stsmap/resolver"
	"stsmap/stsfetch"
)

const (
	// soonDays is how long before its end a certificate should have been
	// renewed.
	soonDays = 14
	// slow is how long other senders wait, or less: postfix-mta-sts-resolver
	// gives up after 4 s.
	slow = 4 * time.Second
	// large is more than any honest policy needs, in bytes.
	large = 4 << 10
)

// refusesUs reports whether a visit looks as if we were not welcome.
func refusesUs(v stsfetch.Probe) bool {
	return v.Status == http.StatusForbidden || v.Status == http.StatusTooManyRequests
}

// judgeSite is about the policy host: STS-H.
func (l *look) judgeSite() {
	if !l.visited {
		l.skipGroup('H', l.unasked())
		return
	}
	if l.siteErr != nil {
		l.judgeNoAddress()
		return
	}
	if l.site.Proxy {
		l.ok("STS-H01", "%s is asked through the proxy", l.site.Name)
	} else {
		text := fmt.Sprintf("%s has %s", l.site.Name, plural(len(l.site.Probes), "address", "addresses"))
		if l.site.Alias != "" {
			text += ", as an alias of " + l.site.Alias
		}
		l.ok("STS-H01", "%s", text)
	}
	l.judgeTimes()
	l.judgeFailures()
	l.judgeSame()
	l.judgeCertificate()
	if l.text != "" && len(l.text) > large {
		l.add(Finding{
			ID: "STS-H09", Severity: Warn, Who: Them, Seen: fmt.Sprintf("the policy has %d bytes", len(l.text)),
			Why: "Senders may refuse what is larger than they expect; the limit is theirs.", Fix: "Use wildcards, or fewer lines.",
		})
	}
}

// unasked is why the policy host was not asked.
func (l *look) unasked() string {
	if l.recordErr != nil {
		return "without an answer about the record nobody asks the policy host"
	}
	return "without a record nobody asks the policy host"
}

// judgeNoAddress is about a policy host that cannot be found.
func (l *look) judgeNoAddress() {
	e, _ := errors.AsType[*stsfetch.Error](l.siteErr)
	f := Finding{
		ID: "STS-H01", Severity: Warn, Who: Them, Seen: e.Error(),
		Why: "There is a record, and no policy. " + l.meanwhile(), Fix: "Give " + l.site.Name + " an address, or delete the record.",
	}
	if _, ok := errors.AsType[*resolver.Error](l.siteErr); ok {
		f.Who, f.Fix = l.blame(l.siteErr), "Look at the name servers of "+l.site.Name+", and at the resolver here."
	}
	if e.Step == stsfetch.StepConnect {
		f.ID, f.Who, f.Fix = "STS-H11", You, "Look at fetch.proxy in stsmap.toml."
	}
	l.add(f)
}

// judgeTimes is about how long each address took.
func (l *look) judgeTimes() {
	var times, late []string
	for _, v := range l.site.Probes {
		switch {
		case v.Err == nil && v.Took > l.slow:
			late = append(late, fmt.Sprintf("%s %.1f s", where(v), v.Took.Seconds()))
		case v.Err == nil:
			times = append(times, fmt.Sprintf("%s %d ms", where(v), v.Took.Milliseconds()))
		}
	}
	if len(late) > 0 {
		l.add(Finding{
			ID: "STS-H10", Severity: Warn, Who: Them, Seen: "slow: " + several(late),
			Why: "Many senders do not wait longer than 4 s.", Fix: "Serve it from a host that is not busy: a policy is a static file.",
		})
	}
	if len(times) > 0 {
		l.ok("STS-H02", "the policy is served by %s", several(times))
	}
}

// judgeFailures judges the addresses that serve no policy. A failure that
// several addresses share is one finding. Syntax errors of the text are judged
// later.
func (l *look) judgeFailures() {
	var all []Finding
	var away []string
	at := make(map[Finding][]string)
	for _, v := range l.site.Probes {
		e, ok := errors.AsType[*stsfetch.Error](v.Err)
		if !ok || e.Step == stsfetch.StepSyntax {
			continue
		}
		if unrouted(e) {
			away = append(away, where(v))
			continue
		}
		f := l.failure(v, e)
		if at[f] == nil {
			all = append(all, f)
		}
		at[f] = append(at[f], where(v))
	}
	if len(away) > 0 {
		l.judgeAway(away)
	}
	for _, f := range all {
		if !l.site.Proxy && f.ID != "STS-H03" { // which names the address itself
			f.Seen = several(at[f]) + ": " + f.Seen
			l.add(f)
			continue
		}
		l.add(f)
	}
}

// judgeAway judges addresses without a route from this host. They are no fault
// as long as there are others.
func (l *look) judgeAway(away []string) {
	f := Finding{ID: "STS-H02", Severity: Info, Seen: several(away) + ": not asked, this host has no way there"}
	if len(away) == len(l.site.Probes) {
		f.Severity, f.Who, f.Why, f.Fix = Warn, You, l.loss(), "See whether this host is to have IPv6."
	}
	l.add(f)
}

// failure is about one address.
func (l *look) failure(v stsfetch.Probe, e *stsfetch.Error) Finding {
	f := Finding{Severity: Warn, Who: Them, Seen: e.Error(), Why: l.loss()}
	switch e.Step {
	case stsfetch.StepConnect:
		f.ID, f.Fix = "STS-H02", "Have a web server listen on port 443 there, or take the address out of DNS."
		if l.site.Proxy {
			f.ID, f.Who, f.Fix = "STS-H11", You, "Look at fetch.proxy in stsmap.toml, and what the proxy lets through."
		}
	case stsfetch.StepTimeout:
		f.ID, f.Fix = "STS-H10", "Serve it from a host that answers at once: a policy is a static file."
		if !v.Connected {
			f.ID, f.Fix = "STS-H02", "See whether a firewall drops what comes to port 443, or take the address out of DNS."
		}
	case stsfetch.StepBlocked:
		f.ID, f.Fix = "STS-H03", "Take the address out of public DNS; if it is meant to be reached from here, list its network in fetch.allow_private."
	case stsfetch.StepTLS:
		f.ID, f.Fix = "STS-H04", "Offer TLS 1.2 or 1.3."
		if v.Version != 0 {
			f.Seen = "the server offers at most " + tls.VersionName(v.Version)
		}
	case stsfetch.StepCert:
		f.ID, f.Fix = "STS-H05", "Install a certificate for "+l.site.Name+" from a public authority, with its intermediate certificates."
		f.Why += " In TLS reports it is sts-webpki-invalid."
	case stsfetch.StepContentType:
		f.ID, f.Fix = "STS-H08", `Send "Content-Type: text/plain": with nginx "default_type text/plain;", with Apache "ForceType text/plain".`
	case stsfetch.StepTooLarge:
		f.ID, f.Fix = "STS-H09", "Use wildcards, or fewer lines."
	case stsfetch.StepRedirect:
		f.ID, f.Fix = "STS-H07", "Serve the policy at https://"+l.site.Name+"/.well-known/mta-sts.txt itself."
	default: // StepStatus, StepHTTP
		f.ID, f.Fix = "STS-H07", "Serve the policy at https://"+l.site.Name+"/.well-known/mta-sts.txt with status 200."
		if refusesUs(v) {
			f = l.judgeUnwelcome(f)
		}
	}
	return f
}

// judgeUnwelcome is about a host that refuses programs.
func (l *look) judgeUnwelcome(f Finding) Finding {
	if l.browser != nil && slices.ContainsFunc(l.browser.Probes, func(v stsfetch.Probe) bool { return v.Err == nil }) {
		f.ID = "STS-H12"
		f.Seen += "; to a browser the policy is served"
		f.Fix = "Do not protect the policy against bots: all its readers are programs."
	}
	return f
}

// loss is what it means that an address serves no policy.
func (l *look) loss() string {
	if slices.ContainsFunc(l.site.Probes, func(v stsfetch.Probe) bool { return v.Err == nil }) {
		return "Senders that try this address first wait, or find no policy."
	}
	return "The policy cannot be retrieved. " + l.meanwhile()
}

// judgeSame is about addresses that serve different policies.
func (l *look) judgeSame() {
	first := ""
	for _, v := range l.site.Probes {
		switch {
		case v.Text == "":
		case first == "":
			first = v.Text
		case v.Text != first:
			l.add(Finding{
				ID: "STS-H02", Severity: Warn, Who: Them, Seen: where(v) + " serves another policy than the address before it",
				Why: "Which policy senders find is a matter of luck.", Fix: "Bring the file up to date on every address.",
			})
			return
		}
	}
}

// judgeCertificate is about a certificate that is valid, and for how long.
func (l *look) judgeCertificate() {
	told := false
	for _, v := range l.site.Probes {
		if v.Version < tls.VersionTLS12 || len(v.Certificates) == 0 {
			continue // not valid, which was said
		}
		left := time.Until(v.Certificates[0].NotAfter)
		days := int(left.Hours() / 24)
		if days < soonDays {
			l.add(Finding{
				ID: "STS-H06", Severity: Warn, Who: Them,
				Seen: fmt.Sprintf("%s: the certificate of %s ends in %s", where(v), l.site.Name, plural(days, "day", "days")),
				Why:  "Once it has, the policy cannot be retrieved any more, and lapses.", Fix: "Renew it, and see why that was not done by itself.",
			})
			return
		}
		if !told {
			l.ok("STS-H05", "its certificate is valid, for %d days (%s)", days, tls.VersionName(v.Version))
			told = true
		}
	}
}

// addressOf is a visit for the report.
func addressOf(v stsfetch.Probe) Address {
	a := Address{Seconds: seconds(v.Took), Status: v.Status}
	if v.Addr.IsValid() {
		a.Address = v.Addr.String()
	}
	if v.Version != 0 {
		a.TLS = tls.VersionName(v.Version)
	}
	if len(v.Certificates) > 0 {
		a.Expires = new(v.Certificates[0].NotAfter)
	}
	if v.Err != nil {
		a.Error = printable(v.Err.Error())
	}
	return a
}

// where names the place of a visit.
func where(v stsfetch.Probe) string {
	switch {
	case !v.Addr.IsValid():
		return "the proxy"
	case v.Addr.Is4():
		return "IPv4 " + v.Addr.String()
	}
	return "IPv6 " + v.Addr.String()
}
