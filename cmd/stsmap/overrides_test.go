package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"stsmap/override"
)

// TestOverridesTrouble: the line of systemctl status says that the file does not
// count, and what does instead.
func TestOverridesTrouble(t *testing.T) {
	path := filepath.Join(t.TempDir(), "overrides.toml")
	o := newOverrides(slog.New(slog.DiscardHandler), newFileQueue(fileLimit), func(*override.Table) {})
	for _, step := range []struct{ text, want string }{
		{"x = 1\n", "; overrides NOT READ, none is in force"},
		{"[[override]]\ndomain = \"a.example\"\naction = \"defer\"\n", ""},
		{"x = 1\n", "; overrides NOT READ, the old ones are in force"},
		{"", ""},
	} {
		if err := os.WriteFile(path, []byte(step.text), 0o644); err != nil {
			t.Fatal(err)
		}
		o.follow(path)
		if got := o.trouble(); got != step.want {
			t.Errorf("%q: %q, want %q", step.text, got, step.want)
		}
	}
}
