package check

import (
	"fmt"
	"net/url"
	"strings"
)

// judgeReports is about the record that asks for TLS reports: STS-T. It makes no
// difference for mail, so that nothing here is more than a warning.
func (l *look) judgeReports() {
	const id = "STS-T01"
	name := "_smtp._tls." + l.hop.Domain
	if l.reportsErr != nil {
		l.skip("DNS error: "+l.reportsErr.Error(), id)
		return
	}
	// Of several records those count that begin right (RFC 8460, Section 3);
	// without such a one, those that seem to be meant so are of interest.
	var meant, right []string
	for _, t := range l.reports.Records {
		if strings.HasPrefix(t, "v=TLSRPTv1") {
			right = append(right, t)
		}
		if strings.Contains(strings.ToUpper(t), "TLSRPT") || strings.Contains(strings.ToUpper(t), "TSLRPT") {
			meant = append(meant, t)
		}
	}
	if len(right) > 0 {
		meant = right
	}
	f := Finding{
		ID: id, Severity: Warn, Who: Them, Why: "Nobody reports to them when mail fails.",
		Fix: fmt.Sprintf(`Publish "v=TLSRPTv1; rua=mailto:postmaster@%s" at %s.`, l.hop.Domain, name),
	}
	switch {
	case len(meant) == 0 && len(l.oldName.Records) > 0:
		f.Seen = "the TLS report record is at _smtp-tlsrpt." + l.hop.Domain + ", its name in a draft"
	case len(meant) == 0:
		l.info(id, "no TLS reports are asked for (%s)", name)
		return
	case len(meant) > 1:
		f.Seen = "several TLS report records are as good as none"
	default:
		rua, wrong := parseTLSRPT(meant[0])
		if wrong == "" {
			l.ok(id, "TLS reports go to %s", several(rua))
			return
		}
		f.Seen = "the TLS report record " + quoted(meant[0]) + " " + wrong
	}
	l.add(f)
}

// parseTLSRPT reads a record by RFC 8460, Section 3, and says what is wrong with
// it, if anything is.
func parseTLSRPT(record string) (rua []string, wrong string) {
	version, rest, _ := strings.Cut(record, ";")
	if strings.TrimRight(version, " \t") != "v=TLSRPTv1" {
		return nil, `does not begin with "v=TLSRPTv1;"`
	}
	for field := range strings.SplitSeq(rest, ";") {
		key, value, _ := strings.Cut(strings.Trim(field, " \t"), "=")
		if key != "rua" {
			continue
		}
		for uri := range strings.SplitSeq(value, ",") {
			uri = strings.Trim(uri, " \t")
			u, err := url.Parse(uri)
			switch {
			case err != nil || u.Scheme != "mailto" && u.Scheme != "https":
				return nil, "has the address " + quoted(uri) + ", which is neither mailto: nor https:"
			case u.Scheme == "mailto" && !strings.Contains(u.Opaque, "@"), u.Scheme == "https" && u.Host == "":
				return nil, "has the address " + quoted(uri) + ", which leads nowhere"
			}
			rua = append(rua, uri)
		}
		return rua, ""
	}
	return nil, "has no rua="
}
