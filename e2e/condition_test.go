package e2e

import (
	"strings"
	"testing"
)

func TestCondition(t *testing.T) {
	for _, c := range []struct {
		text     string
		covered  string // releases that the line is for
		excluded string
	}{
		{"expect sent", "3.4.0 3.7.11 3.10.13 3.12-20260821", ""},
		{"[3.10+] expect sent", "3.10.0 3.10.13 3.11.7 3.11-RC1 3.12-20260821 4.0.0", "3.7.11 3.9.9 2.11.3"},
		{"[3.9-] expect sent", "3.9.0 3.9.9 3.7.11 2.11.3", "3.10.0 3.10.13 3.11.7"},
		{"[3.10.5+] expect sent", "3.10.5 3.10.13 3.11.0 3.12-20260821", "3.10.4 3.9.9"},
		{"[3.10.4-] expect sent", "3.10.4 3.10.0 3.7.11", "3.10.5 3.11.0"},
		{"[3.11+] expect sent", "3.11.0 3.11-RC1", "3.10.13"},
		{"[3.10-] expect sent", "3.10.13 3.7.11", "3.11.0"},
	} {
		when, rest, err := condition(c.text)
		if err != nil || rest != "expect sent" {
			t.Errorf("%s: %q, %v", c.text, rest, err)
			continue
		}
		for _, want := range []bool{true, false} {
			releases := c.covered
			if !want {
				releases = c.excluded
			}
			for version := range strings.FieldsSeq(releases) {
				r, err := parseRelease(version)
				if err != nil {
					t.Fatal(err)
				}
				if got := when.covers(r); got != want {
					t.Errorf("%s: covers %s: %t", c.text, version, got)
				}
			}
		}
	}
}

// TestImpossibleCondition: a condition that no release fulfils, or that is malformed, is an error.
func TestImpossibleCondition(t *testing.T) {
	for _, text := range []string{
		"[3.10] report a => b", "[3.1+] report a => b", "[3.01+] report a => b", "[3.99+] report a => b", "[3.7] report a => b",
		"[10+] report a => b", "[+] report a => b", "[] report a => b", "[trixie] report a => b", "[3.10+ report a => b",
		"[3.10+]report a => b", "[3.10+]", "[3.10+]  ", "[3.10 +] report a => b", "[3.10+-] report a => b",
	} {
		if when, rest, err := condition(text); err == nil {
			t.Errorf("%s: %v %q", text, when, rest)
		}
	}
	for _, version := range []string{"", "3", "3.x", "3.-1", "mail_version = 3.7.11", "3..1"} {
		if r, err := parseRelease(version); err == nil {
			t.Errorf("%q is %v", version, r)
		}
	}
}

func TestRepeated(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"a\nb", "a\nb"},
		{"a\n!repeat 3 mx: m#.#.example\nb\n", "a\nmx: m1.1.example\nmx: m2.2.example\nmx: m3.3.example\nb\n"},
		{"!repeat\n", "!repeat\n"}, // the world will not have it
		{"!repeat 3\n", ""},
		{"!repeat x y\n", ""},
		{"!repeat 0 y\n", ""},
	} {
		got, err := repeated(c.text)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q: %q, %v", c.text, got, err)
		}
	}
}

// The widest cells, the name of our longest scenario, and a Postfix that could not be started.
func TestMatrix(t *testing.T) {
	scenarios := load(t, "scenarios")
	longest := scenarios[0]
	for _, c := range scenarios {
		if len(c.name) > len(longest.name) {
			longest = c
		}
	}
	m := newMatrix([]scenario{longest, {name: "99-other"}})
	ended := func(name string, failed bool, p *play) {
		t.Helper()
		p.failed = failed
		m.enter(name, p)
	}
	m.column("machine")
	m.is("3.7.11")
	ended(longest.name, true, &play{played: 3, line: line{number: 100}})
	ended("99-other", false, &play{})
	m.column("trixie")
	m.is("3.10.13")
	ended(longest.name, false, &play{played: 3, outcomes: "ssssssssss"})
	ended("99-other", false, &play{played: 1})
	m.column("testing")
	var rows []string
	for l := range strings.Lines(m.String()) {
		if l = strings.TrimSuffix(l, "\n"); len(l) >= 80 {
			t.Errorf("%d columns: %s", len(l), l)
		}
		rows = append(rows, strings.Join(strings.Fields(l), " "))
	}
	want := []string{
		"scenario 3.7.11 3.10.13 testing",
		longest.name + " FAILED, play:100 ok ssssssssss not played",
		"99-other - ok not played",
	}
	if got := rows[len(rows)-3:]; strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q, want %q", got, want)
	}
}
