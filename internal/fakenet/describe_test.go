package fakenet

import (
	_ "embed"
	"strings"
	"testing"
)

// TestErrors holds errors to the line of what is wrong. The marker <<< ends that line, and is taken out.
func TestErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ description, want string }{
		{"comment\n-- nonsense --<<<\n", `unknown section "nonsense"`},
		{"-- policies/x --<<<\n", `unknown section "policies/x"`},
		{"-- dns --\n-- dns --<<<\n", "twice"},
		{"-- policy/a --\n-- policy-crlf/a --<<<\n", "twice"},
		{"-- policy-quoted/a --\nno string<<<\n", "Go string"},
		{"-- dns --\na.example. A 192.0.2.1\n\nb.example. A 192.0.2.256<<<\n", "192.0.2.256"},
		{"-- dns --\n\na.example. MX<<<\nb.example. A 192.0.2.1\n", "newline"},
		{"-- dns --\na.example. TXT<<<\n", "without data"},
		{"x\ny\n-- dns --\n!servfail a\na.example. ADDR 192.0.2.1<<<\n", "ADDR"},
		{"-- dns --\n!sevfail a A<<<\n", `unknown fault "!sevfail"`},
		{"-- dns --\n!delay fast a A<<<\n", `bad time "fast"`},
		{"-- dns --\n!drop 0 a A<<<\n", `bad number "0"`},
		{"-- dns --\n!drop<<<\n", "lacks"},
		{"-- dns --\n!silent<<<\n", "NAME"},
		{"-- dns --\n!silent a AAAAA<<<\n", `unknown type "AAAAA"`},
		{"-- dns --\n!silent a..b<<<\n", "bad name"},
		{"-- dns --\n!tlsa mx<<<\n", "USAGE"},
		{"-- dns --\n# one\n!tlsa mx.example 3 1 1<<<\n", "no such MX host"},
		{"-- https --\n# comment\n\na.example addr=127.0.0.2 adr=1<<<\n", `unknown word "adr=1"`},
		{"-- https --\naddr=127.0.0.2<<<\n", "not with a host name"},
		{"-- https --\na.example<<<\n", "without addr"},
		{"-- https --\na.example addr=localhost<<<\n", `bad address "localhost"`},
		{"-- https --\na.example addr=127.0.0.2 policy=x<<<\n", "no section for policy=x"},
		{"-- https --\na.example addr=127.0.0.2\na.example addr=127.0.0.2<<<\n", "twice"},
		{"-- https --\na.example addr=127.0.0.2 cert=bad<<<\n", `unknown certificate "bad"`},
		{"-- https --\na.example addr=127.0.0.2 cert=none<<<\n", "MX hosts"},
		{"-- https --\na.example addr=127.0.0.2 tls=2<<<\n", "TLS version"},
		{"-- https --\na.example addr=127.0.0.2 sni=maybe<<<\n", "sni=maybe"},
		{"-- https --\na.example addr=127.0.0.2 stall=late<<<\n", "stall=late"},
		{"-- https --\na.example addr=127.0.0.2 status=99<<<\n", "status=99"},
		{"-- https --\na.example addr=127.0.0.2 size=5<<<\n", "no room"},
		{"-- https --\na.example addr=127.0.0.2 delay=-1s<<<\n", "bad time"},
		{"-- https --\na.example addr=127.0.0.2 header=\"x<<<\n", "quote without end"},
		{"-- https --\na.example addr=127.0.0.2 header=x<<<\n", "bad header"},
		{"-- smtp --\nmx.example<<<\n", "without addr"},
		{"-- smtp --\nmx.example addr=127.0.0.2 policy=x<<<\n", "policy=x"},
		{"-- smtp --\na.example addr=127.0.0.2\nb.example addr=127.0.0.2<<<\n", "belongs to a.example"},
		{"-- bulk --\npolicy d%d.example<<<\n", "range"},
		{"-- bulk --\nall d%d.example 1..2<<<\n", `unknown word "all"`},
		{"-- bulk --\nnone d%d.example 2..1<<<\n", `bad range "2..1"`},
		{"-- bulk --\nnone d.example 1..2<<<\n", "no %d"},
		{"-- bulk --\nnone d.%d.example 1..2<<<\n", "first label"},
		{"-- bulk --\nnone d%d.example 1..2 addr=127.0.0.2<<<\n", "addr"},
		{"-- bulk --\npolicy d%d.example 1..2<<<\n", "addr"},
		{"-- bulk --\nnone d%d.example 1..2 mxx=a<<<\n", "mxx=a"},
	} {
		before, after, found := strings.Cut(c.description, "<<<")
		if !found {
			t.Fatalf("no marker in %q", c.description)
		}
		n, err := Start(before+after, Options{})
		if err == nil {
			n.Close()
			t.Errorf("no error for %q", before)
			continue
		}
		line := "line " + string(rune('1'+strings.Count(before, "\n"))) + ": "
		if !strings.Contains(err.Error(), line) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q:\n got %v\nwant %s… %s", before, err, line, c.want)
		}
	}
}

//go:embed doc.go
var docFile string

// TestDoc starts the world that the package comment shows.
func TestDoc(t *testing.T) {
	t.Parallel()
	_, text, found := strings.Cut(docFile, "//\tA domain with")
	text, _, ended := strings.Cut(text, "\n//\n")
	if !found || !ended {
		t.Fatal("the package comment shows no world")
	}
	n := open(t, strings.ReplaceAll(text, "\n//\t", "\n"))
	if _, body, err := get(t, n, "mta-sts.example.com"); err != nil || !strings.HasPrefix(string(body), "version: STSv1\r\n") {
		t.Errorf("policy: %q, %v", body, err)
	}
	if n.SMTPAddr("mx1.example.com") == "" {
		t.Error("no MX host")
	}
}
