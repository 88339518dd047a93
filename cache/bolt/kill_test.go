package bolt

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// childPath is the variable by which the test binary, run again, knows that it
// is to write to the named file until it is killed.
const childPath = "STSMAP_TEST_BOLT_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childPath); path != "" {
		fmt.Fprintln(os.Stderr, putForever(path))
		os.Exit(1)
	}
	if path := os.Getenv(readPath); path != "" {
		if err := readAll(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// putForever puts entries with several writers, and prints the domain of each
// after Put has returned.
func putForever(path string) error {
	s, err := Open(path, Options{})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	var mu sync.Mutex // one line at a time
	for w := range 4 {
		wg.Go(func() {
			for i := w; ; i += 4 {
				if err := s.Put(context.Background(), entry(i)); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				mu.Lock()
				fmt.Println(entry(i).Domain)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return nil
}

// TestKill: an entry that Put has acknowledged is there after the process was
// killed while it writes, a hundred times.
func TestKill(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := newPath(t)
	all := make(map[string]bool)
	for round := range 100 {
		// Few and many, so that it is killed in all that it does.
		for _, domain := range killed(t, exe, path, 1+round*37%150) {
			all[domain] = true
		}
		s := mustOpen(t, path)
		if aside, reason := s.SetAside(); aside != "" {
			t.Fatalf("the file was set aside: %s", reason)
		}
		for domain := range all {
			if e, err := s.Get(t.Context(), domain); err != nil || e.Domain != domain {
				t.Errorf("round %d: Get(%s): %v", round, domain, err)
			}
		}
		n := 0
		for _, err := range s.All(t.Context()) {
			if n++; err != nil {
				t.Fatal(err)
			}
		}
		taken, err := s.Due(t.Context(), entry(0).Refresh, 1, n+10)
		if err != nil || len(taken) != n {
			t.Errorf("round %d: %d entries, of which %d are in the index (%v)", round, n, len(taken), err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killed lets a child write until it has acknowledged n entries, kills it, and
// returns all that it has acknowledged.
func killed(t *testing.T, exe, path string, n int) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), childPath+"="+path)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var acked []string
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			break // a line cut short was not acknowledged
		}
		acked = append(acked, strings.TrimSpace(line))
		if len(acked) == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait()
	if len(acked) < n {
		t.Fatalf("the child ended by itself after %d: %s", len(acked), stderr.String())
	}
	return acked
}
