package postfix_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"stsmap/postfix"
)

// TestDomain runs testdata/domains.txt.
func TestDomain(t *testing.T) {
	data, err := os.ReadFile("testdata/domains.txt")
	if err != nil {
		t.Fatal(err)
	}
	n, cases := 0, 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		cases++
		rest, unbracketed := strings.CutPrefix(line, "unbracketed ")
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			t.Fatalf("line %d: %v", n, err)
		}
		want, ok := strings.CutPrefix(rest[len(quoted):], " = ")
		if !ok {
			t.Fatalf("line %d: no \" = \" after the key", n)
		}
		key, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatalf("line %d: %v", n, err)
		}
		if got := domainOf(key, !unbracketed); got != want {
			t.Errorf("line %d: %s is %s, want %s", n, quoted, got, want)
		}
	}
	if cases == 0 {
		t.Fatal("no cases")
	}
}

// domainOf is the answer of Domain in the words of testdata/domains.txt.
func domainOf(key string, bracketed bool) string {
	domain, port, ok := postfix.Domain(key, bracketed)
	if !ok {
		if domain != "" || port != 0 {
			return fmt.Sprintf("refused, but with %q and %d", domain, port)
		}
		return "-"
	}
	return fmt.Sprintf("%s %d", domain, port)
}

// nameOf returns a name of n bytes whose labels have at most size bytes.
func nameOf(n, size int) string {
	b := []byte(strings.Repeat("a", n))
	for i := size; i < n-1; i += size + 1 {
		b[i] = '.'
	}
	return string(b)
}

// TestDomainLengths: with "_mta-sts." before it a name must still be one, 253
// bytes without the final dot (RFC 1035, Section 2.3.4), and a label has 63.
func TestDomainLengths(t *testing.T) {
	for _, c := range []struct {
		key string
		ok  bool
	}{
		{nameOf(244, 60), true},
		{nameOf(244, 60) + ".", true},
		{nameOf(244, 60) + ":65535", true},
		{"[" + nameOf(244, 60) + "]:65535", true},
		{nameOf(245, 60), false},
		{nameOf(250, 60), false},
		{nameOf(253, 60), false},
		{nameOf(1000, 60), false},
		{nameOf(10000, 60), false},
		{strings.Repeat("a", 63) + ".example", true},
		{strings.Repeat("a", 64) + ".example", false},
		{"example." + strings.Repeat("a", 63), true},
		{"example." + strings.Repeat("a", 64), false},
		// Many U-labels: short in A-labels' terms is what counts, not UTF-8.
		{strings.Repeat("\u00fc.", 25) + "example", true},
		{strings.Repeat("\u00fc.", 100) + "example", false},
		{strings.Repeat("\u00fc", 200) + ".example", false},
	} {
		if domain, _, ok := postfix.Domain(c.key, true); ok != c.ok {
			t.Errorf("key of %d bytes, %.20q…: %t (%d bytes), want %t", len(c.key), c.key, ok, len(domain), c.ok)
		}
	}
}
