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
}

// levels are those of a policy (tls/tls_level.c), from the weakest on.
func levels() []string {
	return []string{"none", "may", "encrypt", "dane", "dane-only", "half-dane", "fingerprint", "verify", "secure"}
}

// attributesOf returns the attributes that an administrator may want at a level. Those of a policy for TLSRPT are not
// among them: what they say has to be what a domain has published.
func attributesOf(level string) []attribute {
	return []attribute{
		{"match", func(v string) error { return matches(level, v) }, true},
		{"ciphers", func(v string) error { return oneOf(v, "export", "low", "medium", "high", "null") }, false},
		{"protocols", protocols, false},
		{"exclude", func(v string) error { return nil }, true},
		{"tafile", func(v string) error { return nil }, true},
		{"servername", serverName, false},
		{"connection_reuse", func(v string) error { return oneOf(v, "yes", "no") }, false},
		{"enable_rpk", func(v string) error { return oneOf(v, "yes", "no") }, false},
	}
}

// CheckText says why Postfix would not accept text as a policy, or nil: one that
// it does not understand makes all mail for the domain wait. It is for what an
// administrator writes (package override). Whether a release is old enough not
// to know an attribute is not looked at: connection_reuse and servername are
// there from 3.4 on, enable_rpk from 3.9 on.
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
	case value == "":
		return fmt.Errorf("attribute %s has no value", name)
	case seen[name] && !all[i].many:
		return fmt.Errorf("attribute %s is there twice", name)
	}
	seen[name] = true
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

// matches checks what match= may be: names at levels that verify names, and
// fingerprints at the one that is about those.
func matches(level, value string) error {
	separator := ":"
	switch level {
	case "verify", "secure":
	case "fingerprint":
		separator = "|"
	default:
		return fmt.Errorf("not at level %s, only with fingerprint, verify or secure", level)
	}
	for part := range strings.SplitSeq(value, separator) {
		name := strings.TrimPrefix(part, ".")
		if part == "" || level != "fingerprint" && !validHostname(name) {
			return fmt.Errorf("%.40q cannot be matched", part)
		}
	}
	return nil
}

// protocols checks a list of protocols: names, each excluded by "!", or bounds by
// ">=" and "<=" (tls/tls_misc.c).
func protocols(value string) error {
	for part := range strings.SplitSeq(value, ":") {
		name := part
		for _, sign := range []string{"!", ">=", "<="} {
			name = strings.TrimPrefix(name, sign)
		}
		if err := oneOf(name, "sslv2", "sslv3", "tlsv1", "tlsv1.1", "tlsv1.2", "tlsv1.3"); err != nil {
			return err
		}
	}
	return nil
}

// serverName checks a name for SNI, or a word that stands for one.
func serverName(value string) error {
	if !validHostname(value) {
		return fmt.Errorf("%.40q is no host name", value)
	}
	return nil
}
