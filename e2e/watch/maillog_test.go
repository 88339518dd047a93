package watch

import (
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestMtail runs mtail on lines that Postfix 3.7 and 3.11 wrote in package e2e,
// but for two that are made after its source: that of a Trusted connection, and
// the one of smtpd(8), which must not count.
func TestMtail(t *testing.T) {
	log, err := filepath.Abs("testdata/mail.log")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("mtail", "--one_shot", "--one_shot_format=prometheus", "--logtostderr", "--stderrthreshold=3",
		"--progs", share+"/postfix.mtail", "--logs", log).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^(postfix_\w+)\{(.*)\} (\d+)`).FindAllStringSubmatch(string(out), -1) {
		for _, l := range regexp.MustCompile(`(?:level|reason)="(.*?)"`).FindAllStringSubmatch(m[2], -1) {
			got[m[1]+" "+l[1]] = m[3]
		}
	}
	want := map[string]string{
		"postfix_tls_connections_total verified":                    "2",
		"postfix_tls_connections_total untrusted":                   "1",
		"postfix_tls_connections_total trusted":                     "1",
		"postfix_tls_policy_lookup_failed_total connection refused": "1",
		"postfix_tls_policy_lookup_failed_total temporary error":    "1",
		"postfix_tls_policy_trouble_total certificate":              "1",
		"postfix_tls_policy_trouble_total policy lookup":            "2",
		"postfix_tls_policy_trouble_total mx pattern":               "1",
		"postfix_tls_policy_trouble_total dane":                     "1",
		"postfix_tls_policy_trouble_total no starttls":              "1",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v\n%s", got, want, out)
	}
}

// TestPromtail: the expressions of the pipeline find the same in the same
// lines. Promtail cannot be installed here, but its expressions have the syntax
// of Go's.
func TestPromtail(t *testing.T) {
	text := read(t, share+"/promtail.yml")
	got := make(map[string]int)
	for _, m := range regexp.MustCompile(`(?m)^ +expression: '(.*)'$`).FindAllStringSubmatch(text, -1) {
		re := regexp.MustCompile(strings.ReplaceAll(m[1], "''", "'"))
		for line := range strings.Lines(read(t, "testdata/mail.log")) {
			if !regexp.MustCompile(`postfix[^ ]*/smtp\[`).MatchString(line) {
				continue
			}
			for i, found := range re.FindStringSubmatch(line) {
				if name := re.SubexpNames()[i]; name != "" {
					got[name+" "+found]++
				}
			}
		}
	}
	want := map[string]int{
		"tls_level Verified": 2, "tls_level Untrusted": 1, "tls_level Trusted": 1, "tls_lookup Connection refused": 1, "tls_lookup temporary error": 1,
		"tls_trouble Server certificate not verified": 1, "tls_trouble client TLS configuration problem": 2, "tls_refused does not match STS MX pattern": 1,
		"tls_refused no TLSA records found": 1, "tls_trouble TLS is required, but was not offered": 1,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
