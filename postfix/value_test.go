package postfix_test

import (
	"fmt"
	"strings"
	"testing"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/override"
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
			got := postfix.Reply(c.decision, postfix.Map{}, false)
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
		if got := postfix.Reply(enforced(p), postfix.Map{}, false); got.Status != socketmap.Temp {
			t.Errorf("pattern %q alone makes %s %q, want TEMP", p, got.Status, got.Text)
		}
		got := postfix.Reply(enforced("mx1.example.com", p, "*.example.net"), postfix.Map{}, false)
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
	fits := postfix.Reply(enforced(many(4498)...), postfix.Map{}, false)
	if fits.Status != socketmap.OK || len(fits.Text) > 90000 {
		t.Errorf("4498 patterns, 89992 bytes: %s %.100q", fits.Status, fits.Text)
	}
	checkForm(t, fits)
	large := postfix.Reply(enforced(many(4499)...), postfix.Map{}, false)
	checkForm(t, large)
	checkTemp(t, large, "example.com", "the policy lists more MX hosts than Postfix can read")
}

// TestReplyBudget: the steps by which a reply with attributes is made to fit
// (conformance, D.10), at the byte where each begins.
func TestReplyBudget(t *testing.T) {
	policyOf := func(names, padding int) *policy.Decision {
		var body strings.Builder
		body.WriteString("version: STSv1\nmode: enforce\nmax_age: 1\n")
		for i := range names {
			fmt.Fprintf(&body, "mx: mx%05d.example.com\n", i)
		}
		if padding > 0 {
			body.WriteString("x: " + strings.Repeat("x", padding) + "\n")
		}
		p, err := sts.ParsePolicy([]byte(body.String()))
		if err != nil {
			t.Fatal(err)
		}
		return &policy.Decision{Domain: "example.com", Kind: policy.Enforce, STS: p}
	}
	ask := func(d *policy.Decision) string {
		t.Helper()
		r := postfix.Reply(d, postfix.Map{}, true)
		checkForm(t, r)
		return r.Text
	}
	// A body that makes a reply of exactly that length, by its last line.
	whole := len(ask(policyOf(800, 1)))
	for _, c := range []struct {
		length  int
		strings int
	}{{89999, 804}, {90000, 804}, {90001, 1}, {90002, 1}} {
		text := ask(policyOf(800, 1+c.length-whole))
		if got := strings.Count(text, "policy_string = "); got != c.strings {
			t.Errorf("with all it would have %d bytes: %d lines are sent, want %d", c.length, got, c.strings)
		}
		if len(text) > 90000 || strings.Count(text, "mx_host_pattern=") != 800 {
			t.Errorf("%d bytes, %d patterns", len(text), strings.Count(text, "mx_host_pattern="))
		}
	}
	// 2 names take 2*20 bytes of match=, and 2*36 of patterns.
	last := 0
	for n := 1600; n < 1620; n++ {
		text := ask(policyOf(n, 0))
		if strings.Contains(text, "policy_type") {
			last = n
		} else if text != ask(policyOf(n, 1)) || strings.Contains(text, "{") || !strings.HasSuffix(text, " servername=hostname") {
			t.Errorf("%d names: the reply is not plain: %.200q", n, text)
		}
	}
	if last < 1600 || last == 1619 {
		t.Errorf("%d names are the most that are sent with attributes", last)
	}
	if r := postfix.Reply(policyOf(4600, 0), postfix.Map{}, true); r.Status != socketmap.Temp {
		t.Errorf("%s %.100q", r.Status, r.Text)
	}
}

// TestReportBudget: a reply without match= has room for more of the policy.
func TestReportBudget(t *testing.T) {
	for names, lines := range map[int]int{900: 903, 2400: 1, 2450: 1} {
		var body strings.Builder
		body.WriteString("version: STSv1\nmode: testing\nmax_age: 1\n")
		for i := range names {
			fmt.Fprintf(&body, "mx: mx%05d.example.com\n", i)
		}
		p, err := sts.ParsePolicy([]byte(body.String()))
		if err != nil {
			t.Fatal(err)
		}
		d := &policy.Decision{Domain: "example.com", Kind: policy.Testing, STS: p}
		got := postfix.Reply(d, postfix.Map{Testing: postfix.Report, Level: "encrypt"}, true)
		checkForm(t, got)
		if n := strings.Count(got.Text, "{ policy_string = "); got.Status != socketmap.OK || n != lines {
			t.Errorf("%d names: %s with %d lines, want %d", names, got.Status, n, lines)
		}
		d.Kind = policy.Enforce // as for a map that enforces it
		checkForm(t, postfix.Reply(d, postfix.Map{}, true))
	}
}

