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

// Reply returns the reply for d under the configuration m. known is whether the
// installed Postfix knows policy attributes (Release.Attributes). The result of
// Render is used if d has it.
//
// A reply without policy attributes has only match and servername, which every
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
	case policy.Replied:
		return socketmap.Reply{Status: socketmap.OK, Text: d.Override.Text}
	case policy.DANEOnly:
		// No attributes: match= with these levels is an error that defers mail
		// (smtp/smtp_tls_policy.c).
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
	// Also for a policy in testing mode: any level in a reply would replace that
	// of the administrator, which may be stricter.
	return socketmap.Reply{Status: socketmap.NotFound}
}

// sendAttributes reports whether replies have policy attributes, where known is
// whether the installed Postfix knows them.
func (m Map) sendAttributes(known bool) bool {
	return m.Attributes == Always || m.Attributes == ByRelease && known
}

// encoded returns the result of Render in d, or calls Render now.
func encoded(d *policy.Decision) packed {
	if d.Answer != "" {
		return packed(d.Answer)
	}
	text, _ := Render(d)
	return packed(text)
}

// minReason is the length to which a reason may always grow, and minName that to
// which the first name in the text may.
const minReason, minName = 24, 40

// temp returns the reply that defers mail. Postfix logs its text, and the mail log
// is the first place where an administrator looks, so the text has the domain, the
// reason and the command to run. Postfix truncates it. To keep the command, temp
// truncates the reason itself, and for a very long name the first of the two
// names. If the command still has no room, its name becomes the word DOMAIN; the
// log has the name in to=<>.
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
