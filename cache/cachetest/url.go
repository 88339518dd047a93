package cachetest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// password is the password in testdata/urls.txt, and that of FuzzURL.
const password = "hunter2"

// TestURLs tests check, the CheckURL of a store, with testdata/urls.txt: a URL a
// line, followed by two spaces and a part of the error if the URL is wrong. An
// error begins with prefix and contains neither the URL nor a part of the
// password. There must be at least n URLs.
func TestURLs(t *testing.T, check func(url string) error, prefix string, n int) {
	text, err := os.ReadFile(filepath.Join("testdata", "urls.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		n--
		link, want, bad := strings.Cut(line, "  ")
		err := check(link)
		if bad != (err != nil) {
			t.Errorf("CheckURL(%s) = %v", link, err)
		}
		if err == nil {
			continue
		}
		if text := err.Error(); !strings.HasPrefix(text, prefix) || !strings.Contains(text, strings.TrimSpace(want)) {
			t.Errorf("CheckURL(%s) = %v, want %q", link, err, strings.TrimSpace(want))
		} else if strings.Contains(text, password[:4]) || strings.Contains(text, link) {
			t.Errorf("CheckURL(%s) gives away: %v", link, err)
		}
	}
	if n > 0 {
		t.Errorf("%d URLs too few", n)
	}
}

// FuzzURL states of check, the CheckURL of a store: whatever surrounds a password
// in a URL, and whatever is in it, no error contains it, neither as it is written
// nor as it is meant. links returns the URLs with a password that is secret between
// before and after. around are further texts to begin with, before and behind a
// password, and rests what may follow the password.
func FuzzURL(f *testing.F, check func(url string) error, links func(user, before, secret, after, rest string) []string, around [][2]string, rests ...string) {
	for _, a := range append(around, [][2]string{
		{"", ""}, {"@", "@"}, {"/", ""}, {"?x=", ""}, {"%", ""}, {"", "%zz"}, {"#", ""}, {" ", " "}, {":", ":"},
		{"\x00", ""}, {"[", "]"}, {"`: ", "`: "}, {"", "%00"}, {"=", "="}, {",", ":x"},
	}...) {
		for i, rest := range rests {
			f.Add([]string{"u:", ""}[i%2], a[0], a[1], rest)
		}
	}
	f.Fuzz(func(t *testing.T, user, before, after, rest string) {
		if strings.Contains(user+rest, "/") && !strings.HasPrefix(rest, "@") || strings.ContainsAny(user, "/?@") {
			return // it is not a password then
		}
		for _, link := range links(user, before, password, after, rest) {
			if err := check(link); err != nil && strings.Contains(err.Error(), password) {
				t.Errorf("CheckURL(%q) = %v", link, err)
			}
		}
	})
}
