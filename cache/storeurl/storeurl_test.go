package storeurl

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// TestParse: what is split off, and what is left for the library.
func TestParse(t *testing.T) {
	u, err := Parse("redis+sentinel://u:p%40ss@a,b:1/0?own=1&addr=c:1&addr=d:1&x=%2F+y", "addr")
	if err != nil {
		t.Fatal(err)
	}
	if own := u.Take("own"); own != "1" || u.Take("own") != "" || u.Scheme != "redis+sentinel" {
		t.Errorf("own = %q, scheme %q", own, u.Scheme)
	}
	u.Scheme = "redis"
	if got, want := u.String(), "redis://u:p%40ss@a,b:1/0?addr=c%3A1&addr=d%3A1&x=%2F+y"; got != want {
		t.Errorf("String() = %s, want %s", got, want)
	}
	for _, text := range []string{"redis://", "redis://host", "redis://:secret@host", "unix:///path", "redis://host/0?"} {
		if u, err := Parse(text); err != nil || u.String() != strings.TrimSuffix(text, "?") {
			t.Errorf("%s: %v, %v", text, u, err)
		}
	}
}

// TestParseFails: what is refused, without a word of the password.
func TestParseFails(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "not a URL",
		"redis:host":                         "not a URL",
		"u:hunter2@host://x":                 "not a URL",
		"redis://:hunter2@rest@host":         "%40",
		"redis://:hunt/hunter2@host":         "%40",
		"redis://:hunt?hunter2@host":         "%40",
		"redis://:hunt#hunter2@host":         "%40",
		"redis://host#hunter2":               "%23",
		"redis://host?x":                     "not name=value",
		"redis://host?x=%zz":                 "hexadecimal",
		"redis://host?a=1&a=1":               `"a" is given twice`,
		"redis://h?password=x&x=1&x=2":       "without the password",
		"redis://h?password=hunter2&%zz=1":   "hexadecimal",
		"redis://h?a_password=a%2Bb&a%2Bb=1": "",
	} {
		_, err := Parse(text)
		if want == "" && err == nil {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunt") {
			t.Errorf("Parse(%s) = %v, want %q", text, err, want)
		}
	}
}

// TestRedact: the error of a library has neither the URL nor a password.
func TestRedact(t *testing.T) {
	u, err := Parse("redis://u:hunt%2Ber2@host?x_password=p%26w")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New("bad port"), "bad port"},
		{fmt.Errorf("x: %w", &url.Error{Op: "parse", URL: u.String(), Err: errors.New("bad port")}), "bad port"},
		{errors.New("what is hunt+er2"), "without the password"},
		{errors.New("what is hunt%2Ber2"), "without the password"},
		{errors.New("what is p&w"), "without the password"},
	} {
		if got := u.Redact(c.err); !strings.Contains(got.Error(), c.want) || strings.Contains(got.Error(), "er2") {
			t.Errorf("Redact(%v) = %v, want %q", c.err, got, c.want)
		}
	}
	if err := u.Redact(nil); err != nil {
		t.Error(err)
	}
}
