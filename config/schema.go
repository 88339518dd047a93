package config

import (
	"fmt"
	"time"

	"github.com/BurntSushi/toml"
)

// A key is one that may stand in the file, and the field it sets.
type key struct {
	path  string // as the file would have it without tables: "dns.timeout"
	value value
}

// keys returns all keys outside [maps.NAME], bound to the fields of c, in the order of the file.
func (c *Config) keys() []key {
	return []key{
		{"listen", &list{&c.Listen, checkListen}},
		{"postfix.release", &text{p: &c.Postfix.Release, check: checkRelease}},
		{"postfix.dnssec", oneOf(&c.Postfix.DNSSEC, "auto", "yes", "no")},
		{"postfix.config_directory", &text{p: &c.Postfix.ConfigDirectory, check: checkPath}},
		{"postfix.bracketed", &boolean{&c.Postfix.Bracketed}},
		{"dns.servers", &list{&c.DNS.Servers, checkServer}},
		{"dns.timeout", &duration{&c.DNS.Timeout, positive}},
		{"dns.trust_ad", oneOf(&c.DNS.TrustAD, "auto", "yes", "no")},
		{"dns.ca_file", &text{p: &c.DNS.CAFile, check: checkPath}},
		{"dns.on_failure", oneOf(&c.DNS.OnFailure, "deliver", "defer")},
		{"fetch.timeout", &duration{&c.Fetch.Timeout, fetchTimeout}},
		{"fetch.max_size", &number{&c.Fetch.MaxSize, maxSize}},
		{"fetch.concurrency", &number{&c.Fetch.Concurrency, concurrency}},
		{"fetch.refresh", &duration{&c.Fetch.Refresh, refresh}},
		{"fetch.recheck", &duration{&c.Fetch.Recheck, recheck}},
		{"fetch.ca_file", &text{p: &c.Fetch.CAFile, check: checkPath}},
		{"fetch.allow_private", &prefixes{&c.Fetch.AllowPrivate}},
		{"fetch.proxy", &text{p: &c.Fetch.Proxy, check: checkProxy, show: hidePassword}},
		{"cache.store", &text{p: &c.Cache.Store, check: checkStore, show: hidePassword}},
		{"cache.entries", &number{&c.Cache.Entries, entries}},
		{"cache.forget", &duration{&c.Cache.Forget, forget}},
		{"cache.warm", &text{p: &c.Cache.Warm, check: checkPath}},
		{"dane.mode", oneOf(&c.DANE.Mode, "precede", "all", "off")},
		{"dane.partial", oneOf(&c.DANE.Partial, "dane-only", "dane")},
		{"dane.on_failure", oneOf(&c.DANE.OnFailure, "defer", "sts")},
		{"overrides.file", &text{p: &c.Overrides.File, check: checkPath}},
		{"log.level", oneOf(&c.Log.Level, "debug", "info", "warn", "error")},
		{"log.format", oneOf(&c.Log.Format, "auto", "text", "json", "journal")},
		{"log.lookups", oneOf(&c.Log.Lookups, "none", "changes", "all")},
		{"admin.listen", &text{p: &c.Admin.Listen, check: checkAdmin}},
		{"admin.show_domains", &boolean{&c.Admin.ShowDomains}},
		{"admin.socket", &text{p: &c.Admin.Socket, check: checkSocket}},
	}
}

// keys returns the keys of a table [maps.NAME], bound to the fields of m.
func (m *Map) keys(name string) []key {
	path := func(k string) string { return toml.Key{"maps", name, k}.String() }
	return []key{
		{path("tlsrpt"), oneOf(&m.TLSRPT, "auto", "yes", "no")},
		{path("testing"), oneOf(&m.Testing, "ignore", "report", "enforce")},
		{path("level"), oneOf(&m.Level, "may", "encrypt", "dane")},
	}
}

// positive is for time limits without another bound of their own.
func positive(d time.Duration) string {
	if d <= 0 {
		return "must be greater than zero"
	}
	return ""
}

// fetchTimeout leaves Postfix time to hear the answer: util/dict_sockmap.c gives up after 100 seconds,
// and then every lookup of that process fails until it is idle.
func fetchTimeout(d time.Duration) string {
	if d > 90*time.Second {
		return "must be at most 90s: Postfix gives up on a lookup after 100s"
	}
	return positive(d)
}

func refresh(d time.Duration) string {
	if d < time.Hour {
		return "must be at least 1h: every known domain is asked this often"
	}
	return ""
}

// recheck keeps the promise of RFC 8461, Section 5, that no message fails for good before its sender has
// looked for a newer policy. Postfix does not say which attempt is the last, so there must be a look in
// every one of them, and minimal_backoff_time is 300 seconds.
func recheck(d time.Duration) string {
	switch {
	case d < time.Second:
		return "must be at least 1s"
	case d > 5*time.Minute:
		return "must be at most 5m: Postfix tries again after that long, and must not give up on a message " +
			"by a policy that has been replaced (RFC 8461, Section 5)"
	}
	return ""
}

func forget(d time.Duration) string {
	if d < day {
		return "must be at least 1d"
	}
	return ""
}

func maxSize(n int64) string {
	if n < 1024 || n > 1<<20 {
		return "must be from 1024 to 1048576 bytes; RFC 8461, Section 3.3, suggests 65536"
	}
	return ""
}

func concurrency(n int64) string {
	if n < 1 || n > 1024 {
		return "must be from 1 to 1024"
	}
	return ""
}

// entries has an upper bound only because the number is an int, which has 32 bits on small machines.
func entries(n int64) string {
	if n < 1 || n > 1<<30 {
		return fmt.Sprintf("must be from 1 to %d", 1<<30)
	}
	return ""
}

// relations checks the conditions between keys. It returns the path of the key to blame, preferring one that is set in
// the file or environment.
func (c *Config) relations(set func(path string) bool) (path, reason string) {
	if c.DNS.Timeout < c.Fetch.Timeout {
		return "", ""
	}
	if set("fetch.timeout") && !set("dns.timeout") {
		return "fetch.timeout", "must be longer than dns.timeout (" + formatDuration(c.DNS.Timeout) +
			"): a retrieval begins with a question to DNS"
	}
	return "dns.timeout", "must be shorter than fetch.timeout (" + formatDuration(c.Fetch.Timeout) +
		"): a retrieval begins with a question to DNS"
}
