package boot

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"stsmap/e2e/site"
)

const (
	// hang is the time after which a machine, or a command in one, is taken to hang.
	hang = 2 * time.Minute
	// madeVariable says inside of the namespace where the packages are.
	madeVariable = "E2E_BOOT_MADE"
	// lower is the version of the package that is upgraded.
	lower = "0.0.9"
)

// TestMain makes everything that needs the network of this machine, and then enters one without.
func TestMain(m *testing.M) {
	if site.Dir() != "" {
		os.Exit(site.Inside(m.Run))
	}
	code, err := prepared(func() int { return site.Inside(m.Run) })
	if err != nil {
		fmt.Fprintf(os.Stderr, "e2e: error: %v\n", err)
		code = 1
	}
	os.Exit(code)
}

// suites are the releases of Debian that are booted.
func suites() []string {
	if only := os.Getenv("E2E_SYSTEMS"); only != "" {
		return strings.Fields(only)
	}
	return []string{"trixie", "bookworm"}
}

// prepared runs main with the packages and the systems made.
func prepared(main func() int) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "stsmap-boot-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	for _, suite := range suites() {
		if _, err := site.MakeSystem(ctx, suite); err != nil {
			return 0, err
		}
	}
	for _, version := range []string{"", lower} {
		build := exec.CommandContext(ctx, "../../packaging/build.sh")
		build.Env = append(os.Environ(), "ARCHES="+runtime.GOARCH, "FORMATS=deb", "DIST="+dir)
		if version != "" {
			build.Env = append(build.Env, "VERSION="+version)
		}
		if out, err := build.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("packaging/build.sh: %w: %s", err, out)
		}
	}
	fakenet := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, "fakenet"), "stsmap/internal/fakenet/cmd/fakenet")
	fakenet.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := fakenet.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("go build: %w: %s", err, out)
	}
	if err := os.Setenv(madeVariable, dir); err != nil {
		return 0, err
	}
	code := main()
	return code, RemoveGroups(filepath.Base(dir) + "-")
}

// made returns what a machine is given of what was made: both packages, as stsmap.deb and lower.deb, and fakenet.
func made(t *testing.T) map[string]string {
	t.Helper()
	dir := os.Getenv(madeVariable)
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 2 {
		t.Fatalf("packages are %q: %v", debs, err)
	}
	things := map[string]string{"usr/local/bin/fakenet": filepath.Join(dir, "fakenet")}
	for _, deb := range debs {
		name := "srv/stsmap.deb"
		if strings.Contains(deb, "_"+lower+"_") {
			name = "srv/lower.deb"
		}
		things[name] = deb
	}
	return things
}

// TestSystems runs testdata/script, each in a machine of its own, with each release of Debian. Beside the commands of
// testscript there are
//
//	boot                 the machine; again after "off"
//	off                  shut it down in good order
//	in PROGRAM ARGS…     like exec, in the machine
//	until PROGRAM ARGS…  the same again and again, until it succeeds; with "!" before, until it fails
//	put FILE PATH        copies a file of the script into the machine
//	report TITLE         "make e2e" prints the output of the last command under this title
func TestSystems(t *testing.T) {
	for _, suite := range suites() {
		t.Run(suite, func(t *testing.T) {
			root, err := site.MakeSystem(t.Context(), suite)
			if err != nil {
				t.Fatal(err)
			}
			things := made(t)
			testscript.Run(t, testscript.Params{
				Dir:                 "testdata/script",
				RequireExplicitExec: true,
				RequireUniqueNames:  true,
				Setup: func(env *testscript.Env) error {
					dir, err := os.MkdirTemp(site.Dir(), "machine-")
					if err != nil {
						return err
					}
					m, err := NewMachine(root, dir, filepath.Base(os.Getenv(madeVariable))+"-", things)
					if err != nil {
						return err
					}
					env.Values[machineKey{}] = m
					env.Setenv("SUITE", suite)
					env.Defer(func() {
						ctx, cancel := context.WithTimeout(context.Background(), hang)
						defer cancel()
						if err := m.Off(ctx); err != nil {
							t.Error(err)
						}
					})
					return nil
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"boot": cmdBoot, "off": cmdOff, "in": cmdIn, "until": cmdUntil, "put": cmdPut, "report": cmdReport,
				},
			})
		})
	}
}

type machineKey struct{}

func machineOf(ts *testscript.TestScript) *Machine { return ts.Value(machineKey{}).(*Machine) }

func cmdBoot(ts *testscript.TestScript, _ bool, _ []string) {
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	ts.Check(machineOf(ts).Boot(ctx))
}

func cmdOff(ts *testscript.TestScript, _ bool, _ []string) {
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	ts.Check(machineOf(ts).Off(ctx))
}

// run runs a command in the machine, for at most hang.
func run(ts *testscript.TestScript, args []string) error {
	if len(args) == 0 || !machineOf(ts).On() {
		ts.Fatalf("wants PROGRAM ARGS..., after boot")
	}
	words := machineOf(ts).Words(args...)
	return ts.Exec("timeout", append([]string{fmt.Sprint(hang.Seconds())}, words...)...)
}

func cmdIn(ts *testscript.TestScript, neg bool, args []string) {
	switch err := run(ts, args); {
	case err != nil && !neg:
		ts.Fatalf("failed: %v", err)
	case err == nil && neg:
		ts.Fatalf("succeeded")
	}
}

func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	for end := time.Now().Add(hang); ; time.Sleep(100 * time.Millisecond) {
		err := run(ts, args)
		if (err != nil) == neg {
			return
		}
		if time.Now().After(end) {
			journal, _ := machineOf(ts).Command(context.Background(), "journalctl", "--no-pager", "-n", "60").CombinedOutput()
			ts.Fatalf("waited for it in vain: %v\n%s", err, journal)
		}
	}
}

func cmdPut(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(machineOf(ts).Put(ts.MkAbs(args[0]), args[1]))
}

// cmdReport appends to the file that E2E_REPORT names, if it names one: what a test prints is not shown when it passes.
func cmdReport(ts *testscript.TestScript, _ bool, args []string) {
	text := fmt.Sprintf("\n%s, %s:\n%s", strings.Join(args, " "), ts.Getenv("SUITE"), ts.ReadFile("stdout"))
	ts.Logf("%s", text)
	path := os.Getenv("E2E_REPORT")
	if path == "" {
		return
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	ts.Check(err)
	_, err = out.WriteString(text)
	ts.Check(err)
	ts.Check(out.Close())
}
