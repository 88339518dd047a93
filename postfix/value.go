package postfix

import (
	"strings"
	"unicode/utf8"

	"stsmap/policy"
	"stsmap/socketmap"
	"stsmap/sts"
)

const (
	// maxValue keeps a margin to the 100000 bytes that Postfix reads
	// (util/dict_sockmap.c).
	maxValue = 90000
	// maxReason keeps a TEMP text within the 200 characters of it that
	// Postfix prints (util/dict_sockmap.c).
	maxReason = 200
)

// Reply returns the answer to a lookup that d decided. What Render made of it
// is used if it is there.
//
// The reply has no attributes but match and servername, so every Postfix from
// 3.4 on understands it.
func Reply(d *policy.Decision) socketmap.Reply {
	switch d.Kind {
	case policy.Enforce:
		if text, ok := strings.CutPrefix(d.Answer, rendered); ok {
			return socketmap.Reply{Status: socketmap.OK, Text: text}
		}
		return render(d)
	case policy.Failed:
		return render(d)
	case policy.DANEOnly:
		// No attributes: match= with these levels is an error, and makes mail
		// wait (smtp/smtp_tls_policy.c).
		return socketmap.Reply{Status: socketmap.OK, Text: "dane-only"}
	case policy.DANE:
		return socketmap.Reply{Status: socketmap.OK, Text: "dane"}
	}
	// A policy in mode testing is none, too: any level that we could name
	// replaces the administrator's own, which may be stricter.
	return socketmap.Reply{Status: socketmap.NotFound}
}

// rendered begins what Render returns.
const rendered = "OK "

// Render makes what Reply needs of a decision, for policy.Config.Render: the
// reply of a policy to be enforced, so that it is made once and not for each
// answer, and nothing for other decisions.
func Render(d *policy.Decision) string {
	if d.Kind != policy.Enforce {
		return ""
	}
	if r := render(d); r.Status == socketmap.OK {
		return rendered + r.Text
	}
	return "" // a failure is made again for each answer: there are few
}

func render(d *policy.Decision) socketmap.Reply {
	if d.Kind == policy.Failed {
		return temp(d.Domain, d.Reason)
	}
	match := matchList(d.STS.MX)
	switch {
	case match == "":
		// RFC 8461, Section 5 forbids to deliver to hosts that the policy
		// does not list, and none that it lists can be the name of one.
		return temp(d.Domain, "the policy lists no usable MX host")
	case len(match) > maxValue:
		return temp(d.Domain, "the policy lists more MX hosts than Postfix can read")
	}
	return socketmap.Reply{Status: socketmap.OK, Text: "secure match=" + match + " servername=hostname"}
}

// matchList makes the value of match= from patterns.
//
// "*.example.com" becomes ".example.com", which Postfix matches against names
// of any depth below it (tls/tls_client.c), where RFC 8461, Section 4.1 means
// one label; the literal form would match nothing but a wildcard certificate.
func matchList(patterns []sts.Pattern) string {
	var b strings.Builder
	for _, p := range patterns {
		name, wildcard := strings.CutPrefix(string(p), "*.")
		if !usable(name, wildcard) {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(':')
		}
		if wildcard {
			b.WriteByte('.')
		}
		b.WriteString(name)
	}
	return b.String()
}

// usable reports whether a name of a policy may stand in match=. The parser
// let pass only what RFC 8461 allows; this is about what Postfix would make
// of it. Single labels are left out because some are words that switch the
// way of matching ("hostname", "nexthop", "dot-nexthop"), and addresses
// because no MX host is named by one. The rest of the test repeats what the
// grammar promises: an attribute is closed by a space, a comma or a colon,
// and what stands between comes from a stranger.
func usable(name string, wildcard bool) bool {
	if isAddress(name) || !wildcard && !strings.Contains(name, ".") {
		return false
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	if name == "" || numeric([]byte(last)) {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.') {
			return false
		}
	}
	return true
}

// temp makes the reply that keeps mail waiting. Postfix prints its text into
// the mail log, where the administrator looks first; so it says what is wrong
// with which domain, and what to run.
func temp(domain, reason string) socketmap.Reply {
	begin, end := "mta-sts: "+domain+": ", "; run: stsmap explain "+domain
	return socketmap.Reply{
		Status: socketmap.Temp,
		Text:   begin + printable(reason, maxReason-len(begin)-len(end)) + end,
	}
}

// printable returns s for a reply: one line of ASCII, no longer than n bytes
// (but never less than a word, for domains that are very long themselves).
func printable(s string, n int) string {
	n = max(n, 24)
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
	if len(clean) > n {
		clean = clean[:n-3] + "..."
	}
	return clean
}
