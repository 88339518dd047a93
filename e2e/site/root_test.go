package site

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMakeRoot: a tree is made once, and again for another recipe, and never half. A shell script stands in for
// mmdebstrap(1), which needs a network; its last argument but one is the directory. That a real one works is for e2e.
func TestMakeRoot(t *testing.T) {
	cache, bin := t.TempDir(), t.TempDir()
	t.Setenv(cacheVariable, cache)
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	command := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(bin, "mmdebstrap"), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const works = `while [ $# -gt 2 ]; do shift; done; echo "$MARK" >"$1/made"`
	made := func(want string) {
		t.Helper()
		got, err := os.ReadFile(filepath.Join(cache, "suite", "made"))
		if err != nil || string(got) != want+"\n" {
			t.Errorf("the root is of the %q build, not of the %q: %v", got, want, err)
		}
		entries, err := os.ReadDir(cache)
		if err != nil || len(entries) != 1 {
			t.Errorf("left over: %v: %v", entries, err)
		}
	}

	command("exit 1")
	if _, err := MakeRoot(t.Context(), "suite"); err == nil {
		t.Error("a failure was not noticed")
	}
	if entries, err := os.ReadDir(cache); err != nil || len(entries) != 0 {
		t.Errorf("a failure left %v: %v", entries, err)
	}

	command(works)
	t.Setenv("MARK", "first")
	if err := os.Mkdir(filepath.Join(cache, "suite.new-killed"), 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := MakeRoot(t.Context(), "suite")
	if err != nil {
		t.Fatal(err)
	}
	made("first")
	t.Setenv("MARK", "second")
	if _, err := MakeRoot(t.Context(), "suite"); err != nil {
		t.Fatal(err)
	}
	made("first")

	if err := os.WriteFile(r.stamp(), []byte("another recipe\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	command("exit 1")
	if _, err := MakeRoot(t.Context(), "suite"); err == nil {
		t.Error("a failure was not noticed")
	}
	made("first") // better than none
	command(works)
	if _, err := MakeRoot(t.Context(), "suite"); err != nil {
		t.Fatal(err)
	}
	made("second")
}
