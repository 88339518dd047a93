package postfix

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// An attribute is one that may stand in a policy (smtp/smtp_tls_policy.c).
type attribute struct {
	name  string
	check func(value string) error
	many  bool // it may be there more than once
	empty bool // its value may be empty: main.cf has one that this takes away
}

// levels are those of a policy (tls/tls_level.c), from the weakest on.
func levels() []string {
	return []string{"none", "may", "encrypt", "dane", "dane-only", "half-dane", "fingerprint", "verify", "secure"}
}

// attributesOf returns the attributes that an administrator may want at a level. Those of a policy for TLSRPT are not
// among them: what they say has to be what a domain has published.
func attributesOf(level string) []attribute {
	yesNo := func(v string) error { return oneOf(v, "yes", "no") }
	return []attribute{
		{name: "match", check: func(v string) error { return matches(level, v) }, many: true},
		{name: "ciphers", check: func(v string) error { return oneOf(v, "export", "low", "medium", "high", "null") }},
		{name: "protocols", check: protocols, empty: true},
		{name: "exclude", check: exclusions, empty: true},
		{name: "tafile", check: func(string) error { return only(level, "verify", "secure") }, many: true},
		{name: "servername", check: serverName},
		{name: "connection_reuse", check: yesNo, many: true},
		{name: "enable_rpk", check: yesNo, many: true},
	}
}

// CheckText says why Postfix would not accept text as a policy, or nil: one that
// it does not understand makes all mail for the domain wait. It is for what an
// administrator writes (package override), and so stricter where a text that
// Postfix takes can only be a mistake, such as attributes after "none".
//
// What cannot be seen in a text is not looked at: whether the file of tafile= is
// there, inside the jail of smtp(8) if that has one, and whether a release is old
// enough not to know an attribute. connection_reuse and servername are there from
// 3.4 on, ">=" in protocols from 3.6 on, enable_rpk from 3.9 on.
func CheckText(text string) error {
	if len(text) > maxValue {
		return fmt.Errorf("it is longer than %d bytes", maxValue)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		return errors.New("it has a character that is not ASCII")
	}
	if strings.ContainsAny(text, "{}") {
		return errors.New("it has a brace")
	}
	words := strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' })
	if len(words) == 0 {
		return errors.New("it has no level")
	}
	level := strings.ToLower(words[0])
	if !slices.Contains(levels(), level) || level == "half-dane" {
		return fmt.Errorf("%.40q is no level; there are none, may, encrypt, dane, dane-only, fingerprint, verify, secure", words[0])
	}
	if level == "none" && len(words) > 1 {
		return errors.New(`level "none" takes no attributes`)
	}
	seen := make(map[string]bool)
	for _, word := range words[1:] {
		if err := checkAttribute(level, word, seen); err != nil {
			return err
		}
	}
	if level == "fingerprint" && !seen["match"] {
		// Postfix then takes those of main.cf, of which there are none if that
		// level is not used there as well, and defers.
		return errors.New(`level "fingerprint" needs match= with a fingerprint`)
	}
	return nil
}

// checkAttribute checks one attribute, where those in seen stand before it.
func checkAttribute(level, word string, seen map[string]bool) error {
	name, value, ok := strings.Cut(word, "=")
	if !ok {
		return fmt.Errorf("%.40q is no attribute: name=value, without spaces", word)
	}
	name = strings.ToLower(name)
	all := attributesOf(level)
	i := slices.IndexFunc(all, func(a attribute) bool { return a.name == name })
	switch {
	case i < 0:
		return fmt.Errorf("%.40q is no attribute that can be set; there are %s", name, attributeNames(all))
	case value == "" && !all[i].empty:
		return fmt.Errorf("attribute %s has no value", name)
	case seen[name] && !all[i].many:
		return fmt.Errorf("attribute %s is there twice", name)
	}
	seen[name] = true
	if value == "" {
		return nil
	}
	if err := all[i].check(value); err != nil {
		return fmt.Errorf("attribute %s: %w", name, err)
	}
	return nil
}

