package house

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	languageFile = "testdata/language.txt"
	maxBanned    = 0.5 // phrases per 1,000 words
)

// A language is testdata/language.txt.
type language struct {
	banned  *regexp.Regexp
	exclude []string // folders of Go files
}

func readLanguage(t *testing.T) language {
	t.Helper()
	text, err := os.ReadFile(languageFile)
	if err != nil {
		t.Fatal(err)
	}
	var l language
	var phrases []string
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		if folder, ok := strings.CutPrefix(line, "exclude: "); ok {
			l.exclude = append(l.exclude, folder)
		} else if line != "" {
			phrases = append(phrases, strings.Join(strings.Fields(line), `\s+`))
		}
	}
	if len(phrases) < 20 {
		t.Fatalf("%s has only %d phrases", languageFile, len(phrases))
	}
	l.banned = regexp.MustCompile(`(?i)\b(` + strings.Join(phrases, "|") + `)\b`)
	return l
}

// A tally counts the words of a group of texts, and where banned phrases are.
type tally struct {
	words int
	found []string
}

func (c *tally) rate() float64 { return 1000 * float64(len(c.found)) / float64(max(c.words, 1)) }

// count adds a text that begins at a line of a file.
func (l language) count(c *tally, text, file string, line int) {
	c.words += len(regexp.MustCompile(`[A-Za-z']+`).FindAllString(text, -1))
	for _, at := range l.banned.FindAllStringIndex(text, -1) {
		c.found = append(c.found, fmt.Sprintf("%s:%d: %q", file, line+strings.Count(text[:at[0]], "\n"), strings.Join(strings.Fields(text[at[0]:at[1]]), " ")))
	}
}

// blank replaces what re matches by nothing but its line ends.
func blank(text, re string) string {
	return regexp.MustCompile(re).ReplaceAllStringFunc(text, func(s string) string { return strings.Repeat("\n", strings.Count(s, "\n")) })
}

// TestLanguage: README and docs, the manual pages, the configuration files and
// the comments each have fewer banned phrases than maxBanned.
func TestLanguage(t *testing.T) {
	l := readLanguage(t)
	groups := make(map[string]*tally)
	for group, files := range map[string]struct {
		patterns []string
		omit     string // what is no prose
	}{
		"README and docs":     {[]string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md", "packaging/*.md"}, "(?s)```.*?```"},
		"manual pages":        {[]string{"man/*.[1578]"}, `(?m)^\.\\".*$`},
		"configuration files": {[]string{"config/*.toml"}, `a^`},
	} {
		groups[group] = new(tally)
		for _, pattern := range files.patterns {
			names, err := filepath.Glob(filepath.Join(root, pattern))
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				text, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				l.count(groups[group], blank(string(text), files.omit), strings.TrimPrefix(filepath.ToSlash(name), root+"/"), 1)
			}
		}
	}
	comments := new(tally)
	groups["comments"] = comments
	unused := slices.Clone(l.exclude)
	for _, s := range sources(t) {
		if slices.Contains(l.exclude, s.folder()) {
			unused = slices.DeleteFunc(unused, func(folder string) bool { return folder == s.folder() })
			continue
		}
		for _, g := range s.file.Comments {
			l.count(comments, g.Text(), s.path, s.fset.Position(g.Pos()).Line)
		}
	}
	for _, folder := range unused {
		t.Errorf("%s excludes %s, which has no Go files", languageFile, folder)
	}
	for group, c := range groups {
		if c.words < 2000 {
			t.Errorf("%s have only %d words: the search is broken", group, c.words)
		}
		if c.rate() >= maxBanned {
			t.Errorf("%s have %.2f banned phrases per 1,000 words, want less than %.1f:\n%s", group, c.rate(), maxBanned, strings.Join(c.found, "\n"))
		}
	}
}

// TestLanguageCount: a phrase counts in any case and across lines, with its
// place, and a longer word does not.
func TestLanguageCount(t *testing.T) {
	l := readLanguage(t)
	for text, want := range map[string]string{
		"Nobody waits.":                       `1 f:7: "Nobody"`,
		"The daemon\nis\ntold of it.":         `1 f:8: "is told"`,
		"A lapse.\nWhoever reads, reads.":     `2 f:7: "lapse", f:8: "Whoever"`,
		"The daemon isn't toldish; lapsing":   "0 ",
		"The resolver validates.\n\nIt must.": "0 ",
	} {
		var c tally
		l.count(&c, text, "f", 7)
		if got := fmt.Sprintf("%d %s", len(c.found), strings.Join(c.found, ", ")); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	var c tally
	l.count(&c, "nobody "+strings.Repeat("a ", 999), "f", 1)
	if c.rate() != 1 {
		t.Errorf("one in 1,000 words is %v", c.rate())
	}
}
