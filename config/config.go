// Package config is the configuration file of stsmap as plain data: the name of each key, its valid
// values, and its default. [Text] is the file as it is shipped, which explains every key.
//
// It does not act on anything: it opens no socket and no store, asks no Postfix, and does not look
// whether a file that is named exists. It does not read the overrides either, only where they are.
//
// A file with mistakes is refused as a whole, with all mistakes named at once. A misspelt
// key must not be ignored: it would silently disable a protection.
package config

import (
	"net/netip"
	"time"
)

// A Config is the whole configuration. Each field has the name of its key in the file, which is also
// where it is explained ([Text]). The zero value is not useful: begin with [Default].
type Config struct {
	// Listen has the addresses for lookups, "host:port" or "unix:/path".
	Listen []string

	// Postfix says which Postfix is asking.
	Postfix struct {
		Release         string // Release is "auto", or two or three numbers: "3.10", "3.7.11".
		DNSSEC          string // DNSSEC is "auto", "yes" or "no".
		ConfigDirectory string // ConfigDirectory is for postconf; empty means its own default.
		Bracketed       bool   // Bracketed says that "[relay.example]:587" has a policy domain.
	}

	// DNS configures the DNS servers to query.
	DNS struct {
		Servers   []string      // Servers is as resolver.Config has it; empty means resolv.conf.
		Timeout   time.Duration // Timeout is that of one question, and less than Fetch.Timeout.
		TrustAD   string        // TrustAD is "auto", "yes" or "no".
		CAFile    string        // CAFile is a path, for servers over TLS; empty means the trust anchors of the system.
		OnFailure string        // OnFailure is "deliver" or "defer".
	}

	// Fetch says how policies are retrieved and how often.
	Fetch struct {
		Timeout      time.Duration  // Timeout is that of one retrieval, at most 90 seconds.
		MaxSize      int            // MaxSize is in bytes.
		Concurrency  int            // Concurrency is how many fetches run at once.
		Refresh      time.Duration  // Refresh is how often to download again.
		Recheck      time.Duration  // Recheck is how old the last look at a record may be, at most 5 minutes.
		CAFile       string         // CAFile is a path; empty means the trust anchors of the system.
		AllowPrivate []netip.Prefix // AllowPrivate has no bits set beyond the length of a prefix.
		Proxy        string         // Proxy is a URL (http, https, socks5), "env", or empty for none.
	}

	// Cache configures the cache and its store.
	Cache struct {
		Store   string        // Store is "bolt:PATH", "memory:", or a URL: redis, rediss, postgres, postgresql.
		Entries int           // Entries is how many are kept in memory.
		Forget  time.Duration // Forget is how long after their last use entries are refreshed.
		Warm    string        // Warm is the path of a list or log of domains to retrieve at the start; empty for none.
	}

	// DANE says how it is combined with MTA-STS.
	DANE struct {
		Mode      string // Mode is "precede", "all" or "off".
		Partial   string // Partial is "dane-only" or "dane".
		OnFailure string // OnFailure is "defer" or "sts".
	}

	// Maps has the tables [maps.NAME] by NAME. Ask [Config.Map] for one.
	Maps map[string]Map

	// Overrides says where they are.
	Overrides struct {
		File string // File is a path; empty means none.
	}

	// Log says what is logged and how.
	Log struct {
		Level   string // Level is "debug", "info", "warn" or "error".
		Format  string // Format is "auto", "text", "json" or "journal".
		Lookups string // Lookups is "none", "changes" or "all".
	}

	// Admin says where people and machines can look inside.
	Admin struct {
		Listen      string // Listen is "host:port" or "unix:/path"; empty means nowhere.
		ShowDomains bool   // ShowDomains says that the page at Listen names domains.
		Socket      string // Socket is a path; empty means none.
	}
}

// A Map says how lookups under one socketmap name are answered.
type Map struct {
	TLSRPT  string // TLSRPT is whether to send policy attributes: "auto", "yes" or "no".
	Testing string // Testing is what a policy in testing mode means: "ignore", "report" or "enforce".
	Level   string // Level goes with "report": "may", "encrypt" or "dane".
}

// Default returns the configuration of an empty file.
func Default() Config {
	var c Config
	c.Listen = []string{"127.0.0.1:8461"}
	c.Postfix.Release = "auto"
	c.Postfix.DNSSEC = "auto"
	c.Postfix.Bracketed = true
	c.DNS.Timeout = 5 * time.Second
	c.DNS.TrustAD = "auto"
	c.DNS.OnFailure = "deliver"
	c.Fetch.Timeout = 30 * time.Second
	c.Fetch.MaxSize = 64 << 10
	c.Fetch.Concurrency = 512
	c.Fetch.Refresh = day
	c.Fetch.Recheck = 5 * time.Minute
	c.Cache.Store = "bolt:/var/lib/stsmap/cache.db"
	c.Cache.Entries = 100000
	c.Cache.Forget = 90 * day
	c.DANE.Mode = "precede"
	c.DANE.Partial = "dane-only"
	c.DANE.OnFailure = "defer"
	c.Overrides.File = "/etc/stsmap/overrides.toml"
	c.Log.Level = "info"
	c.Log.Format = "auto"
	c.Log.Lookups = "changes"
	c.Admin.Listen = "127.0.0.1:8462"
	c.Admin.Socket = "/run/stsmap/control.sock"
	return c
}

// Map returns how to answer lookups under name, and whether the name is known: by a table in the file,
// or because it is "postfix", or one of the two of postfix-tlspol, "QUERY" and "QUERYwithTLSRPT". An
// unknown name is answered as "postfix".
func (c Config) Map(name string) (m Map, known bool) {
	if m, ok := c.Maps[name]; ok {
		return m, true
	}
	switch name {
	case "postfix", "QUERY", "QUERYwithTLSRPT":
		return defaultMap(name), true
	}
	if m, ok := c.Maps["postfix"]; ok {
		return m, false
	}
	return defaultMap(name), false
}

// defaultMap is what a table [maps.NAME] starts from. The names of postfix-tlspol keep the meaning they
// have there unless the table says otherwise.
func defaultMap(name string) Map {
	m := Map{TLSRPT: "auto", Testing: "ignore", Level: "may"}
	switch name {
	case "QUERY":
		m.TLSRPT = "no"
	case "QUERYwithTLSRPT":
		m.TLSRPT = "yes"
	}
	return m
}