// TestReportLongest: a value without match= has room, too, where the policy has no
// name for match= at all.
func TestReportLongest(t *testing.T) {
	reported := 0
	for padding := range 63 {
		p := &sts.Policy{Mode: sts.Testing, Lines: []string{"version: STSv1"}}
		for i := range 3907 {
			p.MX = append(p.MX, sts.Pattern(fmt.Sprintf("mx%04d", i))) // 23 bytes of a value
		}
		p.MX = append(p.MX, sts.Pattern(strings.Repeat("x", padding+1)))
		got := postfix.Reply(&policy.Decision{Domain: "example.com", Kind: policy.Testing, STS: p},
			postfix.Map{Testing: postfix.Report, Level: "encrypt"}, true)
		if len(got.Text) > 90000 {
			t.Errorf("%d bytes", len(got.Text))
		}
		if got.Status == socketmap.OK {
			reported++
		}
	}
	if reported == 0 || reported == 63 {
		t.Errorf("%d of 63 are reported: the limit is not among them", reported)
	}
}

// TestReplySpelling: the reply does not depend on where the patterns stand in the
// lines, and how they are spelt there.
func TestReplySpelling(t *testing.T) {
	for _, lines := range []string{
		"mx: a.example",
		"mx:a.example|mx: b.example|mx:  c.example|mx:\td.example|mx: \t *.e.example",
		"mx: A.Example|mx: b.example|mx: *.C.example|mx: d.example",
		"mx: a.example|mx: a.example|mx: A.EXAMPLE|mx: b.example|mx: a.example",
		"mx: host|mx: a.example|mx: 192.0.2.1|mx: *.example|mx: b.example",
		"mx: host|mx: 192.0.2.1",
		"mx: a.example|x: a.example|x: b.example|mx: b.example|x: {|y: }|z: {}|xx: c.example|mx: c.example",
		"x: " + strings.Repeat("x", 27) + "|y: " + strings.Repeat("y", 28) + "|z: " + strings.Repeat("z", 29) + "|mx: a.example",
		"x: " + strings.Repeat("x", 4090) + "|y: " + strings.Repeat("y", 4092) + "|z: " + strings.Repeat("z", 4093) + "|mx: a.example",
		"mx: " + nameOf(27, 20) + "|mx: " + nameOf(28, 20) + "|mx: *." + nameOf(240, 60) + "|mx: b.example",
		"x: b\u00fccher|mx: a.example|y: \u2028",
	} {
		for _, mode := range []string{"enforce", "testing"} {
			body := "version: STSv1\r\nmode: " + mode + "\r\nmax_age: 1\r\n" + strings.ReplaceAll(lines, "|", "\r\n") + "\r\n"
			p, err := sts.ParsePolicy([]byte(body))
			if err != nil {
				t.Fatalf("%q: %v", body, err)
			}
			checkPolicy(t, p, []byte(body))
		}
	}
}

