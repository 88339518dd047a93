package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// cases reads an archive of cases: by name, the files of each by their suffix. A suffix that is not
// among those given fails the test, and so does a case without .want.
func cases(t testing.TB, path string, suffixes ...string) map[string]map[string]string {
	t.Helper()
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]map[string]string)
	for _, f := range archive.Files {
		name, suffix, _ := strings.Cut(f.Name, ".")
		known := suffix == "want"
		for _, s := range suffixes {
			known = known || s == suffix
		}
		if all[name] == nil {
			all[name] = make(map[string]string)
		}
		if _, twice := all[name][suffix]; twice || !known {
			t.Fatalf("%s: %s is unknown, or there twice", path, f.Name)
		}
		all[name][suffix] = string(f.Data)
	}
	for name, c := range all {
		if _, ok := c["want"]; !ok {
			t.Fatalf("%s: %s has no .want", path, name)
		}
	}
	if len(all) == 0 {
		t.Fatalf("%s: no cases", path)
	}
	return all
}

// write writes a configuration file and returns its path.
func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stsmap.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMistakes(t *testing.T) {
	for name, c := range cases(t, "testdata/mistakes.txtar", "toml") {
		t.Run(name, func(t *testing.T) {
			path := write(t, c["toml"])
			l, err := Load(path, nil)
			if c["want"] == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var problems *Error
			if !errors.As(err, &problems) || l != nil || problems.Path != path {
				t.Fatalf("got %v and %#v", l, err)
			}
			got := strings.ReplaceAll(err.Error()+"\n", path, "FILE")
			if diff := cmp.Diff(c["want"], got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// describe is what a case of environment.txtar wants.
func describe(l *Loaded, err error) string {
	if err != nil {
		return err.Error() + "\n"
	}
	var b strings.Builder
	b.WriteString("settings\n")
	for _, s := range l.Settings() {
		if s.Origin == "default" {
			if s.Changed {
				fmt.Fprintf(&b, "%+v\n", s)
			}
			continue
		}
		fmt.Fprintf(&b, "%s = %s (%s)", s.Key, s.Value, s.Origin)
		if !s.Changed {
			b.WriteString(" unchanged")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestEnvironment(t *testing.T) {
	for name, c := range cases(t, "testdata/environment.txtar", "env", "toml") {
		t.Run(name, func(t *testing.T) {
			path := ""
			if text, ok := c["toml"]; ok {
				path = write(t, text)
			}
			got := describe(Load(path, strings.Split(strings.TrimSpace(c["env"]), "\n")))
			if path != "" {
				got = strings.ReplaceAll(got, path, "FILE")
			}
			if diff := cmp.Diff(c["want"], got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNoFile(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	_, err := Load(t.TempDir(), nil)
	var problems *Error
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.As(err, &problems) {
		t.Errorf("a directory: %v", err)
	}
	l, err := Load("", nil)
	if err != nil || !reflect.DeepEqual(l.Config, Default()) {
		t.Errorf("no file: %+v, %v", l, err)
	}
}

func TestMap(t *testing.T) {
	plain := Default()
	own := Default()
	own.Maps = map[string]Map{"postfix": {TLSRPT: "yes"}, "x": {TLSRPT: "no"}}
	for _, c := range []struct {
		config       Config
		name, tlsrpt string
		known        bool
	}{
		{plain, "postfix", "auto", true},
		{plain, "QUERY", "no", true},
		{plain, "QUERYwithTLSRPT", "yes", true},
		{plain, "query", "auto", false},
		{own, "postfix", "yes", true},
		{own, "x", "no", true},
		{own, "QUERY", "no", true},
		{own, "y", "yes", false}, // as postfix, whatever that is now
	} {
		if m, known := c.config.Map(c.name); m.TLSRPT != c.tlsrpt || known != c.known {
			t.Errorf("%s: %v, %v", c.name, m, known)
		}
	}
}

func TestDuration(t *testing.T) {
	for _, c := range []struct {
		text   string
		want   time.Duration
		format string
	}{
		{"5s", 5 * time.Second, "5s"},
		{"24h", day, "24h"},
		{"1d", day, "24h"},
		{"90d", 90 * day, "90d"},
		{"1d12h", 36 * time.Hour, "36h"},
		{"90m", 90 * time.Minute, "1h30m"},
		{"1h0m5s", time.Hour + 5*time.Second, "1h0m5s"},
		{"0s", 0, "0s"},
		{"0d", 0, "0s"},
		{"1500ms", 1500 * time.Millisecond, "1.5s"},
		{"10m", 10 * time.Minute, "10m"},
		{"20h", 20 * time.Hour, "20h"},
		{"106751d", 106751 * day, "106751d"},
	} {
		got, ok := ParseDuration(c.text)
		if !ok || got != c.want || formatDuration(got) != c.format {
			t.Errorf("%s: %v %v %s", c.text, got, ok, formatDuration(got))
		}
	}
	for _, s := range []string{"", "d", "1", "-1s", "-1d", "+1d", "1.5d", "1d-1h", "1d1d", "106752d", "106751d24h",
		"99999999999999999999d", " 1d", "1 d", "12h1d"} {
		if d, ok := ParseDuration(s); ok {
			t.Errorf("%q is %v", s, d)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "abc", 0}, {"abc", "abd", 1}, {"abc", "acb", 1}, {"abc", "ab", 1},
		{"kitten", "sitting", 3}, {"recheck", "rechekc", 1},
	} {
		if d := distance(c.a, c.b); d != c.want {
			t.Errorf("%q, %q: %d", c.a, c.b, d)
		}
		if d := distance(c.b, c.a); d != c.want {
			t.Errorf("%q, %q: %d", c.b, c.a, d)
		}
	}
}

// Law: whatever is in the file, every problem has a line that the file has, and something to say; and
// what is accepted survives being shown and read again, unless a password was hidden.
func FuzzLoad(f *testing.F) {
	for _, c := range cases(f, "testdata/mistakes.txtar", "toml") {
		f.Add(c["toml"])
	}
	f.Add(Text())
	f.Add(uncomment(Text()))
	path := filepath.Join(f.TempDir(), "stsmap.toml")
	load := func(t *testing.T, text string) (*Loaded, error) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Load(path, nil)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := load(t, text)
		if err != nil {
			var problems *Error
			if !errors.As(err, &problems) || l != nil || len(problems.Problems) == 0 {
				t.Fatalf("%v, %#v", l, err)
			}
			for _, p := range problems.Problems {
				if p.Line < 1 || p.Line > strings.Count(text, "\n")+1 || p.Reason == "" {
					t.Fatalf("%#v", p)
				}
			}
			return
		}
		var b strings.Builder
		for _, s := range l.Settings() {
			if strings.Contains(s.Value, "xxxxx") {
				return
			}
			fmt.Fprintf(&b, "%s = %s\n", s.Key, s.Value)
		}
		again, err := load(t, b.String())
		if err != nil {
			t.Fatalf("%v in\n%s", err, b.String())
		}
		if !reflect.DeepEqual(l.Config.withoutEmpty(), again.Config.withoutEmpty()) {
			t.Fatalf("%+v\n%+v", l, again)
		}
	})
}

// withoutEmpty replaces an empty set of maps by nil: their text is the same.
func (c Config) withoutEmpty() Config {
	if len(c.Maps) == 0 {
		c.Maps = nil
	}
	return c
}
