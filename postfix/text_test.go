package postfix_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"stsmap/postfix"
)

// TestCheckText: each line of testdata/texts.txt is a text that an
// administrator can write, and the result that CheckText must have: "ok", or a
// part of the error. Package e2e compares the same texts with a real Postfix.
func TestCheckText(t *testing.T) {
	data, err := os.ReadFile("testdata/texts.txt")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		n++
		quoted, want, _ := strings.Cut(line, " => ")
		want, _, _ = strings.Cut(want, "; Postfix: ")
		ok := want == "ok" || strings.HasPrefix(want, "ok from ")
		text, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		err = postfix.CheckText(text)
		if ok != (err == nil) || !ok && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if n < 60 {
		t.Errorf("only %d texts", n)
	}
}
