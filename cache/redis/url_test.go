package redis

import (
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
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
		if bad != (err != nil) {
			t.Errorf("CheckURL(%s) = %v", link, err)
		}
		if err == nil {
			continue
		}
		if text := err.Error(); !strings.HasPrefix(text, "redis: URL: ") || !strings.Contains(text, strings.TrimSpace(want)) {
			t.Errorf("CheckURL(%s) = %v, want %q", link, err, strings.TrimSpace(want))
		} else if strings.Contains(text, "hunt") || strings.Contains(text, link) {
			t.Errorf("CheckURL(%s) gives away: %v", link, err)
		}
	}
	if n < 50 {
		t.Errorf("only %d URLs", n)
	}
}

// TestDefaults: what a URL does not say, and where the library has another
// opinion.
func TestDefaults(t *testing.T) {
	p, err := parse("redis://u:secret@host/3")
	if err != nil {
		t.Fatal(err)
	}
	if o := p.server; o.Addr != "host:6379" || o.ClientName != "stsmap" || o.DialTimeout != 2*time.Second || o.PoolSize != 16 ||
		o.MaxRetries != 1 || !o.ContextTimeoutEnabled || !o.DisableIdentity || o.TLSConfig != nil || p.db != 3 || p.prefix != "stsmap" || p.user != "u" {
		t.Errorf("%+v, %+v", p, o)
	}
	p, err = parse("rediss://host?pool_size=3&dial_timeout=1s&max_retries=5&prefix=p&server_name=n")
	if err != nil {
		t.Fatal(err)
	}
	if o := p.server; o.PoolSize != 3 || o.DialTimeout != time.Second || o.MaxRetries != 5 || p.prefix != "p" || o.TLSConfig.ServerName != "n" || o.TLSConfig.InsecureSkipVerify {
		t.Errorf("%+v, %+v", p, o)
	}
	p, err = parse("rediss+sentinel://a:b@host/2?master_name=m&addr=c:1&username=u&password=w")
	if err != nil {
		t.Fatal(err)
	}
	if o := p.sentinel; !slices.Equal(o.SentinelAddrs, []string{"host:26379", "c:1"}) || o.MasterName != "m" || o.SentinelUsername != "a" ||
		o.SentinelPassword != "b" || o.Username != "u" || o.Password != "w" || o.DB != 2 || o.TLSConfig.ServerName != "" || !o.ContextTimeoutEnabled {
		t.Errorf("%+v, %+v", p, o)
	}
	p, err = parse("rediss+cluster://u:w@host:1?addr=c:1")
	if err != nil {
		t.Fatal(err)
	}
	if o := p.cluster; !slices.Equal(o.Addrs, []string{"host:1", "c:1"}) || o.Username != "u" || o.Password != "w" || o.TLSConfig.ServerName != "" || !o.ContextTimeoutEnabled {
		t.Errorf("%+v, %+v", p, o)
	}
}

// FuzzCheckURL: whatever surrounds a password in a URL, and whatever is in it,
// no error contains it.
func FuzzCheckURL(f *testing.F) {
	for _, around := range [][2]string{
		{"", ""}, {"@", "@"}, {"/", ""}, {"?x=", ""}, {"%", ""}, {"", "%zz"}, {"#", ""}, {" ", " "}, {":", ":"}, {"", "?prefix="},
		{"\x00", ""}, {"[", "]"}, {"", "%00"}, {"/?db=", "&"}, {"=", "="}, {"p/d?", "&prefix="}, {",", ":x"},
	} {
		f.Add("u:", around[0], around[1], "@host/nine")
		f.Add("", around[0], around[1], "@host:99999/0")
	}
	f.Fuzz(func(t *testing.T, user, before, after, rest string) {
		const secret = "hunter2"
		if strings.Contains(user+rest, "/") && !strings.HasPrefix(rest, "@") || strings.ContainsAny(user, "/?@") {
			return // it is not a password then
		}
		for _, link := range []string{
			"redis://" + user + ":" + before + secret + after + "@" + rest,
			"redis+cluster://" + user + ":" + url.PathEscape(before+secret+after) + "@" + rest,
			"redis+sentinel://host?password=" + url.QueryEscape(before) + secret + url.QueryEscape(after) + "&x" + url.QueryEscape(rest),
		} {
			if err := CheckURL(link); err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("CheckURL(%q) = %v", link, err)
			}
		}
	})
}
