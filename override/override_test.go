package override

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// checkLevel is what package postfix does in earnest.
func checkLevel(text string) error {
	if text != "encrypt" && text != "may" {
		return errors.New("no such level")
	}
	return nil
}

// cases calls do for each case of an archive, which is NAME.toml, NAME.want and
// perhaps NAME.do. Any other file fails the test.
func cases(t *testing.T, path string, do func(t *testing.T, text, steps, want string)) {
	t.Helper()
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]map[string]string)
	for _, f := range archive.Files {
		name, suffix, _ := strings.Cut(f.Name, ".")
		if suffix != "toml" && suffix != "want" && suffix != "do" {
			t.Fatalf("unknown file %s", f.Name)
		}
		if all[name] == nil {
			all[name] = make(map[string]string)
		}
		all[name][suffix] = string(f.Data)
	}
	if len(all) < 5 {
		t.Fatalf("only %d cases in %s", len(all), path)
	}
	for name, c := range all {
		if _, ok := c["want"]; !ok {
			t.Fatalf("%s has no .want", name)
		}
		t.Run(name, func(t *testing.T) { do(t, c["toml"], c["do"], c["want"]) })
	}
}

// describe writes a table, one override a line.
func describe(table *Table) string {
	var b strings.Builder
	for _, o := range table.All() {
		fmt.Fprintf(&b, "%d %s %s", o.Line, o.Domain, o.Action)
		if o.Text != "" {
			fmt.Fprintf(&b, " text=%q", o.Text)
		}
		if !o.Until.IsZero() {
			b.WriteString(" until=" + o.Until.Format(time.RFC3339))
		}
		if o.Reason != "" {
			fmt.Fprintf(&b, " reason=%q", o.Reason)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// TestParse: files, and what is read from them or said about them, each mistake
// with its line.
func TestParse(t *testing.T) {
	defer func(old *time.Location) { time.Local = old }(time.Local)
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	time.Local = berlin
	cases(t, "testdata/parse.txtar", func(t *testing.T, text, _, want string) {
		table, err := Parse(text, checkLevel)
		got := describe(table)
		if err != nil {
			got = strings.ReplaceAll(at("FILE", err).Error(), "\nFILE", "\nFILE") + "\n"
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// TestEdit: the text of a file after an edit, to the byte.
func TestEdit(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	cases(t, "testdata/edit.txtar", func(t *testing.T, text, steps, want string) {
		for step := range strings.Lines(steps) {
			verb, rest, _ := strings.Cut(strings.TrimSpace(step), " ")
			name, rest, _ := strings.Cut(rest, " ")
			var err error
			switch verb {
			case "remove":
				text, _, err = Remove(text, name)
			case "set":
				text, err = Set(text, name, readChange(t, now, rest))
			default:
				t.Fatalf("unknown step %q", step)
			}
			if err != nil {
				text = "error: " + err.Error() + "\n"
				break
			}
			if _, err := Parse(text, checkLevel); err != nil {
				text = at("FILE", err).Error() + "\n"
				break
			}
		}
		if diff := cmp.Diff(want, text); diff != "" {
			t.Error(diff)
		}
	})
}

// readChange reads "action=exempt; until=30d; reason=some words".
func readChange(t *testing.T, now time.Time, text string) (c Change) {
	t.Helper()
	for part := range strings.SplitSeq(text, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "action":
			a, reason := action(value)
			if reason != "" {
				t.Fatal(reason)
			}
			c.Action = &a
		case "text":
			c.Text = &value
		case "reason":
			c.Reason = &value
		case "until":
			if d, err := time.ParseDuration(value); err == nil {
				value = Ends(now, d)
			}
			c.Until = &value
		default:
			t.Fatalf("unknown change %q", part)
		}
	}
	return c
}

// TestFind: the most specific one that has not expired.
func TestFind(t *testing.T) {
	table, err := Parse(`
[[override]]
domain = ".example.com"
action = "exempt"
[[override]]
domain = ".sub.example.com"
action = "defer"
[[override]]
domain = "mail.sub.example.com"
action = "enforce"
until = 2027-01-31T00:00:00Z
[[override]]
domain = "example.com"
action = "enforce"
[[override]]
domain = ".test"
action = "defer"
`, checkLevel)
	if err != nil {
		t.Fatal(err)
	}
	until := time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		domain string
		now    time.Time
		want   string
	}{
		{"example.com", until, "example.com"},
		{"www.example.com", until, ".example.com"},
		{"sub.example.com", until, ".example.com"},
		{"a.sub.example.com", until, ".sub.example.com"},
		{"a.b.sub.example.com", until, ".sub.example.com"},
		{"mail.sub.example.com", until.Add(-1), "mail.sub.example.com"},
		{"mail.sub.example.com", until, ".sub.example.com"}, // what expired hides nothing
		{"xexample.com", until, ""},
		{"example.com.test", until, ".test"},
		{"test", until, ""},
		{"com", until, ""},
		{"", until, ""},
	} {
		got := ""
		if o := table.Find(c.domain, c.now); o != nil {
			got = o.Domain
		}
		if got != c.want {
			t.Errorf("%s: %q counts, want %q", c.domain, got, c.want)
		}
	}
	var none *Table
	if none.Find("example.com", until) != nil || none.All() != nil {
		t.Error("an empty table has something")
	}
	if n := testing.AllocsPerRun(100, func() { table.Find("a.b.sub.example.com", until) }); n != 0 {
		t.Errorf("Find makes %v allocations", n)
	}
}

// TestUse: all answers are counted, and the first of an hour is news, also from
// many goroutines; what was counted outlives a reload if the override does.
func TestUse(t *testing.T) {
	const text = "[[override]]\ndomain = \"a.example\"\naction = \"defer\"\n[[override]]\ndomain = \"b.example\"\naction = \"exempt\"\n"
	table, err := Parse(text, checkLevel)
	if err != nil {
		t.Fatal(err)
	}
	o, now := table.All()[0], time.Now().Truncate(time.Hour)
	for hour := range 2 {
		var all sync.WaitGroup
		var mu sync.Mutex
		news := 0
		for range 8 {
			all.Go(func() {
				for range 100 {
					if o.Use(now.Add(time.Duration(hour) * time.Hour)) {
						mu.Lock()
						news++
						mu.Unlock()
					}
				}
			})
		}
		all.Wait()
		if news != 1 || o.Uses() != int64(800*(hour+1)) {
			t.Errorf("%d times news of %d uses", news, o.Uses())
		}
	}
	next, err := Parse(strings.Replace(text, "exempt", "defer", 1)+"# more\n", checkLevel)
	if err != nil {
		t.Fatal(err)
	}
	table.All()[1].Use(now)
	next.Inherit(table)
	if a, b := next.All()[0].Uses(), next.All()[1].Uses(); a != 1600 || b != 0 {
		t.Errorf("after a reload %d and %d uses", a, b)
	}
	if next.Equal(table) || !next.Equal(next) || !(*Table)(nil).Equal(&Table{}) {
		t.Error("Equal does not tell tables apart")
	}
}

// TestEditFile: the file is replaced as a whole, keeps its mode, and stays a link
// if it is one; what is wrong is not written.
func TestEditFile(t *testing.T) {
	dir := t.TempDir()
	real, path := filepath.Join(dir, "real.toml"), filepath.Join(dir, "overrides.toml")
	if err := errors.Join(os.WriteFile(real, []byte("# mine\n"), 0o640), os.Symlink("real.toml", path)); err != nil {
		t.Fatal(err)
	}
	before := StampOf(path)
	exempt := Exempt
	set := func(text string) (string, error) { return Set(text, "example.com", Change{Action: &exempt}) }
	if err := Edit(path, checkLevel, set); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(real)
	if want := "# mine\n\n[[override]]\ndomain = \"example.com\"\naction = \"exempt\"\n"; err != nil || string(text) != want {
		t.Errorf("written: %q (%v)", text, err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Error("the link is gone")
	}
	if info, err := os.Stat(real); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", info.Mode())
	}
	if StampOf(path) == before {
		t.Error("the stamp is as before")
	}
	bad := func(text string) (string, error) { return text + "[[override]]\ndomain = 1\naction = \"defer\"\n", nil }
	err = Edit(path, checkLevel, bad)
	if _, blamed := errors.AsType[*Error](err); err == nil || blamed || err.Error() != "domain: is not a text" {
		t.Errorf("a change that is a mistake: %v", err)
	}
	if again, _ := os.ReadFile(real); string(again) != string(text) {
		t.Error("a file with a mistake was written")
	}
	ruined := filepath.Join(t.TempDir(), "ruined.toml")
	if err := os.WriteFile(ruined, []byte("x = 1\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if problems, ok := errors.AsType[*Error](Edit(ruined, checkLevel, set)); !ok || problems.Path != ruined {
		t.Errorf("a file with a mistake: %v", problems)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
	if err := Edit(filepath.Join(dir, "no", "file"), checkLevel, set); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a directory: %v", err)
	}
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			name := fmt.Sprintf("d%d.example", i)
			if err := Edit(path, checkLevel, func(text string) (string, error) { return Set(text, name, Change{Action: &exempt}) }); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if table, err := Load(path, checkLevel); err != nil || len(table.All()) != 21 {
		t.Errorf("after 20 edits at once: %d overrides, %v", len(table.All()), err)
	}
}

// TestLoad: a file that is not there has none; one that cannot be read is an
// error.
func TestLoad(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{"", filepath.Join(dir, "none")} {
		if table, err := Load(path, checkLevel); err != nil || len(table.All()) != 0 || StampOf(path) != (Stamp{}) {
			t.Errorf("%q: %v, %v", path, table, err)
		}
	}
	if _, err := Load(dir, checkLevel); err == nil {
		t.Error("a directory was read")
	}
	if _, err := Parse(strings.Repeat("#", maxBytes+1), checkLevel); err == nil {
		t.Error("a file of any length was read")
	}
	_, err := Parse("# x\n[[override]]\nreason = \"\"\""+strings.Repeat("\\\n", 100000)+"\"\"\"\n", checkLevel)
	if err == nil || at("FILE", err).Error() != "FILE:3: has more than 100 lines" {
		t.Errorf("a value of 100,000 lines: %v", err)
	}
}

// FuzzEdit: whatever a file has, an edit of one without mistakes leaves one
// without mistakes that has the override, and its removal leaves the others as
// they were.
func FuzzEdit(f *testing.F) {
	for _, path := range []string{"testdata/parse.txtar", "testdata/edit.txtar"} {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			f.Add(string(file.Data), "a \"reason\" # \\")
		}
	}
	f.Fuzz(func(t *testing.T, text, reason string) {
		before, err := Parse(text, checkLevel)
		if _, bad := line(reason); err != nil || bad != "" || strings.ToValidUTF8(reason, "") != reason {
			return
		}
		deferred := Defer
		edited, err := Set(text, "fuzz.example", Change{Action: &deferred, Reason: &reason})
		if err != nil {
			t.Fatal(err)
		}
		table, err := Parse(edited, checkLevel)
		if err != nil {
			t.Fatalf("%q: %v", edited, err)
		}
		if o := table.Find("fuzz.example", time.Now()); o == nil || o.Domain != "fuzz.example" || o.Reason != reason || o.Action != Defer {
			t.Fatalf("%q has %+v", edited, o)
		}
		removed, _, err := Remove(edited, "fuzz.example")
		if err != nil {
			t.Fatal(err)
		}
		after, err := Parse(removed, checkLevel)
		if err != nil || before.Find("fuzz.example", time.Time{}) == nil && !after.Equal(before) {
			t.Fatalf("%q became %q (%v)", text, removed, err)
		}
	})
}
