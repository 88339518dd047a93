package redis

import (
	"net/url"
	"slices"
	"testing"
	"time"

	"stsmap/cache/cachetest"
)

func TestCheckURL(t *testing.T) { cachetest.TestURLs(t, CheckURL, "redis: URL: ", 50) }

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

// FuzzCheckURL states the law of cachetest.FuzzURL.
func FuzzCheckURL(f *testing.F) {
	links := func(user, before, secret, after, rest string) []string {
		return []string{
			"redis://" + user + ":" + before + secret + after + "@" + rest,
			"redis+cluster://" + user + ":" + url.PathEscape(before+secret+after) + "@" + rest,
			"redis+sentinel://host?password=" + url.QueryEscape(before) + secret + url.QueryEscape(after) + "&x" + url.QueryEscape(rest),
		}
	}
	cachetest.FuzzURL(f, CheckURL, links, [][2]string{{"", "?prefix="}, {"/?db=", "&"}, {"p/d?", "&prefix="}}, "@host/nine", "@host:99999/0")
}
