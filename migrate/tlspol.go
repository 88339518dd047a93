package migrate

import (
	"log/slog"
	"net"
	"net/netip"
	"strings"
)

// tlspolListen is where postfix-tlspol listens by default, by itself (configs/config.default.yaml) and through its
// socket unit (init/postfix-tlspol.socket).
const tlspolListen = "127.0.0.1:8642"

// fromTLSPol reads a configuration of postfix-tlspol, of any version from the first. What a version
// expects is in its internal/config.go.
func fromTLSPol(top *section, d *draft) {
	server := top.within("server")
	unix := tlspolAddress(server, d)
	tlspolMetrics(server, d)
	tlspolLog(server, d)
	r := top.r

	// Without a Unix socket the mode has never had an effect.
	if mode := server.whole("socket-permissions"); unix && mode.is() && mode.value != 0o666 {
		r.note(mode.line, mode.key, "a socket of stsmap always has the mode 0666: restrict who may enter its directory instead")
	}
	if tlsrpt := server.truth("tlsrpt"); tlsrpt.value {
		d.set("maps.QUERY", "tlsrpt", `"yes"`, "server.tlsrpt: with policy attributes, for Postfix 3.10 and later. "+
			"Without this, the name QUERY never has them, and QUERYwithTLSRPT always.")
	}
	if prefetch := server.truth("prefetch"); prefetch.is() && !prefetch.value {
		r.note(prefetch.line, prefetch.key, "policies are always refreshed before they expire; that cannot be switched off")
	}
	if file := server.text("cache-file"); file.is() {
		r.note(file.line, file.key, "not read: what is in that file is not imported, and stsmap keeps policies in a file of its own (cache.store)")
	}
	if strict := server.truth("strict"); strict.is() {
		r.note(strict.line, strict.key, "mail waits if DNS fails while a policy enforces and DANE may apply (dane.on_failure); this was an option of old versions")
	}
	server.rest()

	tlspolDNS(top, d)
	tlspolRedis(top)
	d.set("dane", "mode", `"all"`, "postfix-tlspol answers for every domain that has DANE, with a policy or without.")
}

// tlspolAddress takes the address to listen on, and reports whether it is a Unix socket.
func tlspolAddress(server *section, d *draft) (unix bool) {
	address := server.text("address")
	r := server.r
	if address.value == "" {
		d.set("", "listen", `["`+tlspolListen+`"]`, "Where postfix-tlspol listens unless told otherwise, so that main.cf can stay as it is.")
		if address.is() {
			r.note(address.line, address.key, "empty, so systemd listens for postfix-tlspol; listen is what postfix-tlspol.socket has as shipped: "+
				"compare with ListenStream in yours")
		}
		return false
	}
	path, unix := strings.CutPrefix(address.value, "unix:")
	if _, _, err := net.SplitHostPort(address.value); err != nil && !unix || unix && path == "" {
		r.refuse(address.line, address.key, `is not an address; postfix-tlspol wants "host:port" or "unix:/path"`)
		return unix
	}
	keepListen(r, d, address, []string{address.value})
	if address.value != tlspolListen {
		r.note(address.line, address.key, "if systemd listens for postfix-tlspol, it ignores this: compare with ListenStream in postfix-tlspol.socket")
	}
	return unix
}

// keepListen makes stsmap listen where its predecessor does.
func keepListen[T any](r *reading, d *draft, from setting[T], addresses []string) {
	var all []string
	for _, a := range addresses {
		if why := refusal("STSMAP_LISTEN", a); why != "" {
			r.note(from.line, from.key, "stsmap cannot listen there: "+why+
				"; it listens on 127.0.0.1:8461, so change smtp_tls_policy_maps in main.cf to socketmap:inet:127.0.0.1:8461:NAME")
			return
		}
		all = append(all, quoted(a))
		public(r, from, a)
	}
	if len(all) == 1 && all[0] == `"127.0.0.1:8461"` {
		return // the default
	}
	d.set("", "listen", "["+strings.Join(all, ", ")+"]", from.key+": where "+r.from+" listens, so that main.cf can stay as it is.")
}

