package bench

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stsmap/e2e/site"
)

const (
	// workerVariable makes a process of this program a Worker.
	workerVariable = "BENCH_WORKER"
	// programVariable carries the path of the daemon into the namespaces.
	programVariable = "BENCH_DAEMON"
	// profilesVariable is the folder for CPU profiles of the daemons; unset: no profiles.
	profilesVariable = "BENCH_PROFILES"
)

// TestMain enters the namespaces if benchmarks are selected. The tests need neither them nor root.
func TestMain(m *testing.M) {
	flag.Parse()
	code, err := 0, error(nil)
	switch {
	case os.Getenv(workerVariable) != "":
		err = serveCalls()
	case flag.Lookup("test.bench").Value.String() == "":
		code = m.Run()
	default:
		code, err = measure(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		code = 1
	}
	os.Exit(code)
}

// measure builds the daemon, and runs the benchmarks inside.
func measure(m *testing.M) (code int, err error) {
	// Each benchmark decides how much it measures: a longer one would be of other things, such as a larger store.
	if err := flag.Set("test.benchtime", "1x"); err != nil {
		return 0, err
	}
	if os.Geteuid() != 0 {
		return 0, errors.New("not root: the network namespace needs root\nbench: hint: sudo make bench")
	}
	if site.Dir() == "" {
		dir, err := os.MkdirTemp("", "stsmap-bench-")
		if err != nil {
			return 0, err
		}
		defer os.RemoveAll(dir)
		if err := errors.Join(os.Chmod(dir, 0o711), os.Setenv("TMPDIR", dir), build(dir)); err != nil {
			return 0, err
		}
	}
	return site.Inside(func() int {
		began := time.Now()
		tableHead()
		defer tableFoot(began)
		return m.Run()
	}), nil
}

// build compiles the daemon as the Makefile does, with a file more if profiles are wanted: the daemon itself has no
// port for them, since profiles show which domains are looked up.
func build(dir string) error {
	program := filepath.Join(dir, "stsmap")
	args := []string{"build", "-trimpath", "-o", program}
	if os.Getenv(profilesVariable) != "" {
		root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
		if err != nil {
			return err
		}
		top := strings.TrimSpace(string(root))
		overlay := filepath.Join(dir, "overlay.json")
		text := fmt.Sprintf(`{"Replace": {%q: %q}}`, top+"/cmd/stsmap/profile.go", top+"/internal/bench/testdata/profile.go")
		if err := os.WriteFile(overlay, []byte(text), 0o600); err != nil {
			return err
		}
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.Command("go", append(args, "stsmap/cmd/stsmap")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, out)
	}
	return os.Setenv(programVariable, program)
}

// quick is n, or a tenth of it with -short: good for a first look, not for comparing.
func quick(n int) int {
	if testing.Short() {
		return max(n/10, 1)
	}
	return n
}

func check(b testing.TB, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
