package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"stsmap/doctor"
)

// TestShowFinding: 80 columns, but for what is to be pasted, which is never broken.
func TestShowFinding(t *testing.T) {
	fix := "postconf -e 'smtp_tls_policy_maps = hash:/etc/postfix/tls_policy, socketmap:unix:stsmap/map.sock:postfix'"
	f := doctor.Result{
		ID: "LOC-02", Severity: doctor.Fail, Who: "you", Fix: fix + "\npostfix reload",
		Seen: "smtp/unix, relay/unix: smtp_tls_policy_maps = hash:/etc/postfix/tls_policy, and whatever else stands there",
		Why:  "policies of other domains are not applied to mail that goes out there",
	}
	want := ` [FAIL]  LOC-02  smtp/unix, relay/unix: smtp_tls_policy_maps =
                 hash:/etc/postfix/tls_policy, and whatever else stands there
                 policies of other domains are not applied to mail that goes out
                 there
                   ` + fix + `
                   postfix reload
`
	if diff := cmp.Diff(want, showFinding(f, false)); diff != "" {
		t.Error(diff)
	}
	for line := range strings.Lines(want) {
		if len(line) > statusWidth+1 && !strings.Contains(line, fix) {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
	coloured := strings.Replace(want, "[FAIL]", "\x1b[1;31m[FAIL]\x1b[0m", 1)
	if diff := cmp.Diff(coloured, showFinding(f, true)); diff != "" {
		t.Error(diff)
	}
	if got := showFinding(doctor.Result{ID: "LOC-10", Severity: doctor.Skip, Seen: "systemd does not run here"}, false); got != " [SKIP]  LOC-10  systemd does not run here\n" {
		t.Errorf("%q", got)
	}
	if got := showFinding(doctor.Result{ID: "LOC-01", Severity: doctor.OK, Seen: "x"}, false); got != " [OK]    LOC-01  x\n" {
		t.Errorf("%q", got)
	}
}

// TestColours: the output is coloured only on a terminal, and not if NO_COLOR
// is set.
func TestColours(t *testing.T) {
	if (console{out: new(bytes.Buffer)}).colours() {
		t.Error("a buffer is coloured")
	}
	file, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if (console{out: file}).colours() {
		t.Error("a file is coloured")
	}
	device, err := os.OpenFile("/dev/null", os.O_WRONLY, 0) // a character device, as a terminal is
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	if !(console{out: device}).colours() {
		t.Error("a device is not coloured")
	}
	t.Setenv("NO_COLOR", "1")
	if (console{out: device}).colours() {
		t.Error("it is coloured in spite of NO_COLOR")
	}
}
