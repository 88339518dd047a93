package postfix_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"stsmap/dane"
	"stsmap/postfix"
)

// TestNextHop runs testdata/nexthops.txt.
func TestNextHop(t *testing.T) {
	data, err := os.ReadFile("testdata/nexthops.txt")
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
		if got := nextHopOf(key, !unbracketed); got != want {
			t.Errorf("line %d: %s is %s, want %s", n, quoted, got, want)
		}
	}
	if cases == 0 {
		t.Fatal("no cases")
	}
}

// nextHopOf is the answer of NextHop in the words of testdata/nexthops.txt.
func nextHopOf(key string, bracketed bool) string {
	hop, ok := postfix.NextHop(key, bracketed)
	if !ok {
		if hop != (dane.NextHop{}) {
			return fmt.Sprintf("refused, but with %v", hop)
		}
		return "-"
	}
	if hop.String() != hop.Domain {
		return fmt.Sprintf("%s %d %s", hop.Domain, hop.Port, hop)
	}
	return fmt.Sprintf("%s %d", hop.Domain, hop.Port)
}

// nameOf returns a name of n bytes whose labels have at most size bytes.
func nameOf(n, size int) string {
	b := []byte(strings.Repeat("a", n))
	for i := size; i < n-1; i += size + 1 {
		b[i] = '.'
	}
	return string(b)
}

// TestNextHopLengths: with "_mta-sts." before it a name must still be one, 253
// bytes without the final dot (RFC 1035, Section 2.3.4), and a label has 63.
func TestNextHopLengths(t *testing.T) {
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
		if hop, ok := postfix.NextHop(c.key, true); ok != c.ok {
			t.Errorf("key of %d bytes, %.20q…: %t (%d bytes), want %t", len(c.key), c.key, ok, len(hop.Domain), c.ok)
		}
	}
}
