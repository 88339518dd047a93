package postfix

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// An attribute is an attribute of a policy (smtp/smtp_tls_policy.c).
type attribute struct {
	name       string
	check      func(value string) error
	repeatable bool // it may occur more than once
	mayBeEmpty bool // an empty value removes that of main.cf
}

// levels returns the levels of a policy (tls/tls_level.c), the weakest first.
func levels() []string {
	return []string{"none", "may", "encrypt", "dane", "dane-only", "half-dane", "fingerprint", "verify", "secure"}
}

// attributesOf returns the attributes that an administrator may set at a level. Policy attributes are not among them:
// they must be what the domain has published.
func attributesOf(level string) []attribute {
	yesNo := func(v string) error { return checkOneOf(v, "yes", "no") }
	return []attribute{
		{name: "match", check: func(v string) error { return checkMatch(level, v) }, repeatable: true},
		{name: "ciphers", check: func(v string) error { return checkOneOf(v, "export", "low", "medium", "high", "null") }},
		{name: "protocols", check: checkProtocols, mayBeEmpty: true},
		{name: "exclude", check: checkExclusions, mayBeEmpty: true},
		{name: "tafile", check: func(string) error { return checkLevel(level, "verify", "secure") }, repeatable: true},
		{name: "servername", check: checkServerName},
		{name: "connection_reuse", check: yesNo, repeatable: true},
		{name: "enable_rpk", check: yesNo, repeatable: true},
	}
}

// CheckText returns why Postfix would not accept text as a policy, or nil. Postfix
// defers all mail for the domain of a policy that it cannot parse. CheckText is for
// texts of an administrator (package override), and so is stricter where a text that
// Postfix accepts can only be a mistake, such as attributes after "none".
//
// It does not check whether the file of tafile= exists in the chroot of smtp(8), or
// whether a release knows an attribute: connection_reuse and servername exist from
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
		// Postfix then uses those of main.cf. If that level is not used there,
		// there are none, and Postfix defers.
		return errors.New(`level "fingerprint" needs match= with a fingerprint`)
	}
	return nil
}

// checkAttribute checks one attribute and adds it to seen, which has those before
// it.
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
	case value == "" && !all[i].mayBeEmpty:
		return fmt.Errorf("attribute %s has no value", name)
	case seen[name] && !all[i].repeatable:
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

func checkOneOf(value string, words ...string) error {
	if slices.Contains(words, strings.ToLower(value)) {
		return nil
	}
	return fmt.Errorf("%.40q is none of %s", value, strings.Join(words, ", "))
}

// checkLevel returns an error if level is not one of levels.
func checkLevel(level string, levels ...string) error {
	if slices.Contains(levels, level) {
		return nil
	}
	return fmt.Errorf("not at level %s, only with %s", level, strings.Join(levels, ", "))
}

// checkMatch checks a value of match=: fingerprints at level fingerprint, names at
// levels that verify names.
func checkMatch(level, value string) error {
	if err := checkLevel(level, "fingerprint", "verify", "secure"); err != nil {
		return err
	}
	separator, fits := ":", func(s string) bool { return isHostName(strings.TrimPrefix(s, ".")) }
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
// colon between two bytes (util/hex_code.c). Postfix ignores any other, and defers
// if none is left. With one of another length than that of a digest it defers after
// it has connected (tls/tls_dane.c).
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

// checkProtocols checks a list of protocols: names, optionally excluded by "!", and
// bounds, a name after ">=" or "<=" (tls/tls_misc.c). With a list that it cannot
// parse Postfix does not use TLS at all.
func checkProtocols(value string) error {
	for part := range strings.SplitSeq(value, ":") {
		name := part
		for _, sign := range []string{"!", ">=", "<="} {
			if rest, ok := strings.CutPrefix(part, sign); ok {
				name = rest
			}
		}
		if err := checkOneOf(name, "sslv2", "sslv3", "tlsv1", "tlsv1.1", "tlsv1.2", "tlsv1.3"); err != nil {
			return err
		}
	}
	return nil
}

// checkExclusions checks a list of ciphers and groups of ciphers. Postfix refuses
// names that begin with an operator of OpenSSL (tls/tls_misc.c). Any other character
// that is not part of a name would end it there and begin another, which OpenSSL
// would then enable.
func checkExclusions(value string) error {
	invalid := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_+.", r)
	}
	for part := range strings.SplitSeq(value, ":") {
		if part == "" || strings.ContainsAny(part[:1], "-+") || strings.ContainsFunc(part, invalid) {
			return fmt.Errorf("%.40q is no name of ciphers", part)
		}
	}
	return nil
}

// checkServerName checks a name for SNI, or a keyword for one.
func checkServerName(value string) error {
	if !isHostName(value) {
		return fmt.Errorf("%.40q is no host name", value)
	}
	return nil
}

// isHostName reports whether s, which may be any text, is a valid host name for
// Postfix (util/valid_hostname.c).
func isHostName(s string) bool {
	invalid := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	}
	long := func(label string) bool { return len(label) > maxLabel }
	return validHostname(s) && len(s) <= 255 && !strings.ContainsFunc(s, invalid) &&
		!slices.ContainsFunc(strings.Split(s, "."), long) && strings.Trim(s, "0123456789-.") != ""
}
