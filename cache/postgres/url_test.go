package postgres

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckURL(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "urls.txt"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		n++
		link, want, bad := strings.Cut(line, "  ")
		err := CheckURL(link)
		if !bad {
			if err != nil {
				t.Errorf("CheckURL(%s) = %v", link, err)
			}
			continue
		}
		wantError(t, err, strings.TrimSpace(want))
		if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), link)) {
			t.Errorf("CheckURL(%s) gives away: %v", link, err)
		}
	}
	if n < 20 {
		t.Errorf("only %d URLs", n)
	}
}

// TestDefaults: what a URL does not say.
func TestDefaults(t *testing.T) {
	c, p, err := parse("postgres://a,b/db?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	if c.MaxConns != defaultMaxConns || c.ConnConfig.ConnectTimeout != connectTimeout || c.ConnConfig.ValidateConnect == nil ||
		c.ConnConfig.RuntimeParams["application_name"] != "stsmap" || p != (place{defaultSchema, true}) {
		t.Errorf("%+v, %+v", c, p)
	}
	c, p, err = parse("postgres://a/db?pool_max_conns=4&connect_timeout=3&application_name=x&schema=mail&listen=no")
	if err != nil {
		t.Fatal(err)
	}
	if c.MaxConns != 4 || c.ConnConfig.ConnectTimeout.Seconds() != 3 || c.ConnConfig.ValidateConnect != nil ||
		c.ConnConfig.RuntimeParams["application_name"] != "x" || len(c.ConnConfig.RuntimeParams) != 1 || p != (place{"mail", false}) {
		t.Errorf("%+v, %+v", c, p)
	}
}

// FuzzCheckURL: whatever surrounds a password in a URL, and whatever is in it,
// no error contains it, neither as it is written nor as it is meant.
func FuzzCheckURL(f *testing.F) {
	for _, around := range [][2]string{
		{"", ""}, {"@", "@"}, {"/", ""}, {"?x=", ""}, {"%", ""}, {"", "%zz"}, {"#", ""}, {" ", " "}, {":", ":"}, {"", "?target_session_attrs="},
		{"\x00", ""}, {"[", "]"}, {"`: ", "`: "}, {"", "%00"}, {"/?listen=", "&"}, {"=", "="}, {"p/d?", "&schema=A"}, {",", ":x"},
	} {
		f.Add("u:", around[0], around[1], "@host/db?sslmode=nonsense")
		f.Add("", around[0], around[1], "@host:99999/db?sslmode=nonsense")
	}
	f.Add("u:", "", "", "@host/db?sslpassword=%zz&password=x&nonsense=1")
	f.Fuzz(func(t *testing.T, user, before, after, rest string) {
		const secret = "hunter2"
		if strings.Contains(user+rest, "/") && !strings.HasPrefix(rest, "@") || strings.ContainsAny(user, "/?@") {
			return // it is not a password then
		}
		for _, link := range []string{
			"postgres://" + user + ":" + before + secret + after + "@" + rest,
			"postgres://" + user + ":" + url.PathEscape(before+secret+after) + "@" + rest,
			"postgresql://" + url.PathEscape(user) + "@host/db?sslmode=disable&password=" + url.QueryEscape(before) + secret + url.QueryEscape(after) + "&x" + url.QueryEscape(rest),
		} {
			if err := CheckURL(link); err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("CheckURL(%q) = %v", link, err)
			}
		}
	})
}
