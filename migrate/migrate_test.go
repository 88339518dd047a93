package migrate_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"stsmap/config"
	"stsmap/migrate"
)

// name is what the files are called in the cases.
const name = "old.yaml"

// TestCases runs testdata/*.txtar. Each has a comment, which says what and why, the old configuration as
// old.yaml, and either toml and notes, or error. Lines of notes are "LINE: KEY: TEXT". The password of
// all of them is hunter2.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d cases, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			c := readCase(t, file)
			got, err := migrate.Import(name, []byte(c[name]))
			if secret := "hunter2"; strings.Contains(fmt.Sprint(got, err), secret) {
				t.Errorf("tells the password %s", secret)
			}
			if err != nil {
				if diff := cmp.Diff(c["error"], err.Error()+"\n"); diff != "" {
					t.Errorf("error (-want +got):\n%s", diff)
				}
				return
			}
			accepted(t, got.Text)
			if diff := cmp.Diff(c["toml"], got.Text); diff != "" {
				t.Errorf("toml (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c["notes"], printed(got.Notes)); diff != "" {
				t.Errorf("notes (-want +got):\n%s", diff)
			}
			if c["error"] != "" {
				t.Errorf("no error, want %s", c["error"])
			}
		})
	}
}

// readCase returns the sections of a case.
func readCase(t *testing.T, file string) map[string]string {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(archive.Comment) == 0 {
		t.Fatal("the case does not say what it is about")
	}
	sections := make(map[string]string)
	for _, f := range archive.Files {
		switch f.Name {
		case name, "toml", "notes", "error":
			sections[f.Name] = string(f.Data)
		default:
			t.Fatalf("unknown section %s", f.Name)
		}
	}
	if _, ok := sections[name]; !ok {
		t.Fatalf("no %s", name)
	}
	return sections
}

func printed(notes []migrate.Note) string {
	var b strings.Builder
	for _, n := range notes {
		fmt.Fprintf(&b, "%d: %s: %s\n", n.Line, n.Key, n.Text)
	}
	return b.String()
}

// accepted fails the test unless text is a configuration that has no mistake.
func accepted(t *testing.T, text string) *config.Loaded {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stsmap.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := config.Load(path, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return l
}

// TestMeaning: what the text says is what it means, once for each program. The cases say how it is
// written; this holds even if all of them are made anew.
func TestMeaning(t *testing.T) {
	for _, c := range []struct {
		about, old string
		want       func(*config.Config)
	}{
		{
			"postfix-tlspol, nothing said", "server: {}\n",
			func(c *config.Config) {
				c.Listen = []string{"127.0.0.1:8642"}
				c.DANE.Mode = "all"
			},
		},
		{
			"postfix-tlspol, everything said",
			"server: {address: 'unix:/run/t/s', metrics-address: '[::1]:9642', socket-permissions: 0660, log-level: WARN, " +
				"log-format: json, tlsrpt: true, prefetch: false, cache-file: /c}\ndns: {address: '127.0.0.1:8053'}\n",
			func(c *config.Config) {
				c.Listen = []string{"unix:/run/t/s"}
				c.DNS.Servers = []string{"127.0.0.1:8053"}
				c.DANE.Mode = "all"
				c.Maps = map[string]config.Map{"QUERY": {TLSRPT: "yes", Testing: "ignore", Level: "may"}}
				c.Log.Level, c.Log.Format = "warn", "json"
				c.Admin.Listen = "[::1]:9642"
			},
		},
		{"postfix-mta-sts-resolver, what is the default of both", "host: 127.0.0.1\nport: 8461\n", func(*config.Config) {}},
		{
			"postfix-mta-sts-resolver, zones",
			"path: /run/m/s\ndefault_zone: {strict_testing: yes, tlsrpt: yes}\nzones: {a.b: {tlsrpt: no}, c: {}}\n",
			func(c *config.Config) {
				c.Listen = []string{"unix:/run/m/s"}
				c.Maps = map[string]config.Map{
					"postfix": {TLSRPT: "yes", Testing: "enforce", Level: "may"},
					"a.b":     {TLSRPT: "no", Testing: "ignore", Level: "may"},
					"c":       {TLSRPT: "auto", Testing: "ignore", Level: "may"},
				}
			},
		},
	} {
		got, err := migrate.Import(name, []byte(c.old))
		if err != nil {
			t.Errorf("%s: %v", c.about, err)
			continue
		}
		want := config.Default()
		c.want(&want)
		if diff := cmp.Diff(want, accepted(t, got.Text).Config); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.about, diff)
		}
	}
}

// TestPatience: no document keeps Import busy, however it is made. A test that hangs fails by the limit
// of go test.
func TestPatience(t *testing.T) {
	var bomb, tower, wide strings.Builder
	bomb.WriteString("cache: {type: redis, options: {a0: &a0 {password: x}")
	for i := range 200 {
		fmt.Fprintf(&bomb, ", a%d: &a%d {x: *a%d, y: *a%d, z: *a%d}", i+1, i+1, i, i, i)
	}
	bomb.WriteString("}}\n")
	for tower.Len() < 30000 {
		for i := range 64 {
			fmt.Fprintf(&tower, "%sk%d:\n", strings.Repeat(" ", i), tower.Len())
		}
	}
	for i := range 3000 {
		fmt.Fprintf(&wide, "k%d: v\n", i)
	}
	for about, text := range map[string]string{
		"aliases that multiply": bomb.String(),
		"merges that multiply":  "zones: {a: &a {" + strings.ReplaceAll(wide.String(), "\n", ", ") + "}, b: {<<: [" + strings.Repeat("*a, ", 500) + "]}}",
		"a merge of itself":     "zones: &a {<<: *a}",
		"lists within lists":    "host: " + strings.Repeat("[", 16000) + strings.Repeat("]", 16000),
		"open lists":            strings.Repeat("[", 32000),
		"mappings in mappings":  strings.Repeat("{zones: ", 4000),
		"dashes":                strings.Repeat("- ", 16000),
		"deep blocks":           tower.String(),
		"many keys":             wide.String(),
		"too long":              "host: 127.0.0.1\n" + strings.Repeat("# a comment\n", 10000),
	} {
		got, err := migrate.Import(name, []byte(text))
		if err == nil {
			accepted(t, got.Text)
		} else if _, ok := errors.AsType[*config.Error](err); !ok {
			t.Errorf("%s: %v", about, err)
		}
	}
}

// FuzzImport states the law: an error that says where, or a text that stsmap accepts and notes with
// lines that exist.
func FuzzImport(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(name, archive.Files[0].Data)
	}
	f.Add("a\nb\x00", []byte("server:\n  address: \"unix:/a\\n\\\"\\\\b\"\n"))
	f.Add("", []byte("zones: {' a': {}, 'a\"b': {}, \"a\\\\]\": {strict_testing: on}, ü: {}}"))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		lines := 1 + strings.Count(string(data), "\n") + strings.Count(string(data), "\r")
		got, err := migrate.Import(name, data)
		if err != nil {
			all, ok := errors.AsType[*config.Error](err)
			if !ok || len(all.Problems) == 0 || got != nil {
				t.Fatalf("%v, %v", got, err)
			}
			for _, p := range all.Problems {
				if p.Line < 1 || p.Line > lines || p.Reason == "" {
					t.Fatalf("line %d of %d: %s", p.Line, lines, p.Reason)
				}
			}
			return
		}
		accepted(t, got.Text)
		for _, n := range got.Notes {
			if n.Line < 1 || n.Line > lines || n.Key == "" || n.Text == "" {
				t.Fatalf("%d lines, note %+v", lines, n)
			}
		}
	})
}
