package e2e

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/net/idna"

	"stsmap/e2e/site"
)

// minimum is how many policies there have to be for every stage to be reached.
const minimum = 15

// stages are the forms of a reply that have to occur, or else a run has tried less than it says.
func (d *differential) stages() []string {
	always := []string{
		"auto secure step 0", "auto NOTFOUND", "auto TEMP", "query secure step 0", "query TEMP", "query NOTFOUND",
		"strict secure step 0", "strict TEMP", "always secure step 0", "always secure step 1", "always secure step 2", "always TEMP",
	}
	if !d.attributes {
		return append(always, "always refused")
	}
	return append(always, "auto secure step 1", "auto secure step 2", "strict secure step 1", "strict secure step 2",
		"may may step 0", "may may step 1", "may NOTFOUND", "encrypt encrypt step 0", "encrypt encrypt step 1")
}

// verdict is given when all policies have been looked at.
func (d *differential) verdict() {
	for _, stage := range d.stages() {
		if d.seen[stage] == 0 {
			d.t.Errorf("no reply was %q", stage)
		}
	}
	if d.failures > most {
		d.t.Errorf("and %d failures more", d.failures-most)
	}
	d.t.Logf("replies: %v", d.seen)
}

// connections are what mail.log has about TLS.
type connections struct {
	verified map[string]bool   // by service and address: TLS was, with a certificate that had to match
	other    map[string]string // likewise: TLS without that, and what Postfix called it
	refused  map[string]bool   // by service and name: no STARTTLS, though TLS was wanted
}

func (d *differential) connections() connections {
	c := connections{make(map[string]bool), make(map[string]string), make(map[string]bool)}
	tls := regexp.MustCompile(`postfix/([a-z]+)/smtp\[\d+\]: (\S+) TLS connection established to \S+\[([0-9.]+)\]:25`)
	refused := regexp.MustCompile(`postfix/([a-z]+)/smtp\[\d+\]: .*TLS is required, but was not offered by host (\S+)\[`)
	for _, line := range d.site.Postfix.Log.Since(d.mark) {
		if m := tls.FindStringSubmatch(line); m != nil {
			if m[2] == "Verified" {
				c.verified[m[1]+" "+m[3]] = true
			} else {
				c.other[m[1]+" "+m[3]] = m[2]
			}
		}
		if m := refused.FindStringSubmatch(line); m != nil {
			c.refused[m[1]+" "+strings.ToLower(m[2])] = true
		}
	}
	return c
}

// compareDelivery compares what became of the messages to a domain with the replies.
func (d *differential) compareDelivery(s *testPolicy, c *connections) {
	for service := range tables() {
		q := inquiry{service, s.n}
		mail, ok := d.mail[q]
		if !ok {
			continue
		}
		f := d.forms[q]
		if d.fails(q) {
			if mail.status != "deferred" || !strings.Contains(mail.why, "client TLS configuration problem") {
				d.errorf(s, "%s: %s, but: %s", service, f.stage(), mail)
			}
			d.taken(s, service, -1)
			continue
		}
		if mail.status != "sent" {
			d.errorf(s, "%s: %s, but: %s", service, f.stage(), mail)
			continue
		}
		want := map[string]int{"": 0, "may": 0, "encrypt": 1, "secure": 2}[f.level]
		d.taken(s, service, want)
		at := func(which int) string { return service + " " + s.addr(which) }
		if c.verified[at(0)] || c.verified[at(1)] || c.verified[at(2)] != (f.level == "secure") || c.other[at(2)] != "" {
			d.errorf(s, "%s: %s, but connections are: %v", service, f.stage(), c.of(s, service))
		}
		named := f.level == "secure" && f.domain != "" // so Postfix holds the names of exchangers against the patterns
		if (c.other[at(1)] != "") != (want == 1 || want == 2 && !named) {
			d.errorf(s, "%s: %s, but connections are: %v", service, f.stage(), c.of(s, service))
		}
		if c.refused[service+" "+s.plain()] != (want > 0 && (!named || len(s.hosts) > 1)) {
			d.errorf(s, "%s: %s, but the host without STARTTLS was refused or not: %t", service, f.stage(), want == 0)
		}
	}
}

func (c *connections) of(s *testPolicy, service string) []string {
	var all []string
	for which := range 3 {
		at := service + " " + s.addr(which)
		all = append(all, fmt.Sprintf("%s verified=%t else=%q", s.addr(which), c.verified[at], c.other[at]))
	}
	return all
}

// fails reports whether a lookup has to end in an error: those that the daemon calls one, and attributes for a Postfix
// that knows none.
func (d *differential) fails(q inquiry) bool {
	f := d.forms[q]
	return f.status == "TEMP" || f.domain != "" && !d.attributes
}

// taken makes sure that the message of a service was taken by one exchanger, and how; none, if which is -1.
func (d *differential) taken(s *testPolicy, service string, which int) {
	recipient := fmt.Sprintf("%s-%d@", service, s.n)
	for i, host := range []string{"plain.fixture.example", s.other(), s.good()} {
		var got []string
		for _, m := range d.site.World.Messages(host) {
			if len(m.To) == 1 && strings.HasPrefix(m.To[0], recipient) {
				got = append(got, fmt.Sprintf("TLS=%t SNI=%s", m.TLS, m.SNI))
			}
		}
		want := []string{"TLS=false SNI="}
		switch {
		case i != which:
			want = nil
		case i == 1:
			want = []string{"TLS=true SNI="}
		case i == 2: // RFC 8461, Section 7.1
			want = []string{"TLS=true SNI=" + s.good()}
		}
		if !slices.Equal(got, want) {
			d.errorf(s, "%s: %s, but %s has got %q, not %q", service, d.forms[inquiry{service, s.n}].stage(), host, got, want)
		}
	}
}