// public makes a note of an address that others may reach, or a socket that only its owner can make.
func public[T any](r *reading, from setting[T], address string) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		dir := path[:max(strings.LastIndexByte(path, '/'), 1)]
		r.note(from.line, from.key, "stsmap makes the socket itself: "+printable(dir)+" must exist, and the user of stsmap may write there; "+
			"a directory that RuntimeDirectory= of the old service made goes away with that service")
		return
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil || local(host) {
		return
	}
	r.note(from.line, from.key, "kept, but there is no password: whoever reaches this address can make stsmap look up any domain")
}

// local reports whether only this machine can reach host.
func local(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback() || host == "localhost"
}

// tlspolMetrics takes the address of metrics.
func tlspolMetrics(server *section, d *draft) {
	address := server.text("metrics-address")
	if address.value == "" {
		return
	}
	const other = "the metrics of stsmap have other names, so that dashboards and alerts have to change"
	host, _, err := net.SplitHostPort(address.value)
	if err != nil || !local(host) || refusal("STSMAP_ADMIN_LISTEN", address.value) != "" {
		// Not kept: there is more at admin.listen than metrics, such as the domains that mail goes to.
		server.r.note(address.line, address.key, "not kept, since it may be reached from elsewhere, and stsmap shows the domains that mail goes to there: see admin.listen; "+other)
		return
	}
	server.r.note(address.line, address.key, other)
	if address.value != "127.0.0.1:8462" {
		d.set("admin", "listen", quoted(address.value), "server.metrics-address")
	}
}

// tlspolLog takes what is logged and how. The names of levels are those of log/slog, which also has
// "warn+2".
func tlspolLog(server *section, d *draft) {
	r := server.r
	if named := server.text("log-level"); named.is() {
		var level slog.Level
		if err := level.UnmarshalText([]byte(strings.ToLower(named.value))); err != nil {
			r.refuse(named.line, named.key, `is not a level; want "debug", "info", "warn" or "error"`)
		}
		word := "error"
		switch {
		case level < slog.LevelInfo:
			word = "debug"
		case level < slog.LevelWarn:
			word = "info"
		case level < slog.LevelError:
			word = "warn"
		}
		if word != "info" {
			d.set("log", "level", quoted(word), "server.log-level")
		}
		if word == "error" {
			r.note(named.line, named.key, `at "error" stsmap does not say that a policy cannot be refreshed; "warn" does`)
		}
	}
	format := server.text("log-format")
	switch strings.ToLower(format.value) {
	case "json":
		d.set("log", "format", `"json"`, "server.log-format")
	case "text", "":
		// Not "text": under systemd the journal has more to search for, and reads the same.
	default:
		r.refuse(format.line, format.key, `is not "text" or "json"`)
	}
}

// tlspolDNS takes the resolver.
func tlspolDNS(top *section, d *draft) {
	dns := top.within("dns")
	defer dns.rest()
	r := top.r
	address := dns.text("address")
	if !address.is() {
		return
	}
	host, _, err := net.SplitHostPort(address.value)
	if err != nil {
		r.refuse(address.line, address.key, `is not an address; postfix-tlspol wants "host:port"`)
		return
	}
	if why := refusal("STSMAP_DNS_SERVERS", address.value); why != "" {
		r.note(address.line, address.key, "stsmap cannot ask it, and asks those of /etc/resolv.conf: "+why+"; if it is the name of a host, write its address")
		return
	}
	d.set("dns", "servers", "["+quoted(address.value)+"]", "dns.address")
	// At 127.0.0.11 container engines forward DNS over the network, which package resolver does not trust.
	if !local(host) || host == "127.0.0.11" {
		r.note(address.line, address.key, "postfix-tlspol believes what it says about DNSSEC, and stsmap does not, since it is not on this machine, so that DANE is off: "+
			`if nobody on the way to it can change answers, add trust_ad = "yes" to [dns]`)
	}
}

// tlspolRedis takes what the versions before 1.8 had for their cache, all of it so that it is not called
// unknown.
func tlspolRedis(top *section) {
	redis := top.within("redis")
	redis.truth("disable")
	redis.text("address")
	redis.whole("db")
	if password := redis.text("password"); password.value != "" {
		top.r.note(password.line, password.key, "not carried over: stsmap does not need it")
	}
	redis.rest()
	for _, e := range top.node.entries {
		if e.key == "redis" {
			top.r.note(e.line, "redis", "not used, as by postfix-tlspol from 1.8 on: stsmap keeps policies in a file (cache.store), and nothing is imported")
		}
	}
}
