package postfix

import (
	"strings"
	"unicode/utf8"

	"stsmap/policy"
	"stsmap/socketmap"
)

// maxReason keeps a TEMP text within the 200 characters of it that Postfix
// prints (util/dict_sockmap.c).
const maxReason = 200

// Reply returns the answer to a lookup that d decided, as m has it. known says
// that the Postfix that asks knows policy attributes (Release.Attributes).
// What Render made of the policy is used if it is there.
//
// A reply without those attributes has only match and servername, which every
// Postfix from 3.4 on understands.
func Reply(d *policy.Decision, m Map, known bool) socketmap.Reply {
	send := m.Attributes == Always || m.Attributes == ByRelease && known
	switch d.Kind {
	case policy.Enforce:
		text := encoded(d).enforce(send)
		if text == "" {
			// Only without Config.Render, which makes this Failed.
			_, err := Render(d)
			return temp(d.Domain, err.Error())
		}
		return socketmap.Reply{Status: socketmap.OK, Text: text}
	case policy.Failed:
		return temp(d.Domain, d.Reason)
	case policy.DANEOnly:
		// No attributes: match= with these levels is an error, and makes mail
		// wait (smtp/smtp_tls_policy.c).
		return socketmap.Reply{Status: socketmap.OK, Text: "dane-only"}
	case policy.DANE:
		return socketmap.Reply{Status: socketmap.OK, Text: "dane"}
	case policy.Testing:
		if m.Testing == Report && send {
			if text := encoded(d).report(); text != "" {
				return socketmap.Reply{Status: socketmap.OK, Text: m.level() + text}
			}
		}
	}
	// A policy in mode testing is none, too: any level that we could name
	// replaces the administrator's own, which may be stricter.
	return socketmap.Reply{Status: socketmap.NotFound}
}

// encoded returns what Render made of a policy, or makes it now.
func encoded(d *policy.Decision) packed {
	if d.Answer != "" {
		return packed(d.Answer)
	}
	text, _ := Render(d)
	return packed(text)
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
