package postfix_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"stsmap/postfix"
)

// TestCheckText: testdata/texts.txt has what an administrator can write, and what
// is said of it: "ok", or a part of the error. What Postfix says itself is for e2e,
// where one is asked.
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
