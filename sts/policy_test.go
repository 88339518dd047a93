package sts

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const policyKeys = "body add drop set mode max_age mx lines last error"

// fixture is the policy that cases change.
func fixture() []string {
	return []string{"version: STSv1", "mode: enforce", "mx: mx1.example.com", "mx: *.example.net", "max_age: 604800"}
}

// body builds the policy of a case.
func (c testCase) body(t testing.TB) string {
	t.Helper()
	if parts, ok := c.values["body"]; ok {
		return strings.Join(unquoteAll(t, parts), "")
	}
	var b strings.Builder
	for _, line := range fixture() {
		name, _, _ := strings.Cut(line, ":")
		if name == c.one("drop", "") {
			continue
		}
		if field, value, _ := strings.Cut(c.one("set", ""), " "); field == name {
			line = name + ": " + value
		}
		b.WriteString(line + "\r\n")
	}
	for _, line := range c.values["add"] {
		line, err := strconv.Unquote(`"` + line + `"`)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(line + "\r\n")
	}
	return b.String()
}

// policy is what a case expects, without Lines.
func (c testCase) policy(t *testing.T) Policy {
	t.Helper()
	age, err := strconv.Atoi(c.one("max_age", "604800"))
	if err != nil {
		t.Fatal(err)
	}
	want := Policy{MaxAge: time.Duration(age) * time.Second}
	switch m := c.one("mode", "enforce"); m {
	case "enforce":
		want.Mode = Enforce
	case "testing":
		want.Mode = Testing
	case "none":
		want.Mode = None
	default:
		t.Fatalf("unknown mode %q", m)
	}
	if mx := c.one("mx", "mx1.example.com *.example.net"); mx != "none" {
		for _, p := range strings.Fields(mx) {
			want.MX = append(want.MX, Pattern(p))
		}
	}
	return want
}

func TestParsePolicy(t *testing.T) {
	for _, c := range readCases(t, "testdata/policies.txt", policyKeys) {
		t.Run(c.name, func(t *testing.T) {
			body := c.body(t)
			got, err := ParsePolicy([]byte(body))
			if want := c.one("error", ""); want != "" {
				if err == nil || err.Error() != want || got != nil {
					t.Fatalf("%q\ngot  %v %v\nwant %s", body, got, err, want)
				}
				if syntax, ok := err.(*SyntaxError); !ok || syntax.Line == 0 {
					t.Errorf("the error is %#v", err)
				}
				return
			}
			if err != nil {
				t.Fatalf("%q\n%v", body, err)
			}
			lines, err := strconv.Atoi(c.one("lines", strconv.Itoa(5+len(c.values["add"]))))
			if err != nil || len(got.Lines) != lines {
				t.Errorf("%d lines, want %d (%v)", len(got.Lines), lines, err)
			}
			for _, last := range unquoteAll(t, c.values["last"]) {
				if l := got.Lines[len(got.Lines)-1]; l != last {
					t.Errorf("last line %q, want %q", l, last)
				}
			}
			want := c.policy(t)
			want.Lines = got.Lines
			if diff := cmp.Diff(&want, got); diff != "" {
				t.Errorf("%q\n%s", body, diff)
			}
		})
	}
}

