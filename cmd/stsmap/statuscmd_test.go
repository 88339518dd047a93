package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"stsmap/admin"
)

// TestShowStatus: nothing is wider than a screen, and what comes from elsewhere
// does not speak to it.
func TestShowStatus(t *testing.T) {
	now := time.Now()
	s := admin.Status{Version: "1", Since: now.Add(-50 * time.Hour), Store: admin.StoreStatus{Name: "memory:"}}
	s.DANE = admin.DANEStatus{Mode: "all", State: "off", Since: now.Add(-90 * time.Minute), Reasons: []string{strings.Repeat("reason \x1b[31m", 20)}}
	s.Resolver.Validates = admin.ProbeResult{Verdict: "yes", At: now.Add(-5 * time.Second), Error: "timeout"}
	var out strings.Builder
	if err := showStatus(&out, s, now); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"(2d2h ago)\n", "(1h30m ago); dane.mode = \"all\"\n", "(5s ago)\n", "since then not known: timeout\n", "looks up DNSSEC: not asked\n"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("%q is not in\n%s", part, out.String())
		}
	}
	for line := range strings.Lines(out.String()) {
		if len(line) > statusWidth+1 || strings.Contains(line, "\x1b") {
			t.Errorf("%q", line)
		}
	}
}

// TestUncontrolled: the exit code tells a lack of permission from a daemon that
// does not run, and the hint asks whether the daemon runs only in the second
// case. The errors are made up, since a test that runs as root has all
// permissions.
func TestUncontrolled(t *testing.T) {
	for err, code := range map[error]int{fs.ErrPermission: exitPermission, fs.ErrNotExist: exitUnreachable, admin.ErrGarbled: exitFailed} {
		f, ok := errors.AsType[*failure](uncontrolled("/s", fmt.Errorf("dial: %w", err)))
		if !ok || f.code != code || f.hint == "" {
			t.Errorf("%v: %+v, want code %d and a hint", err, f, code)
		} else if asked := strings.Contains(f.hint, "is it running?"); asked != (code == exitUnreachable) {
			t.Errorf("%v: %s", err, f.hint)
		}
	}
}