func attributeNames(all []attribute) string {
	var names []string
	for _, a := range all {
		names = append(names, a.name)
	}
	return strings.Join(names, ", ")
}

func oneOf(value string, words ...string) error {
	if slices.Contains(words, strings.ToLower(value)) {
		return nil
	}
	return fmt.Errorf("%.40q is none of %s", value, strings.Join(words, ", "))
}

// only says that an attribute is for other levels than this one, or nil.
func only(level string, levels ...string) error {
	if slices.Contains(levels, level) {
		return nil
	}
	return fmt.Errorf("not at level %s, only with %s", level, strings.Join(levels, ", "))
}

// matches checks what match= may be: names at levels that verify names, and
// fingerprints at the one that is about those.
func matches(level, value string) error {
	if err := only(level, "fingerprint", "verify", "secure"); err != nil {
		return err
	}
	separator, fits := ":", func(s string) bool { return hostName(strings.TrimPrefix(s, ".")) }
	if level == "fingerprint" {
		separator, fits = "|", isFingerprint
	}
	for part := range strings.SplitSeq(value, separator) {
		if !fits(part) {
			return fmt.Errorf("%.40q cannot be matched", part)
		}
	}
	return nil
}

// isFingerprint reports whether s is a digest in hexadecimal, with or without a
// colon between two bytes (util/hex_code.c). Postfix passes over any other, and
// defers if none is left. To one that is as long as no digest it can compare
// nothing, and defers once it is connected (tls/tls_dane.c).
func isFingerprint(s string) bool {
	n := 0
	for ; s != ""; n++ {
		if n > 0 {
			s = strings.TrimPrefix(s, ":")
		}
		if len(s) < 2 || strings.Trim(s[:2], "0123456789abcdefABCDEF") != "" {
			return false
		}
		s = s[2:]
	}
	// MD5, which was the default before 3.6, SHA-1, and the lengths of SHA-2.
	return slices.Contains([]int{16, 20, 28, 32, 48, 64}, n)
}

// protocols checks a list of protocols: names, each perhaps excluded by "!", and
// bounds, a name after ">=" or "<=" (tls/tls_misc.c). With a list that it cannot
// read Postfix speaks no TLS at all.
func protocols(value string) error {
	for part := range strings.SplitSeq(value, ":") {
		name := part
		for _, sign := range []string{"!", ">=", "<="} {
			if rest, ok := strings.CutPrefix(part, sign); ok {
				name = rest
			}
		}
		if err := oneOf(name, "sslv2", "sslv3", "tlsv1", "tlsv1.1", "tlsv1.2", "tlsv1.3"); err != nil {
			return err
		}
	}
	return nil
}

// exclusions checks a list of ciphers and kinds of ciphers. Postfix refuses those
// that begin with what is an operator to OpenSSL (tls/tls_misc.c); what else is no
// part of a name would end one there and begin another, which is then switched on.
func exclusions(value string) error {
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_+.", r)
	}
	for part := range strings.SplitSeq(value, ":") {
		if part == "" || strings.ContainsAny(part[:1], "-+") || strings.ContainsFunc(part, odd) {
			return fmt.Errorf("%.40q is no name of ciphers", part)
		}
	}
	return nil
}

// serverName checks a name for SNI, or a word that stands for one.
func serverName(value string) error {
	if !hostName(value) {
		return fmt.Errorf("%.40q is no host name", value)
	}
	return nil
}

// hostName reports whether Postfix takes s, which may be anything, for the name of
// a host (util/valid_hostname.c).
func hostName(s string) bool {
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	}
	long := func(label string) bool { return len(label) > maxLabel }
	return validHostname(s) && len(s) <= 255 && !strings.ContainsFunc(s, odd) &&
		!slices.ContainsFunc(strings.Split(s, "."), long) && strings.Trim(s, "0123456789-.") != ""
}
