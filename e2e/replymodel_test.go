package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxReply is how long a reply may be, in bytes. Postfix takes 100000 (util/dict_sockmap.c).
const maxReply = 90000

// slack is how far from maxReply a reply may be for this model not to know which form it has: the model does not know
// exactly which bytes the daemon counts.
const slack = 16

// A form is one of the replies that a policy can have, in the words of Postfix.
type form struct {
	status  string   // OK, NOTFOUND or TEMP
	reason  string   // of TEMP: a part of it
	level   string   // of OK, as are the following
	match   []string // the names that must be there
	maybe   []string // names that may or may not be among them: numbers that are no addresses
	domain  string   // policy_domain; empty: there are no policy attributes
	mx      []string // mx_host_pattern
	strings []string // policy_string
	step    int      // how often it was made shorter
}

// stage names the kind of a form.
func (f form) stage() string {
	if f.status != "OK" {
		return f.status
	}
	return fmt.Sprintf("%s step %d", f.level, f.step)
}

// size returns the length of the reply.
func (f form) size() int {
	n := len("OK ") + len(f.level)
	if f.match != nil {
		n += len(" match=" + strings.Join(f.match, ":") + " servername=hostname")
	}
	if f.domain != "" {
		n += len(" policy_type=sts policy_domain=" + f.domain)
	}
	for _, p := range f.mx {
		n += len(" mx_host_pattern=" + p)
	}
	for _, s := range f.strings {
		n += len(" { policy_string =  }") + len(s)
	}
	return n
}

// patterns returns every pattern once, in the order of the policy.
func (s *testPolicy) patterns() []string {
	var once []string
	seen := make(map[string]bool)
	for _, p := range s.mx {
		if p = strings.ToLower(p); !seen[p] {
			seen[p] = true
			once = append(once, p)
		}
	}
	return once
}

// strings returns the lines that can be told to Postfix: in a brace there can only be balanced ones, and blanks of all
// kinds are spaces (smtp/smtp_tls_policy.c).
func (s *testPolicy) strings() []string {
	var fit []string
	for _, l := range s.lines {
		if balanced(l) {
			fit = append(fit, strings.ReplaceAll(l, "\t", " "))
		}
	}
	return fit
}

func balanced(s string) bool {
	depth := 0
	for _, c := range []byte(s) {
		switch c {
		case '{':
			depth++
		case '}':
			if depth--; depth < 0 {
				return false
			}
		}
	}
	return depth == 0
}

// names returns what match= has: no single label, which could be a word that Postfix knows, and no address.
func (s *testPolicy) names() (must, maybe []string) {
	for _, p := range s.patterns() {
		name, wild := strings.CutPrefix(p, "*")
		labels := strings.Split(strings.TrimPrefix(name, "."), ".")
		_, err := netip.ParseAddr(name)
		switch {
		case !wild && (len(labels) == 1 || err == nil):
		case strings.Trim(labels[len(labels)-1], "0123456789") == "":
			maybe = append(maybe, name)
		default:
			must = append(must, name)
		}
	}
	return must, maybe
}

// whole returns the reply that tells everything about a policy that is enforced.
func (s *testPolicy) whole() form {
	f := form{status: "OK", level: "secure", domain: s.domain, mx: s.patterns(), strings: s.strings()}
	f.match, f.maybe = s.names()
	return f
}

// forms returns the replies that may be given under a name: more than one only where the length is near maxReply.
// Attributes says that the Postfix that asks knows policy attributes.
func (s *testPolicy) forms(name string, attributes bool) []form {
	switch {
	case name == "query":
		attributes = false
	case name == "always":
		attributes = true
	}
	f, begin, lists := s.whole(), "mta-sts: "+s.domain+": ", "the policy lists" // the rest may be cut
	if len(s.domain) > 71 {
		// So much of a name stands there in any case; a longer one leaves little room for the reason.
		begin, lists = "mta-sts: "+s.domain[:37], ""
	}
	enforced := s.mode == "enforce" || s.mode == "testing" && name == "strict"
	reported := s.mode == "testing" && (name == "may" || name == "encrypt") && attributes
	switch {
	case !s.valid || !enforced && !reported:
		return []form{{status: "NOTFOUND"}}
	case enforced && len(f.match) == 0:
		return []form{{status: "TEMP", reason: begin + lists}}
	case reported:
		f.level, f.match, f.maybe = name, nil, nil
		return shorten(f, form{status: "NOTFOUND"})
	case !attributes:
		f.domain, f.mx, f.strings = "", nil, nil
	}
	return shorten(f, form{status: "TEMP", reason: begin})
}

