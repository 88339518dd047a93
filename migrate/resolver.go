package migrate

import (
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// fromResolver reads a configuration of postfix-mta-sts-resolver, of any version from the first. What it
// expects is in its postfix_mta_sts_resolver/utils.py and defaults.py.
func fromResolver(top *section, d *draft) {
	r := top.r
	resolverListen(top, d)
	if reuse := top.truth("reuse_port"); reuse.is() {
		r.note(reuse.line, reuse.key, "no counterpart: two daemons cannot share a port; a restart loses no lookups, because Postfix asks again")
	}
	if limit := top.seconds("shutdown_timeout"); limit.is() {
		r.note(limit.line, limit.key, "no counterpart: lookups that are under way at the end have 10 seconds")
	}
	resolverGrace(top, d)
	resolverFetching(top, d)
	resolverCache(top, d)
	resolverZones(top, d)
}

// resolverListen takes the address to listen on: path, or else host and port.
func resolverListen(top *section, d *draft) {
	r := top.r
	path := top.text("path")
	mode := top.whole("mode")
	host, port := top.hosts(), top.port()
	if path.is() {
		for _, s := range []struct {
			key  string
			line int
		}{{host.key, host.line}, {port.key, port.line}} {
			if s.line > 0 {
				r.note(s.line, s.key, "has no effect there either, because path is set")
			}
		}
		keepListen(r, d, path, []string{"unix:" + path.value})
		if mode.is() && mode.value != 0o666 {
			r.note(mode.line, mode.key, "a socket of stsmap always has the mode 0666: restrict who may enter its directory instead")
		}
		return
	}
	if !host.is() && !port.is() {
		return // the defaults of both programs are the same
	}
	hosts, number := []string{"127.0.0.1"}, "8461"
	if host.is() {
		hosts = host.value
	}
	if port.is() {
		number = port.value
	}
	var addresses []string
	for _, h := range hosts {
		addresses = append(addresses, net.JoinHostPort(h, number))
	}
	if host.is() {
		keepListen(r, d, host, addresses)
	} else {
		keepListen(r, d, port, addresses)
	}
}

// hosts takes the host, which may be a list of them (asyncio.start_server of Python).
func (s *section) hosts() setting[[]string] {
	var n *node
	for _, e := range s.node.entries {
		if e.key == "host" {
			n = e.value
		}
	}
	if n == nil || n.kind != sequence {
		one := s.text("host")
		return setting[[]string]{one.key, one.line, []string{one.value}}
	}
	_, line := s.take("host")
	var all []string
	for _, item := range n.items {
		if item.kind != scalar {
			s.r.refuse(line, s.in("host"), "has an element that is "+item.kind.String()+", want addresses")
			continue
		}
		if h := strings.TrimSpace(item.text); !slices.Contains(all, h) {
			all = append(all, h)
		}
	}
	if all == nil {
		s.r.refuse(line, s.in("host"), "has no address")
	}
	return setting[[]string]{s.in("host"), line, all}
}

// port takes the port, a number that may be in quotes.
func (s *section) port() setting[string] {
	return typed(s, "port", "a port, a number up to 65535", func(n *node) (string, bool) {
		p, err := strconv.ParseUint(strings.TrimSpace(n.text), 10, 16)
		return strconv.FormatUint(p, 10), err == nil
	})
}

// resolverGrace takes how long it does without a look at the record.
func resolverGrace(top *section, d *draft) {
	const least, most = time.Second, 5 * time.Minute // see fetch.recheck in package config
	grace := top.seconds("cache_grace")
	if !grace.is() {
		return
	}
	recheck := min(max(grace.value, least), most)
	if recheck != grace.value {
		top.r.note(grace.line, grace.key, "fetch.recheck is "+strings.Trim(span(recheck), `"`)+", which is as near as it can be: from 1s to 5m (RFC 8461, Section 5)")
	}
	if recheck != most {
		d.set("fetch", "recheck", span(recheck), "cache_grace. Postfix does not wait for it here: a policy that is known is the answer "+
			"at once, and the record is looked at meanwhile.")
	}
}

// resolverFetching takes how policies are kept fresh without mail.
func resolverFetching(top *section, d *draft) {
	const least, usual = time.Hour, 24 * time.Hour // see fetch.refresh in package config
	s := top.within("proactive_policy_fetching")
	defer s.rest()
	r := top.r
	enabled, interval, limit := s.truth("enabled"), s.seconds("interval"), s.whole("concurrency_limit")
	if ratio := s.seconds("grace_ratio"); ratio.is() {
		r.note(ratio.line, ratio.key, "no counterpart: each domain has its own time to be refreshed")
	}
	if enabled.is() && !enabled.value {
		r.note(enabled.line, enabled.key, "policies are always refreshed before they expire; that cannot be switched off")
	}
	if !enabled.value {
		// Without it neither has ever had an effect, so there is nothing to preserve.
		return
	}
	if interval.is() {
		refresh := max(interval.value, least)
		if refresh != interval.value {
			r.note(interval.line, interval.key, "fetch.refresh is 1h, which is the least that it can be")
		}
		if refresh != usual {
			d.set("fetch", "refresh", span(refresh), interval.key)
		}
	}
	if limit.is() {
		concurrency := min(max(limit.value, 1), 1024)
		if concurrency != limit.value {
			r.note(limit.line, limit.key, "fetch.concurrency is "+strconv.FormatInt(concurrency, 10)+", which is as near as it can be")
		}
		if concurrency != 512 {
			d.set("fetch", "concurrency", strconv.FormatInt(concurrency, 10), limit.key+". Here it is the limit for first lookups, too.")
		}
	}
}

// resolverCache takes the settings of the cache.
func resolverCache(top *section, d *draft) {
	cache := top.within("cache")
	defer cache.rest()
	r := top.r
	kind := cache.text("type")
	options := cache.within("options")
	r.secrets(options.node, options.path, make(map[*node]bool))
	const ours = "stsmap keeps policies in a file of its own (cache.store), and nothing is imported"
	switch kind.value {
	case "internal", "":
		if kind.is() {
			r.note(kind.line, kind.key, "not in memory alone: "+ours+`; cache.store = "memory:" would be as before, and forget all policies at a restart`)
		}
		size := options.whole("cache_size")
		if size.is() {
			resolverEntries(r, d, size)
		}
		options.rest()
	case "sqlite":
		r.note(kind.line, kind.key, "not read, with none of its options: "+ours)
	case "redis", "redis_sentinel", "postgres":
		r.note(kind.line, kind.key, "not used, with none of its options: "+ours+"; if several machines share it, each now learns for itself what the others know")
	default:
		r.refuse(kind.line, kind.key, printable(kind.value)+" is not a cache of "+resolverName)
	}
}

// resolverEntries takes the size of the internal cache.
func resolverEntries(r *reading, d *draft, size setting[int64]) {
	if why := refusal("STSMAP_CACHE_ENTRIES", strconv.FormatInt(size.value, 10)); why != "" {
		r.note(size.line, size.key, "cache.entries cannot be so: "+why)
		return
	}
	if size.value != 100000 {
		d.set("cache", "entries", strconv.FormatInt(size.value, 10), size.key+". Here it limits memory only: what does not fit is still in the file.")
	}
}

// secrets makes a note of each password in the options of a cache, at any depth. What is there twice,
// by an alias, is looked at once: there may be very many ways to it.
func (r *reading) secrets(n *node, path string, seen map[*node]bool) {
	if seen[n] {
		return
	}
	seen[n] = true
	for _, e := range n.entries {
		key := path + "." + e.key
		u, err := url.Parse(e.value.text)
		hidden := e.value.kind == scalar && err == nil && u.User != nil
		if hidden {
			_, hidden = u.User.Password()
		}
		if hidden || e.value.kind == scalar && strings.Contains(strings.ToLower(e.key+e.value.text), "password") {
			r.note(e.line, key, "has a password, which is not carried over: stsmap does not need it")
		}
		if e.value.kind == mapping {
			r.secrets(e.value, key, seen)
		}
	}
}

// A zone is a socketmap name with its settings, or the settings for all names that have no zone.
type zone struct {
	timeout setting[time.Duration]
	strict  setting[bool]
	tlsrpt  setting[bool]
}

// zone takes the settings of a zone.
func (s *section) zone() zone {
	z := zone{s.seconds("timeout"), s.truth("strict_testing"), s.truth("tlsrpt")}
	if sni := s.truth("require_sni"); sni.is() && !sni.value {
		s.r.note(sni.line, sni.key, "answers always have servername=hostname, which Postfix older than 3.4 does not understand")
	}
	s.rest()
	return z
}

// write puts the settings of a zone into [maps.NAME].
func (z zone) write(d *draft, in string) {
	if z.strict.value {
		d.set(in, "testing", `"enforce"`, z.strict.key)
	}
	if z.tlsrpt.is() {
		word := `"no"`
		if z.tlsrpt.value {
			word = `"yes"`
		}
		d.set(in, "tlsrpt", word, z.tlsrpt.key)
	}
}

// same reports whether lookups are answered alike in both zones.
func (z zone) same(other zone) bool {
	return z.strict.value == other.strict.value && z.tlsrpt.value == other.tlsrpt.value
}

// resolverZones takes default_zone, which is for all names that have no zone, and zones. In stsmap those
// names are answered as "postfix".
func resolverZones(top *section, d *draft) {
	r := top.r
	others := top.within("default_zone")
	fallback := others.zone()
	timeouts := []setting[time.Duration]{fallback.timeout}
	zones := top.within("zones")
	named := false
	for _, e := range zones.node.entries {
		z := zones.within(e.key).zone()
		timeouts = append(timeouts, z.timeout)
		if !mapName(e.key) {
			r.note(e.line, zones.in(e.key), "left out: this cannot be the name of a socketmap")
			continue
		}
		in := "maps." + tableKey(e.key)
		z.write(d, in)
		switch {
		case e.key == "QUERYwithTLSRPT" && !z.tlsrpt.is():
			d.set(in, "tlsrpt", `"no"`, "It would be yes otherwise, under this name.")
		case !z.tlsrpt.is() && !z.strict.value:
			d.say(in, zones.in(e.key)+": as by default. This makes the name known, which spares a warning.")
		}
		if e.key == "postfix" {
			named = true
			if !z.same(fallback) {
				r.note(e.line, zones.in(e.key), "names without a zone are answered as this one, not as default_zone says; if there are such names in main.cf, give each a table [maps.NAME]")
			}
		}
	}
	if !named {
		fallback.write(d, "maps.postfix")
	}
	resolverTimeout(r, d, timeouts)
}

// resolverTimeout takes the timeout, which each zone has and stsmap has once. There it is one for the
// question to DNS and one for the download.
func resolverTimeout(r *reading, d *draft, all []setting[time.Duration]) {
	const (
		usual        = 4 * time.Second // defaults.py
		dns, fetch   = 5 * time.Second, 30 * time.Second
		maxDNS, most = 60 * time.Second, 90 * time.Second // see fetch.timeout in package config
	)
	var longest setting[time.Duration]
	for _, t := range all {
		if !t.is() {
			continue
		}
		if t.value == 0 {
			r.note(t.line, t.key, "left out: a lookup always has a limit here")
			continue
		}
		if longest.is() && t.value != longest.value {
			r.note(t.line, t.key, "stsmap has one timeout for all names, dns.timeout with fetch.timeout: it is made from the longest")
		}
		if t.value > longest.value {
			longest = t
		}
	}
	if !longest.is() || longest.value == usual {
		return
	}
	forDNS, forAll := min(longest.value, maxDNS), min(2*longest.value, most)
	if longest.value > usual {
		forAll = max(forAll, fetch) // who wants to wait longer does not want less than the default
	}
	if forDNS != longest.value || forAll < 2*longest.value {
		r.note(longest.line, longest.key, "cut: a lookup may take 90 seconds, because Postfix gives up after 100")
	}
	if forDNS != dns {
		d.set("dns", "timeout", span(forDNS), longest.key)
	}
	if forAll != fetch {
		d.set("fetch", "timeout", span(forAll), longest.key+", once for DNS and once for the download.")
	}
}

// mapName reports whether name can be that of a socketmap for stsmap. Package config says the same of
// tables, but cannot be asked about one without a file.
func mapName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' })
}

// tableKey is name as part of a header in TOML.
func tableKey(name string) string {
	bare := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
	}
	if strings.ContainsFunc(name, func(r rune) bool { return !bare(r) }) {
		return quoted(name)
	}
	return name
}
