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
	return reply(d, m, known).WithText()
}

// reply is Reply without the parts of the text that come from a policy: those are
// appended where the text is needed. It does not allocate if d has an Answer.
func reply(d *policy.Decision, m Map, known bool) socketmap.Reply {
	send := m.sendAttributes(known)
	switch d.Kind {
	case policy.Enforce:
		d := rendered(d)
		switch a := answer(d.Answer); {
		case !a.canEnforce():
			// Only without Config.Render, which makes this Failed.
			_, err := Render(d)
			return temp(d.Domain, err.Error())
		case send && a.with() != noAttributes:
			return socketmap.Reply{Status: socketmap.OK, Text: beforeMatch, More: (*matchAndAttributes)(d)}
		}
		return socketmap.Reply{Status: socketmap.OK, Text: beforeMatch, More: (*matchOnly)(d)}
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
			if d := rendered(d); answer(d.Answer).alone() != noAttributes {
				return socketmap.Reply{Status: socketmap.OK, Text: m.level(), More: (*attributesOnly)(d)}
			}
		}
	}
	// Also for a policy in testing mode: any level in a reply would replace that
	// of the administrator, which may be stricter.
	return socketmap.Reply{Status: socketmap.NotFound}
}

// The parts of a text that come from a policy. They are decisions, since a pointer
// to what is there already makes an Appender without allocation. Each has the
// result of Render.
type (
	matchOnly          policy.Decision
	matchAndAttributes policy.Decision
	attributesOnly     policy.Decision
)

// AppendTo appends what follows "secure match=".
func (d *matchOnly) AppendTo(b []byte) []byte { return answer(d.Answer).appendMatch(b) }

// AppendTo appends what follows "secure match=".
func (d *matchAndAttributes) AppendTo(b []byte) []byte {
	a := answer(d.Answer)
	return a.appendAttributes(a.appendMatch(b), d.Domain, a.with())
}

// AppendTo appends what follows the level.
func (d *attributesOnly) AppendTo(b []byte) []byte {
	a := answer(d.Answer)
	return a.appendAttributes(b, d.Domain, a.alone())
}

// sendAttributes reports whether replies have policy attributes, where known is
// whether the installed Postfix knows them.
func (m Map) sendAttributes(known bool) bool {
	return m.Attributes == Always || m.Attributes == ByRelease && known
}

// rendered returns d with the result of Render in it, or what a reply needs of it
// with that of Render now.
func rendered(d *policy.Decision) *policy.Decision {
	if d.Answer != "" {
		return d
	}
	text, _ := Render(d)
	return &policy.Decision{Domain: d.Domain, STS: d.STS, Answer: text}
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
