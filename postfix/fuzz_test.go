package postfix_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"stsmap/dane"
	"stsmap/policy"
	"stsmap/postfix"
	"stsmap/socketmap"
	"stsmap/sts"
)

// FuzzReply: whatever bytes a policy contains, the reply read with Postfix's
// tokenizer has the level, match= and servername=, where Postfix knows them the
// policy attributes, and nothing else. match= has exactly the names of the
// policy that can be those of MX hosts, and the attributes have what the text
// of the policy has.
func FuzzReply(f *testing.F) {
	files, err := filepath.Glob("testdata/vectors/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatal("no vectors", err)
	}
	for _, file := range files {
		for _, v := range readSeeds(f, file) {
			f.Add([]byte(v))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		parsed, err := sts.ParsePolicy(body)
		if err != nil {
			return
		}
		checkPolicy(t, parsed, body)
	})
}

// checkPolicy looks at all replies that one policy can make.
func checkPolicy(t *testing.T, parsed *sts.Policy, body []byte) {
	m := modelOf("example.com", string(body))
	d := &policy.Decision{Domain: "example.com", STS: parsed}
	switch parsed.Mode {
	case sts.Enforce:
		d.Kind = policy.Enforce
	case sts.Testing:
		d.Kind = policy.Testing
	}
	reply := postfix.Reply(d, postfix.Map{}, false)
	checkForm(t, reply)
	if want := matchNames(parsed.MX); d.Kind != policy.Enforce {
		if reply.Status != socketmap.NotFound || reply.Text != "" {
			t.Errorf("mode %s: %s %q", parsed.Mode, reply.Status, reply.Text)
		}
	} else if len(want) == 0 || len(m.plain()) > 90000 {
		checkTemp(t, reply, "example.com", "the policy lists ")
	} else if got := namesOf(reply); !slices.Equal(got, want) {
		t.Errorf("match= has %q, want %q", got, want)
	} else {
		known := postfix.Reply(d, postfix.Map{}, true)
		checkForm(t, known)
		if known.Text != m.full() {
			t.Errorf("with attributes\n got %q\nwant %q", known.Text, m.full())
		}
	}
	if d.Kind == policy.Testing {
		report := postfix.Reply(d, postfix.Map{Testing: postfix.Report}, true)
		checkForm(t, report)
		if want := "may" + m.attributes(len(m.lines)); len(want)+len("encrypt")-len("may") <= 90000 && report.Text != want {
			t.Errorf("reported\n got %q\nwant %q", report.Text, want)
		}
	}
}

// readSeeds returns the bodies of a file of vectors.
func readSeeds(f *testing.F, path string) (bodies []string) {
	f.Helper()
	for _, v := range readVectors(f, path) {
		for _, p := range v.phases {
			if !slices.Contains(bodies, p.body) {
				bodies = append(bodies, p.body)
			}
		}
	}
	return bodies
}

// namesOf reads match= as Postfix does: separated by colons, empty ones
// ignored (smtp/smtp_tls_policy.c).
func namesOf(reply socketmap.Reply) (names []string) {
	for _, token := range tokenize(reply.Text) {
		if value, ok := strings.CutPrefix(token, "match="); ok {
			for name := range strings.SplitSeq(value, ":") {
				if name != "" {
					names = append(names, name)
				}
			}
		}
	}
	return names
}

// matchNames says from the other end what match= must have: all patterns but
// single labels, which can be words of Postfix's, and names that end in a
// number, which no MX host has.
func matchNames(patterns []sts.Pattern) (names []string) {
	for _, p := range patterns {
		labels := strings.Split(string(p), ".")
		last := labels[len(labels)-1]
		if len(labels) < 2 || strings.Trim(last, "0123456789") == "" {
			continue
		}
		names = append(names, strings.TrimPrefix(string(p), "*"))
	}
	return names
}

// FuzzNextHop: whatever the bytes of a key, NextHop returns, and what it
// returns is a name in lower case that it returns again for what it writes.
func FuzzNextHop(f *testing.F) {
	for _, key := range []string{
		"example.com", "[mx.example.com]:587", "b\u00fccher.example", "fa\u00df.example", "example\uff0ecom",
		"[192.0.2.1]", "[IPv6:2001:db8::1]", ".com", "under_score.example", "xn--a.example", "\xff.example",
		"example.com.", "\u3002.\u3002", "a:b:c", "[[]]", nameOf(244, 60), nameOf(245, 63), "0x7f.1",
	} {
		f.Add(key, true)
		f.Add(key, false)
	}
	f.Fuzz(func(t *testing.T, key string, bracketed bool) {
		hop, ok := postfix.NextHop(key, bracketed)
		if !ok {
			if hop != (dane.NextHop{}) {
				t.Fatalf("%q refused, but with %q", key, hop)
			}
			return
		}
		again, ok := postfix.NextHop(hop.String(), bracketed)
		if !ok || again != hop {
			t.Errorf("%q is %q, which is %q, %t", key, hop, again, ok)
		}
		domain := hop.Domain
		if strings.Trim(domain, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
			t.Errorf("%q is %q, which has other than letters, digits, - and _", key, domain)
		}
		if len("_mta-sts."+domain) > 253 || !strings.Contains(domain, ".") {
			t.Errorf("%q is %q, which is too long or a single label", key, domain)
		}
		for label := range strings.SplitSeq(domain, ".") {
			if label == "" || len(label) > 63 {
				t.Errorf("%q is %q with label %q", key, domain, label)
			}
		}
	})
}
