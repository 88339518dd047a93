package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// TestUnits judges what systemctl show said, in testdata/units: what it is about, the output, and the findings.
func TestUnits(t *testing.T) {
	files, err := filepath.Glob("testdata/units/*.txtar")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d cases, %v", len(files), err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil || len(archive.Files) != 2 || archive.Files[0].Name != "show" || archive.Files[1].Name != "findings" {
			t.Fatalf("%s: %v", file, err)
		}
		replaced := func(pid string) bool { return pid == "666" } // a process whose program is not there any more
		got := plain(judgeUnits(parseUnits(string(archive.Files[0].Data)), replaced))
		if os.Getenv("UPDATE") != "" {
			archive.Files[1].Data = []byte(got)
			if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(string(archive.Files[1].Data), got); diff != "" {
			t.Errorf("%s: %s", file, diff)
		}
	}
}

// plain is findings as the cases have them.
func plain(found []Result) string {
	var b strings.Builder
	for _, f := range found {
		b.WriteString(f.Severity.String() + " " + f.Seen + "\n")
		if f.Why != "" {
			b.WriteString("    " + f.Why + "\n")
		}
		for line := range strings.Lines(f.Fix) {
			b.WriteString("    $ " + strings.TrimRight(line, "\n") + "\n")
		}
	}
	return b.String()
}