// complaints finds every warning that was not meant.
func (d *differential) complaints() {
	const from = `postfix/([a-z]+)/smtp\[\d+\]: warning: `
	const where = `smtp_tls_policy_maps, next-hop destination "(\S+)": `
	complaint := regexp.MustCompile(`(warning|error|fatal|panic): `)
	name := regexp.MustCompile(from + `MX name '(\S+)' does not match STS MX pattern for '(\S+)'$`)
	unknown := regexp.MustCompile(`postfix/always/smtp.*invalid attribute name: "policy_type"$`)
	failed := []*regexp.Regexp{
		regexp.MustCompile(from + `\S+ socketmap server temporary error: mta-sts: ([^: ]+)`),
		regexp.MustCompile(from + `\S+ lookup error for "(\S+)"$`),
		regexp.MustCompile(from + where + `policy table lookup error$`),
		regexp.MustCompile(from + `TLS policy lookup for (\S+)/\S+: client TLS configuration problem$`),
	}
	known := func(name string) *testPolicy { // by a name that may be cut, by us with dots
		begin, cut := strings.CutSuffix(name, "...")
		i := slices.IndexFunc(d.all, func(s testPolicy) bool {
			return s.domain == name || s.hop == name || (cut || len(name) > 100) && strings.HasPrefix(s.domain, begin)
		})
		if i < 0 {
			return new(testPolicy)
		}
		return &d.all[i]
	}
	for _, line := range d.site.Postfix.Log.Since(d.mark) {
		if !complaint.MatchString(line) || strings.Contains(line, " status=") || strings.Contains(line, "postfix/postmap[") {
			continue // what postmap says, it has said to us
		}
		meant := false
		if m := name.FindStringSubmatch(line); m != nil {
			s := known(m[3])
			f := d.forms[inquiry{m[1], s.n}]
			meant = s.kind != "" && f.domain != "" && f.match != nil && !slices.Contains(s.hosts, m[2])
		}
		for _, re := range failed {
			if m := re.FindStringSubmatch(line); m != nil {
				s := known(m[2])
				meant = meant || s.kind != "" && d.fails(inquiry{m[1], s.n})
			}
		}
		if !d.attributes && unknown.MatchString(line) {
			d.seen["always refused"]++
			meant = true
		}
		if !meant {
			d.errorf(nil, "mail.log: %.1000s", line)
		}
	}
}

// reports holds what Postfix tells its collector of a domain against the replies.
func (d *differential) reports() {
	if d.collector == nil {
		return
	}
	got, good := make(map[string]map[string]bool), make(map[string]bool)
	all, err := d.collector.Rest()
	must(d.t, err)
	for _, r := range all {
		domain := strings.ToLower(r.Domain)
		if ascii, err := idna.Lookup.ToASCII(domain); err == nil {
			domain = ascii
		}
		if got[domain] == nil {
			got[domain] = make(map[string]bool)
		}
		for _, p := range r.Policies {
			got[domain][reported(p)] = true
			good[domain] = good[domain] || p.Failed == 0 && p.Type.String() == "sts"
		}
	}
	for i := range d.all {
		s := &d.all[i]
		want, may, secure := make(map[string]bool), make(map[string]bool), false
		for service := range tables() {
			q := inquiry{service, s.n}
			if _, ok := d.mail[q]; !ok || d.fails(q) {
				continue
			}
			f := d.forms[q]
			if f.domain == "" {
				may[reported(site.ReportedPolicy{Type: 9})] = true
				continue
			}
			want[reported(site.ReportedPolicy{Type: 2, Domain: f.domain, Strings: f.trimmed(), MX: f.mx})] = true
			secure = secure || f.level == "secure"
		}
		for p := range want {
			if !got[s.domain][p] {
				d.errorf(s, "no report has the policy %.1000s\n\tbut there are %.3000q", p, slices.Collect(maps.Keys(got[s.domain])))
			}
		}
		for p := range got[s.domain] {
			if !want[p] && !may[p] {
				d.errorf(s, "a report has the policy %.1000s", p)
			}
		}
		if secure && !good[s.domain] {
			d.errorf(s, "no report of a success")
		}
		delete(got, s.domain)
	}
	for domain := range got {
		d.t.Errorf("report about an unknown domain %s", domain)
	}
}

// reported is what a report says of a policy, in a line.
func reported(p site.ReportedPolicy) string {
	p.Failures, p.Count, p.Failed = nil, 0, 0
	if p.Type.String() == "no-policy-found" {
		p.Domain = "" // nothing of this is ours
	}
	return site.Report{Policies: []site.ReportedPolicy{p}}.String()
}

// trimmed are the strings of a form as Postfix goes on with them (util/split_nameval.c).
func (f form) trimmed() []string {
	var all []string
	for _, s := range f.strings {
		all = append(all, strings.Trim(s, " "))
	}
	return all
}
