package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// setting returns the values that a setting of systemd/stsmap.service has.
func setting(t *testing.T, name string) (values []string) {
	t.Helper()
	text, err := os.ReadFile("../../systemd/stsmap.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^`+name+`=(.+)$`).FindAllStringSubmatch(string(text), -1) {
		values = append(values, m[1])
	}
	if len(values) == 0 {
		t.Fatalf("stsmap.service has no %s=", name)
	}
	return values
}

// TestUnitExitCodes: the unit does not start again after exactly those exits that another start would not mend
// (stsmap(8), EXIT STATUS).
func TestUnitExitCodes(t *testing.T) {
	want := fmt.Sprintf("%d %d %d", exitUsage, exitPermission, exitConfig)
	if got := setting(t, "RestartPreventExitStatus"); len(got) != 1 || got[0] != want {
		t.Errorf("RestartPreventExitStatus=%s, want %s", got, want)
	}
	closes := fmt.Sprintf("in %s)", strings.ReplaceAll(want, " ", "|"))
	if got := setting(t, "ExecStopPost"); len(got) != 1 || !strings.Contains(got[0], closes) {
		t.Errorf("ExecStopPost=%s, want it to close the sockets %s", got, closes)
	}
}

// TestUnitCommands: what the unit runs of us are commands that there are, with the arguments they take.
func TestUnitCommands(t *testing.T) {
	var lines []string
	for _, name := range []string{"ExecStart", "ExecReload"} {
		lines = append(lines, setting(t, name)...)
	}
	ours := 0
	for _, line := range lines {
		words := strings.Fields(line)
		if words[0] != "/usr/bin/stsmap" {
			continue
		}
		ours++
		cmd, rest, err := rootCommand(console{}).Find(words[1:])
		if err == nil {
			err = cmd.ParseFlags(rest)
		}
		if err == nil {
			err = cmd.ValidateArgs(cmd.Flags().Args())
		}
		if err != nil || !cmd.Runnable() {
			t.Errorf("%s: %v", line, err)
		}
	}
	if ours != 2 {
		t.Errorf("the unit runs stsmap %d times, want serve and config check: %q", ours, lines)
	}
}

// TestUnitLimits: what the daemon grants itself, the unit grants it.
func TestUnitLimits(t *testing.T) {
	if limit, err := time.ParseDuration(setting(t, "TimeoutStopSec")[0]); err != nil || limit < drainLimit+10*time.Second {
		t.Errorf("TimeoutStopSec is %v, %v; lookups under way take up to %v, and then the store is closed", limit, err, drainLimit)
	}
	var files uint64
	if _, err := fmt.Sscan(setting(t, "LimitNOFILE")[0], &files); err != nil || maxLookupConns(files, 2) != 2048 || maxAdminConns(files) != 64 {
		t.Errorf("LimitNOFILE is %d, %v: that is %d connections for each of two sockets", files, err, maxLookupConns(files, 2))
	}
}

// TestDescriptors: with any limit some descriptors are left beside the connections
// of clients, and clients have some.
func TestDescriptors(t *testing.T) {
	for _, limit := range []uint64{16, 64, 256, 1024, 4096, 8192, 1 << 20, 1<<64 - 1} {
		for sockets := 1; sockets < 8; sockets++ {
			lookups, page := maxLookupConns(limit, sockets), maxAdminConns(limit)
			if lookups < 1 || lookups > 2048 || uint64(lookups*sockets) > limit/2 || page < 4 || page > 64 {
				t.Errorf("limit %d: %d connections for each of %d sockets, and %d", limit, lookups, sockets, page)
			}
		}
	}
}
