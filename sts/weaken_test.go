package sts

import (
	"fmt"
	"strings"
	"testing"
)

func TestWeakened(t *testing.T) {
	const base = "mode=enforce max_age=604800 mx=mx1.example.com mx=*.example.net"
	for _, c := range []struct{ what, before, after, want string }{
		{"the same", base, base, ""},
		{"order does not count", base, "mode=enforce max_age=604800 mx=*.example.net mx=mx1.example.com", ""},
		{"stronger in every way", "mode=testing max_age=60 mx=*.example.net", "mode=enforce max_age=61 mx=a.example.net", ""},
		{"no longer enforced", base, strings.Replace(base, "enforce", "testing", 1), "mode enforce -> testing"},
		{"switched off: its hosts do not matter", base, "mode=none max_age=604800 mx=evil.example", "mode enforce -> none"},
		{"testing switched off", "mode=testing max_age=60 mx=a.example", "mode=none max_age=60", "mode testing -> none"},
		{"switched on", "mode=none max_age=604800", "mode=enforce max_age=60 mx=a.example", ""},
		{"shorter", base, strings.Replace(base, "604800", "86400", 1), "max_age 604800 -> 86400"},
		{"hosts", base, base + " mx=new.example mx=*.example.org", "mx +new.example +*.example.org"},
		{"a host below a wildcard is no new one", base, base + " mx=a.example.net", ""},
		{"a wildcard covers one label (RFC 8461, Section 4.1)", base, base + " mx=a.b.example.net", "mx +a.b.example.net"},
		{"a wildcard for one host", "mode=enforce max_age=60 mx=a.example.net", "mode=enforce max_age=60 mx=*.example.net", "mx +*.example.net"},
		{"all at once", base, "mode=testing max_age=60 mx=*.evil.example", "mode enforce -> testing; max_age 604800 -> 60; mx +*.evil.example"},
	} {
		var got []string
		for _, w := range Weakened(made(t, c.before), made(t, c.after)) {
			got = append(got, w.String())
		}
		if text := strings.Join(got, "; "); text != c.want {
			t.Errorf("%s: got %q, want %q", c.what, text, c.want)
		}
	}
}

// made is the policy with the fields of a line.
func made(t *testing.T, fields string) *Policy {
	t.Helper()
	text := "version: STSv1\n"
	for f := range strings.FieldsSeq(fields) {
		text += fmt.Sprintln(strings.Replace(f, "=", ": ", 1))
	}
	p, err := ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}
