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
	send := m.sendAttributes(known)
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
	case policy.Said:
		return socketmap.Reply{Status: socketmap.OK, Text: d.Override.Text}
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

// sendAttributes reports whether policy attributes go to a Postfix of which it is known
// whether it knows them.
func (m Map) sendAttributes(known bool) bool {
	return m.Attributes == Always || m.Attributes == ByRelease && known
}

// encoded returns what Render made of a policy, or makes it now.
func encoded(d *policy.Decision) packed {
	if d.Answer != "" {
		return packed(d.Answer)
	}
	text, _ := Render(d)
	return packed(text)
}

// minReason is how much of a reason there is always room for, and minName how
// much of a name where it is for reading.
const minReason, minName = 24, 40

// temp makes the reply that keeps mail waiting. Postfix prints its text into
// the mail log, where the administrator looks first; so it says what is wrong
// with which domain, and what to run. Postfix cuts it, so the reason is cut
// here before, and then a name that is very long: first where it is for
// reading, and if there is no room for it as a whole in the command either, the
// word DOMAIN stands there for the one that the log has in to=<>.
func temp(domain, reason string) socketmap.Reply {
	const before, between = "mta-sts: ", "; run: stsmap explain "
	shown, typed := domain, domain
	room := maxReason - minReason - len(before+": "+between)
	if len(shown)+len(typed) > room {
		shown = printable(domain, max(room-len(typed), minName))
	}
	if len(shown)+len(typed) > room {
		typed = "DOMAIN"
		shown = printable(domain, room-len(typed))
	}
	begin, end := before+shown+": ", between+typed
	return socketmap.Reply{
		Status: socketmap.Temp,
		Text:   begin + printable(reason, maxReason-len(begin)-len(end)) + end,
	}
}

// printable returns s for a reply: one line of ASCII, no longer than n bytes.
func printable(s string, n int) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
	if len(clean) > n {
		clean = clean[:n-len("...")] + "..."
	}
	return clean
}
