package postfix_test

import (
	"fmt"
	"strings"
	"testing"

	"stsmap/policy"
	"stsmap/postfix"
	"stsmap/socketmap"
	"stsmap/sts"
)

// enforced is a decision to enforce patterns.
func enforced(patterns ...sts.Pattern) *policy.Decision {
	return &policy.Decision{Domain: "example.com", Kind: policy.Enforce, STS: &sts.Policy{Mode: sts.Enforce, MX: patterns}}
}

// TestReplyKinds: what each kind of decision is in Postfix's words.
func TestReplyKinds(t *testing.T) {
	for _, c := range []struct {
		decision *policy.Decision
		status   socketmap.Status
		text     string
	}{
		{&policy.Decision{Domain: "example.com"}, socketmap.NotFound, ""},
		{&policy.Decision{Domain: "example.com", STS: &sts.Policy{Mode: sts.None}}, socketmap.NotFound, ""},
		{&policy.Decision{Domain: "example.com", Kind: policy.Testing, STS: &sts.Policy{Mode: sts.Testing, MX: []sts.Pattern{"mx.example.com"}}}, socketmap.NotFound, ""},
		{enforced("mx.example.com"), socketmap.OK, "secure match=mx.example.com servername=hostname"},
		{enforced("*.example.com", "a.example", "*.b.example"), socketmap.OK, "secure match=.example.com:a.example:.b.example servername=hostname"},
		{&policy.Decision{Domain: "example.com", Kind: policy.Failed, Reason: "record: timeout"}, socketmap.Temp,
			"mta-sts: example.com: record: timeout; run: stsmap explain example.com"},
	} {
		for range 2 { // made, and taken from the memo
			got := postfix.Reply(c.decision)
			if got.Status != c.status || got.Text != c.text {
				t.Errorf("%s: %s %q, want %s %q", c.decision.Kind, got.Status, got.Text, c.status, c.text)
			}
			checkForm(t, got)
		}
	}
}

// TestReplyForeignPatterns: nothing that the parser would have refused gets
// into match=, should it ever get past the parser.
func TestReplyForeignPatterns(t *testing.T) {
	for _, p := range []sts.Pattern{
		"", "*", "*.", ".", "..", "*..", "hostname", "nexthop", "dot-nexthop", "mx",
		"192.0.2.1", "*.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "a.1", "a.",
		"a.b:c.d", "a.b,c.d", "a.b c.d", "a.b\tc.d", "a.b\nc.d", "a.b\x00c.d", "a.b{c.d}", "a.b=c.d",
		"A.B", "a_b.c", "b\u00fccher.example", "a.b\xff", "*.*.example", "a.*.example",
	} {
		if got := postfix.Reply(enforced(p)); got.Status != socketmap.Temp {
			t.Errorf("pattern %q alone makes %s %q, want TEMP", p, got.Status, got.Text)
		}
		got := postfix.Reply(enforced("mx1.example.com", p, "*.example.net"))
		if want := "secure match=mx1.example.com:.example.net servername=hostname"; got.Status != socketmap.OK || got.Text != want {
			t.Errorf("pattern %q among others makes %s %q, want %q", p, got.Status, got.Text, want)
		}
	}
}

// TestReplySize: a value that Postfix would not read to its end is none
// (socketmap_max_reply_size is 100000).
func TestReplySize(t *testing.T) {
	many := func(n int) []sts.Pattern {
		out := make([]sts.Pattern, n)
		for i := range out {
			out[i] = sts.Pattern(fmt.Sprintf("mx%05d.example.com", i)) // 19 bytes, and a colon
		}
		return out
	}
	fits := postfix.Reply(enforced(many(4500)...))
	if fits.Status != socketmap.OK {
		t.Errorf("4500 patterns, 90000 bytes: %s %.100q", fits.Status, fits.Text)
	}
	checkForm(t, fits)
	large := postfix.Reply(enforced(many(4600)...))
	checkForm(t, large)
	checkTemp(t, large, "example.com", "the policy lists more MX hosts than Postfix can read")
}

// TestTempText: Postfix prints 200 characters of it (util/dict_sockmap.c), one
// line, whatever the reason is.
func TestTempText(t *testing.T) {
	for _, domain := range []string{
		"example.com", "a.b", "xn--bcher-kva.example",
		strings.Repeat("a", 30) + "." + strings.Repeat("b", 30) + ".example",
	} {
		for _, reason := range []string{
			"short", "", strings.Repeat("long ", 100), "two\nlines\r\n", "nul\x00 esc\x1b[31m del\x7f",
			"caf\u00e9 \u2028 \u202e", "bad \xff bytes", strings.Repeat("\u00e9", 300), strings.Repeat("\xff", 300),
			"12:a netstring,", "} { match=hostname",
		} {
			got := postfix.Reply(&policy.Decision{Domain: domain, Kind: policy.Failed, Reason: reason})
			checkForm(t, got)
			checkTemp(t, got, domain, "")
		}
	}
	// A reason that was cut says so, and leaves the advice whole.
	got := postfix.Reply(&policy.Decision{Domain: "example.com", Kind: policy.Failed, Reason: strings.Repeat("x", 1000)})
	if !strings.Contains(got.Text, "xxx...; run: ") || len(got.Text) != 200 {
		t.Errorf("%d bytes: %q", len(got.Text), got.Text)
	}
	// Names that leave no room still get a word of reason and the advice.
	domain := nameOf(244, 60)
	got = postfix.Reply(&policy.Decision{Domain: domain, Kind: policy.Failed, Reason: strings.Repeat("x", 1000)})
	checkTemp(t, got, domain, "xxx...; run: ")
}
