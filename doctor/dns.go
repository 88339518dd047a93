package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"stsmap/postfix/postconf"
	"stsmap/resolver"
)

const resolvConf = "/etc/resolv.conf"

// bogusName has signatures that are wrong on purpose. Where it does not exist,
// nothing is learned from it.
const bogusName = "dnssec-failed.org"

// checkResolver is LOC-07.
func checkResolver(ctx context.Context, e *exam) []Result {
	var all []Result
	for _, h := range e.Resolver.Examine(ctx, bogusName) {
		all = append(all, e.judgeServer(h)...)
	}
	return append(all, e.compareServers()...)
}

// judgeServer is about one server.
func (e *exam) judgeServer(h resolver.Health) []Result {
	if h.Err != nil {
		return []Result{fail("%s: %v", h.Server, h.Err).
			because("without DNS no policy is retrieved, and Postfix may not deliver at all").
			fix("dig @"+digServer(h.Server)+" . NS", "# or name another resolver in dns.servers of "+e.fileName())}
	}
	var all []Result
	if h.TCP != nil {
		all = append(all, warn("%s: no answer over TCP: %v", h.Server, h.TCP).
			because("large answers get lost, among them TLSA records").fix("# let TCP to port 53 of it through", "dig +tcp @"+digServer(h.Server)+" . NS"))
	}
	if !h.EDNS {
		all = append(all, warn("%s: it does not know EDNS", h.Server).because("it cannot validate, and answers of more than 512 bytes need TCP").
			fix("# name another resolver in dns.servers of "+e.fileName()))
	}
	needed := e.Settings.DANE.Mode != "off"
	switch {
	case h.AnswersBogus:
		all = append(all, fail("%s: it says that its answers are secure, and has an answer for %s, whose signatures are wrong", h.Server, bogusName).
			because("who forges DNS decides what DANE says").fix("# switch DNSSEC validation on there"))
	case e.Settings.DNS.TrustAD == "no":
		all = append(all, e.unless(needed, warn("%s: its word does not count: dns.trust_ad = \"no\"", h.Server).
			because("DANE is off: policies are answered where DANE may apply (RFC 8461, Section 2)").
			fix("# in "+e.fileName()+": remove dns.trust_ad", e.reloadLine())))
	case h.Validates && !h.Trusted:
		all = append(all, e.unless(needed, warn("%s: it validates, and is neither on this host nor asked over TLS", h.Server).
			because("its word does not count, and DANE is off: policies are answered where DANE may apply (RFC 8461, Section 2)").
			fix("# run a validating resolver here, such as unbound, or", `# dns.trust_ad = "yes" if nobody can interfere on the way there`)))
	case !h.Validates:
		all = append(all, e.unless(needed, warn("%s: it does not validate: no AD bit for the name servers of the root", h.Server).
			because("DANE is off: policies are answered where DANE may apply (RFC 8461, Section 2)").
			fix("# switch DNSSEC validation on there, or", "# run a validating resolver here, such as unbound")))
	}
	if len(all) == 0 {
		over := "UDP and TCP"
		if strings.HasPrefix(h.Server, "tls://") {
			over = "TLS"
		}
		all = append(all, ok("%s: it answers over %s, knows EDNS and validates", h.Server, over))
	}
	return all
}

// unless makes what is not needed a matter of information.
func (e *exam) unless(needed bool, f Result) Result {
	if !needed {
		f.Severity = Info
	}
	return f
}

// digServer is a server as dig(1) wants it.
func digServer(text string) string {
	text = strings.TrimPrefix(text, "tls://")
	text, _, _ = strings.Cut(text, "#")
	addr, err := netip.ParseAddrPort(text)
	if err != nil {
		return text
	}
	if addr.Port() == 53 || addr.Port() == 853 {
		return addr.Addr().String()
	}
	return fmt.Sprintf("%s -p %d", addr.Addr(), addr.Port())
}

// compareServers compares the DNS servers of stsmap with those of Postfix.
// Without Postfix on this host it reports nothing.
func (e *exam) compareServers() (all []Result) {
	mine, err := e.servers()
	if err != nil {
		return []Result{warn("%v", err).because("127.0.0.1 is asked then").fix("echo nameserver 127.0.0.1 > " + resolvConf)}
	}
	for _, s := range e.setups {
		for _, chrooted := range []bool{false, true} {
			if some := slices.DeleteFunc(mailers(s), func(service postconf.Service) bool { return service.Chroot != chrooted }); len(some) > 0 {
				all = append(all, e.compareWith(s, some, mine))
			}
		}
	}
	return all
}

// servers are the addresses that stsmap asks, as one reads them.
func (e *exam) servers() ([]string, error) {
	if len(e.Settings.DNS.Servers) > 0 {
		return e.Settings.DNS.Servers, nil
	}
	return nameservers(resolvConf)
}

func nameservers(path string) (all []string, err error) {
	addrs, err := resolver.Nameservers(path)
	for _, a := range addrs {
		all = append(all, a.String())
	}
	return all, err
}

// compareWith compares with what some services ask, which is in a file of their
// root.
func (e *exam) compareWith(s *postconf.Setup, services []postconf.Service, mine []string) Result {
	path := resolvConf
	if services[0].Chroot {
		queue, _ := s.Main("queue_directory")
		path = filepath.Join(queue, resolvConf)
	}
	where := e.where(s, services)
	theirs, err := nameservers(path)
	update := []string{fmt.Sprintf("install -D -m 644 %s %s", resolvConf, quoted(path)), reload(s)}
	switch {
	case errors.Is(err, os.ErrNotExist) && services[0].Chroot:
		return warn("%sthere is no %s", where, path).because("smtp(8) asks 127.0.0.1 then, whatever %s says", resolvConf).fix(update...)
	case err != nil:
		return warn("%s%v", where, err).because("smtp(8) asks 127.0.0.1 then").fix("ls -l " + quoted(path))
	case slices.Equal(mine, theirs):
		return ok("%sPostfix asks the same: %s", where, strings.Join(theirs, ", "))
	}
	f := warn("%sPostfix asks %s (%s), and stsmap asks %s", where, orNothing(strings.Join(theirs, ", ")), path, strings.Join(mine, ", ")).
		because(`where the two see different things, mail that is answered "dane-only" waits`)
	if len(e.Settings.DNS.Servers) > 0 {
		return e.unless(e.Settings.DANE.Mode != "off", f.fix(fmt.Sprintf("# have the same in dns.servers of %s and in %s", e.fileName(), path)))
	}
	return f.fix(update...)
}