// What a case expects of Lines it says in numbers; here they are held against the text once.
func TestPolicyLines(t *testing.T) {
	body := "version: STSv1 \r\nmode:\tnone\t\nMX-2: a  b\nmax_age: 1\n\r\n\n"
	p, err := ParsePolicy([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"version: STSv1", "mode:\tnone", "MX-2: a  b", "max_age: 1"}
	if diff := cmp.Diff(want, p.Lines); diff != "" {
		t.Error(diff)
	}
}

// A policy does not change with the buffer that it was read from.
func TestPolicyKeepsNoReference(t *testing.T) {
	body := []byte(strings.Join(fixture(), "\n"))
	p, err := ParsePolicy(body)
	if err != nil {
		t.Fatal(err)
	}
	for i := range body {
		body[i] = 'x'
	}
	if p.Lines[0] != "version: STSv1" || p.MX[0] != "mx1.example.com" {
		t.Errorf("%q", p)
	}
}

// TestManyExchangers: long lists of MX patterns, which are searched for duplicates in another way than short ones, have
// the same result.
func TestManyExchangers(t *testing.T) {
	var b strings.Builder
	b.WriteString("version: STSv1\nmode: enforce\nmax_age: 1\n")
	var want []Pattern
	for range 3 {
		for i := range 40 {
			fmt.Fprintf(&b, "mx: MX%d.example\n", i)
		}
	}
	for i := range 40 {
		want = append(want, Pattern(fmt.Sprintf("mx%d.example", i)))
	}
	p, err := ParsePolicy([]byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, p.MX); diff != "" {
		t.Error(diff)
	}
}

// The limits of names, too long for a table: RFC 5321, Section 4.5.3.1.2.
func TestLongestDomain(t *testing.T) {
	name := strings.Repeat("abcdefg.", 31) + "abcdefg" // 255
	for _, c := range []struct{ mx, reason string }{
		{name, ""},
		{"*." + name, ""},
		{name + "x", "is not a domain name: longer than 255 characters"},
		{"*." + name + "x", "is not a domain name: longer than 255 characters"},
	} {
		_, err := ParsePolicy([]byte("version: STSv1\nmode: enforce\nmax_age: 1\nmx: " + c.mx))
		switch {
		case c.reason == "" && err != nil:
			t.Errorf("%d: %v", len(c.mx), err)
		case c.reason != "" && (err == nil || !strings.HasSuffix(err.Error(), c.reason)):
			t.Errorf("%d: %v", len(c.mx), err)
		}
	}
}

func TestMode(t *testing.T) {
	for m, want := range map[Mode]string{None: "none", Testing: "testing", Enforce: "enforce", 7: "Mode(7)"} {
		if got := m.String(); got != want {
			t.Errorf("%d: %q, want %q", uint8(m), got, want)
		}
	}
}

func TestMatch(t *testing.T) {
	data, err := os.ReadFile("testdata/matches.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		if len(f) != 3 || f[2] != "yes" && f[2] != "no" {
			t.Fatalf("bad line %q", line)
		}
		if got := Pattern(f[0]).Match(f[1]); got != (f[2] == "yes") {
			t.Errorf("%s matches %s: %v", f[0], f[1], got)
		}
	}
	if Pattern("").Match("") || Pattern("mx.example.com").Match("") {
		t.Error("the empty host matches")
	}
}

// Law: an error leaves nothing behind and names a line of the policy; a success survives printing and
// parsing, its patterns among what the grammar allows.
func FuzzParsePolicy(f *testing.F) {
	for _, c := range readCases(f, "testdata/policies.txt", policyKeys) {
		f.Add([]byte(c.body(f)))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := ParsePolicy(body)
		lines, mistakes := ReadPolicy(body)
		if (err == nil) != (len(mistakes) == 0) || err != nil && *err.(*SyntaxError) != *mistakes[0] || err == nil && len(lines) != len(p.Lines) {
			t.Fatalf("ParsePolicy says %v, ReadPolicy %v", err, mistakes)
		}
		if err != nil {
			syntax, ok := err.(*SyntaxError)
			if p != nil || !ok || syntax.Line < 1 || syntax.Line > strings.Count(string(body), "\n")+1 {
				t.Fatalf("%v, %#v", p, err)
			}
			return
		}
		again, err := ParsePolicy([]byte(strings.Join(p.Lines, "\r\n")))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(p, again); diff != "" {
			t.Fatal(diff)
		}
		if len(p.MX) == 0 && p.Mode != None || p.MaxAge < 0 || p.MaxAge > maxAge {
			t.Fatalf("%+v", p)
		}
		for _, m := range p.MX {
			if again, reason := parsePattern(string(m)); again != m || reason != "" {
				t.Fatalf("%q became %q: %s", m, again, reason)
			}
		}
	})
}

// Law: a pattern never matches a host with another number of labels, and one that is no wildcard
// matches itself.
func FuzzMatch(f *testing.F) {
	f.Add("*.example.com", "a.example.com")
	f.Add("mx.example.com", "MX.example.com.")
	f.Add("*.com", "a.b.com")
	f.Fuzz(func(t *testing.T, pattern, host string) {
		p, reason := parsePattern(pattern)
		if reason != "" {
			return
		}
		labels := strings.Count(strings.TrimSuffix(host, "."), ".")
		if p.Match(host) && labels != strings.Count(string(p), ".") {
			t.Fatalf("%q matches %q", p, host)
		}
		if !p.Match(strings.Replace(strings.ToUpper(string(p)), "*", "a", 1)) {
			t.Fatalf("%q does not match itself", p)
		}
	})
}

func BenchmarkParsePolicy(b *testing.B) {
	body := []byte(strings.Join(fixture(), "\r\n") + "\r\n")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParsePolicy(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	for b.Loop() {
		if !Pattern("*.example.com").Match("MX1.example.com") {
			b.Fatal("no match")
		}
	}
}
