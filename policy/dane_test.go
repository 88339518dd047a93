package policy

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestWeigh holds the table of DANE and MTA-STS against testdata/weigh.txt. A
// line has a row of the table, the states of the hosts or what became of the
// check, and then what is answered where a policy is enforced and where there
// is none; then, where it differs, with Partial or FallBack.
func TestWeigh(t *testing.T) {
	text, err := os.ReadFile("testdata/weigh.txt")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Split(line, "|")
		if strings.TrimSpace(line) == "" {
			continue
		}
		if len(fields) != 5 {
			t.Fatalf("%q has %d columns", line, len(fields))
		}
		n++
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		f := new(daneState)
		r, err := parseResult(strings.Fields(fields[1]))
		if fail, ok := errors.AsType[failing](err); ok {
			f.err = fail.error
		} else if err != nil {
			t.Fatalf("%q: %v", line, err)
		} else {
			f.result = &r
		}
		standing := map[string]Kind{"enforce": Enforce, "none": None, "testing": Testing, "failed": Failed}
		for i, want := range fields[2:] {
			c := DANEConfig{All: true, Partial: i == 2, FallBack: i == 2}
			for word, k := range standing {
				if (k == Enforce) == (i == 1) {
					continue
				}
				// "-" is what stands; a policy in testing mode is like none,
				// and a failed record is no worse than DANE alone.
				expected := want
				if want == "-" || word == "failed" && want == "dane" {
					expected = word
				}
				got, reason := c.combine(k, f)
				if got.String() != expected {
					t.Errorf("%s: %s: where MTA-STS says %s: %s, want %s", fields[0], fields[1], word, got, expected)
				}
				if (got == Failed && k != Failed) != strings.HasPrefix(reason, "DANE: ") {
					t.Errorf("%s: %s: reason %q for %s", fields[0], fields[1], reason, got)
				}
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d rows", n)
	}
}

// TestSummary: the text that lists many hosts has a bounded length.
func TestSummary(t *testing.T) {
	r, err := parseResult(slices.Repeat([]string{"unusable"}, 1000))
	if err != nil {
		t.Fatal(err)
	}
	if text := summary(&r); len(text) > 1000 || !strings.HasSuffix(text, "and 992 more hosts") {
		t.Errorf("%d bytes: %s", len(text), text)
	}
}