// shorten finds the form of a reply that is not too long; last is what remains.
func shorten(f, last form) []form {
	steps := []form{f}
	if f.domain != "" {
		one := f
		one.strings, one.step = f.strings[:1], 1
		steps = append(steps, one)
		if f.match != nil {
			plain := f
			plain.domain, plain.mx, plain.strings, plain.step = "", nil, nil, 2
			steps = append(steps, plain)
		}
	}
	near := slack + len(strings.Join(f.maybe, ":"))
	var may []form
	for _, step := range steps {
		size := step.size()
		if size <= maxReply+near {
			may = append(may, step)
		}
		if size <= maxReply-near {
			return may
		}
	}
	return append(may, last)
}

// unlike says how a reply differs from a form; it returns "" if it does not. Braces says whether the Postfix that asks
// knows them.
func (f form) unlike(reply string, braces bool) string {
	word, text, spaced := strings.Cut(reply, " ")
	switch {
	case word != f.status || !spaced:
		return "is not " + f.status
	case word == "TEMP" && !strings.Contains(text, f.reason):
		return "does not say " + f.reason
	case word == "NOTFOUND" && text != "":
		return "has text"
	case word != "OK":
		return ""
	case len(reply) > maxReply+slack:
		return fmt.Sprintf("has %d bytes", len(reply))
	}
	level, attributes, err := tokens(text, braces)
	if err != nil {
		return err.Error()
	}
	if level != f.level {
		return "has the level " + level
	}
	return f.compare(attributes)
}

// compare says how attributes differ from those of f.
func (f form) compare(attributes [][2]string) string {
	want := [][2]string{}
	if f.match != nil {
		got := [2]string{}
		if i := slices.IndexFunc(attributes, func(a [2]string) bool { return a[0] == "match" }); i >= 0 {
			got = attributes[i]
		}
		names := strings.Split(got[1], ":")
		names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(f.maybe, n) })
		if !slices.Equal(names, f.match) {
			return fmt.Sprintf("has match= %.300q, not %.300q", names, f.match)
		}
		want = append(want, got, [2]string{"servername", "hostname"})
	}
	if f.domain != "" {
		want = append(want, [2]string{"policy_type", "sts"}, [2]string{"policy_domain", f.domain})
	}
	for _, p := range f.mx {
		want = append(want, [2]string{"mx_host_pattern", p})
	}
	for _, s := range f.strings {
		want = append(want, [2]string{"policy_string", s})
	}
	for i := range max(len(want), len(attributes)) {
		switch {
		case i >= len(attributes):
			return fmt.Sprintf("lacks %.300q", want[i])
		case i >= len(want):
			return fmt.Sprintf("has %.300q in excess", attributes[i])
		case attributes[i] != want[i]:
			return fmt.Sprintf("has %.300q, not %.300q", attributes[i], want[i])
		}
	}
	return ""
}

// tokens reads a reply as Postfix does: up to 3.9 with mystrtok() (util/mystrtok.c), later with mystrtokq(), extpar()
// and split_nameval() (smtp/smtp_tls_policy.c).
func tokens(text string, braces bool) (level string, attributes [][2]string, err error) {
	const separators, blanks = ", \t\r\n", " \t\n\v\f\r"
	for first := true; ; first = false {
		text = strings.TrimLeft(text, separators)
		if text == "" {
			return level, attributes, nil
		}
		depth, end := 0, 0
		for ; end < len(text); end++ {
			c := text[end]
			if braces && c == '{' {
				depth++
			} else if c == '}' && depth > 0 {
				depth--
			} else if depth == 0 && strings.IndexByte(separators, c) >= 0 {
				break
			}
		}
		token := text[:end]
		text = text[end:]
		if first {
			level = token
			continue
		}
		if braces && token[0] == '{' {
			if token, err = unwrap(token); err != nil {
				return "", nil, err
			}
			token = strings.Map(func(r rune) rune {
				if strings.ContainsRune(blanks, r) {
					return ' '
				}
				return r
			}, strings.Trim(token, blanks))
		}
		name, value, ok := strings.Cut(token, "=")
		name = strings.TrimRight(name, blanks)
		if !ok || name == "" || strings.ContainsAny(name, blanks) {
			return "", nil, fmt.Errorf("has the malformed attribute %.300q", token)
		}
		attributes = append(attributes, [2]string{strings.ToLower(name), strings.Trim(value, blanks)})
	}
}

// unwrap takes the outer braces off (util/extpar.c, util/balpar.c).
func unwrap(token string) (string, error) {
	depth := 0
	for i, c := range []byte(token) {
		switch c {
		case '{':
			depth++
		case '}':
			depth--
		}
		if depth == 0 {
			if i < len(token)-1 {
				return "", fmt.Errorf("has something after a brace: %.300q", token)
			}
			return token[1:i], nil
		}
	}
	return "", fmt.Errorf("has a brace without end: %.300q", token)
}
