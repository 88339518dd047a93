package postgres

import (
	"net/url"
	"testing"

	"stsmap/cache/cachetest"
)

func TestCheckURL(t *testing.T) { cachetest.TestURLs(t, CheckURL, "postgres: URL: ", 20) }

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

// FuzzCheckURL states the law of cachetest.FuzzURL.
func FuzzCheckURL(f *testing.F) {
	links := func(user, before, secret, after, rest string) []string {
		return []string{
			"postgres://" + user + ":" + before + secret + after + "@" + rest,
			"postgres://" + user + ":" + url.PathEscape(before+secret+after) + "@" + rest,
			"postgresql://" + url.PathEscape(user) + "@host/db?sslmode=disable&password=" + url.QueryEscape(before) + secret + url.QueryEscape(after) + "&x" + url.QueryEscape(rest),
		}
	}
	f.Add("u:", "", "", "@host/db?sslpassword=%zz&password=x&nonsense=1")
	cachetest.FuzzURL(f, CheckURL, links, [][2]string{{"", "?target_session_attrs="}, {"/?listen=", "&"}, {"p/d?", "&schema=A"}},
		"@host/db?sslmode=nonsense", "@host:99999/db?sslmode=nonsense")
}