// TestAnswerSize: what is kept of a policy for replies is little more than its
// lines, and no more than the names where it cannot be enforced.
func TestAnswerSize(t *testing.T) {
	for _, n := range []int{1, 5, 100} {
		body := policyText(n)
		p, err := sts.ParsePolicy([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := postfix.Render(&policy.Decision{Domain: "mail.example.com", Kind: policy.Enforce, STS: p})
		if want := 1 + len(body) - len(p.Lines); err != nil || len(got) > want {
			t.Errorf("%d names: %d bytes for a policy of %d, want at most %d; %v", n, len(got), len(body), want, err)
		}
	}
	p := &sts.Policy{Mode: sts.Enforce, MX: []sts.Pattern{"host"}, Lines: []string{"version: STSv1"}}
	if got, err := postfix.Render(&policy.Decision{Domain: "example.com", Kind: policy.Enforce, STS: p}); err == nil || len(got) != 1 {
		t.Errorf("%d bytes for a policy that cannot be enforced; %v", len(got), err)
	}
}

// TestReplyForeign: what the parser does not accept does not get into
// attributes, should it ever get past it.
func TestReplyForeign(t *testing.T) {
	d := enforced("mx.example.com", "a b", "x}", "", "*.", "b\u00fc.example", "*.c,d")
	d.STS.Lines = []string{"", "version: STSv1", "a\x00b", "a\xffb", "a\x7f", "a\rb", "x: \u0085\u2028\u202e"}
	got := postfix.Reply(d, postfix.Map{}, true)
	want := "secure match=mx.example.com servername=hostname policy_type=sts policy_domain=example.com mx_host_pattern=mx.example.com" +
		" { policy_string = version: STSv1 } { policy_string = x: \u0085\u2028\u202e }"
	if got.Text != want {
		t.Errorf("got  %q\nwant %q", got.Text, want)
	}
	// Without a line or without a pattern Postfix 3.10.0 to 3.10.5 crash.
	d = enforced("mx.example.com")
	if got := postfix.Reply(d, postfix.Map{}, true); got.Text != "secure match=mx.example.com servername=hostname" {
		t.Errorf("without lines: %q", got.Text)
	}
	// Names that Postfix does not take for a host's (util/valid_hostname.c).
	for _, domain := range []string{"-a.example", "a-.example", "a.-b.example"} {
		d := enforced("mx.example.com")
		d.Domain, d.STS.Lines = domain, []string{"version: STSv1"}
		if got := postfix.Reply(d, postfix.Map{}, true); strings.Contains(got.Text, "policy_domain") {
			t.Errorf("domain %s: %q", domain, got.Text)
		}
	}
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
			got := postfix.Reply(&policy.Decision{Domain: domain, Kind: policy.Failed, Reason: reason}, postfix.Map{}, false)
			checkForm(t, got)
			checkTemp(t, got, domain, "")
		}
	}
	// A reason that was cut says so, and leaves the advice whole.
	got := postfix.Reply(&policy.Decision{Domain: "example.com", Kind: policy.Failed, Reason: strings.Repeat("x", 1000)}, postfix.Map{}, false)
	if !strings.Contains(got.Text, "xxx...; run: ") || len(got.Text) != 200 {
		t.Errorf("%d bytes: %q", len(got.Text), got.Text)
	}
}

// TestTempLongNames: whatever a name takes, a word of the reason is left and the
// command, with the name as long as there is room for it.
func TestTempLongNames(t *testing.T) {
	for n := 3; n <= 244; n++ {
		domain := nameOf(n, 60)
		got := postfix.Reply(&policy.Decision{Domain: domain, Kind: policy.Failed, Reason: strings.Repeat("x", 1000)}, postfix.Map{}, false)
		begin, end := "mta-sts: "+domain+": x", "x...; run: stsmap explain "+domain
		if n > 71 {
			begin = "mta-sts: " + domain[:20]
		}
		if n > 103 {
			end = "x...; run: stsmap explain DOMAIN"
		}
		if !strings.HasPrefix(got.Text, begin) || !strings.HasSuffix(got.Text, end) || len(got.Text) > 200 || !strings.Contains(got.Text, strings.Repeat("x", 20)) {
			t.Errorf("%d bytes for a name of %d: %q", len(got.Text), n, got.Text)
		}
		checkForm(t, got)
	}
}

// TestReplyOverrides: an override in Postfix's words.
func TestReplyOverrides(t *testing.T) {
	rules, err := override.Parse(`
[[override]]
domain = "exempt.example"
action = "exempt"
[[override]]
domain = "reply.example"
action = "reply"
text = "encrypt protocols=>=TLSv1.2"
[[override]]
domain = "defer.example"
action = "defer"
reason = "they \u2028 are moving"
`, postfix.CheckText)
	if err != nil {
		t.Fatal(err)
	}
	engine := policy.New(policy.Config{Store: cache.NewMemory(10)})
	defer engine.Close()
	engine.Override(rules)
	for domain, want := range map[string]string{
		"exempt.example": "NOTFOUND ",
		"reply.example":  "OK encrypt protocols=>=TLSv1.2",
		"defer.example":  "TEMP mta-sts: defer.example: override: they ? are moving; run: stsmap explain defer.example",
	} {
		for _, attributes := range []bool{false, true} {
			got := postfix.Reply(engine.Lookup(t.Context(), dane.NextHop{Domain: domain}, false), postfix.Map{}, attributes)
			if text := got.Status.String() + " " + got.Text; text != want {
				t.Errorf("%s: %q, want %q", domain, text, want)
			}
		}
	}
}
