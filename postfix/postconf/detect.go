package postconf

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"stsmap/postfix"
)

// Detected is what a Postfix says of itself.
type Detected struct {
	// DNSSEC says that every smtp(8) of it looks up DNSSEC, so that it can be
	// answered the levels of DANE: without, "dane" is no better than "may",
	// and with "dane-only" mail waits (smtp/smtp_tls_policy.c).
	DNSSEC bool
	// Why tells people what is set where, if DNSSEC is false.
	Why string
}

// DetectRelease asks postconf(1) which release the Postfix of this machine is:
// its mail_version, which ParseRelease reads. An empty configDirectory is that
// which postconf finds by itself; what is in it does not matter, be it wrong.
// Errors are those of Detect. It may be called concurrently.
func DetectRelease(ctx context.Context, configDirectory string) (string, error) {
	p := program{directory: configDirectory}
	if err := p.find(); err != nil {
		return "", err
	}
	// Not what main.cf says: a release that somebody wants to hide is still
	// the one that reads our replies.
	out, err := p.ask(ctx, "-d", "mail_version")
	if err != nil {
		return "", err
	}
	name, release, _ := parseSetting(strings.Join(out, "\n"))
	if _, err := postfix.ParseRelease(release); err != nil || name != "mail_version" {
		return "", unexpected(strings.Join(out, "\n"))
	}
	return release, nil
}

// Detect asks postconf(1) whether the Postfix of this machine looks up DNSSEC.
// An empty configDirectory is that which postconf
// finds by itself. An error is ErrNotFound or a *Error, and then
// nothing was learned. It may be called concurrently.
func Detect(ctx context.Context, configDirectory string) (Detected, error) {
	p := program{directory: configDirectory}
	if err := p.find(); err != nil {
		return Detected{}, err
	}
	// Not "-h", without names: a release that does not know one of them leaves
	// its line out, and the values could no longer be told apart.
	main, err := p.settings(ctx, append([]string{"mail_version"}, daneSettings()...)...)
	if err != nil {
		return Detected{}, err
	}
	if _, err := postfix.ParseRelease(main["mail_version"]); err != nil {
		return Detected{}, unexpected("mail_version = " + main["mail_version"]) // this is no postconf
	}
	var d Detected
	if _, why := main.dnssecDisabledBy(); why != "" {
		d.Why = "main.cf: " + why
		return d, nil
	}
	if d.Why, err = p.serviceWithoutDNSSEC(ctx, main); err != nil {
		return Detected{}, err
	}
	d.DNSSEC = d.Why == ""
	return d, nil
}

// daneSettings are those that smtp(8) looks at before it does DANE
// (smtp/smtp.c, post_init; smtp/smtp_tls_policy.c, dane_init).
func daneSettings() []string {
	return []string{"smtp_dns_support_level", "disable_dns_lookups", "smtp_host_lookup", "smtp_dns_resolver_options", "ignore_mx_lookup_error"}
}

// settings are values by the name of the parameter.
type settings map[string]string

// dnssecDisabledBy returns the setting that keeps an smtp(8) from doing DANE, by its name
// and in words, or nothing.
func (s settings) dnssecDisabledBy() (name, why string) {
	is := func(name string) (string, string) { return name, name + " = " + s[name] }
	const level, lookup = "smtp_dns_support_level", "smtp_host_lookup"
	_, known := s[level]
	switch {
	case !known:
		return level, level + " is unknown to this release"
	case s[level] == "" && s["disable_dns_lookups"] == "yes":
		return is("disable_dns_lookups")
	case s[level] == "":
		return level, level + " is not set"
	case !strings.EqualFold(s[level], "dnssec"):
		// Words that do not exist are among these: smtp(8) does not start then.
		return is(level)
	case !slices.ContainsFunc(splitList(s[lookup]), func(w string) bool { return strings.EqualFold(w, "dns") }):
		return is(lookup)
	case len(splitList(s["smtp_dns_resolver_options"])) > 0:
		return is("smtp_dns_resolver_options")
	case s["ignore_mx_lookup_error"] == "yes":
		return is("ignore_mx_lookup_error")
	}
	return "", ""
}

// splitList splits a list as Postfix does.
func splitList(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
}

// serviceWithoutDNSSEC returns the setting of a service in master.cf that keeps its
// smtp(8) from doing DANE although main.cf says main. All services ask with
// the same keys, so one is enough to keep the answer from being DANE.
func (p *program) serviceWithoutDNSSEC(ctx context.Context, main settings) (string, error) {
	all, err := p.services(ctx)
	if err != nil {
		return "", err
	}
	for _, s := range all {
		// lmtp(8) is the same program, but has parameters of its own.
		if len(s.Own) == 0 || s.Program != "smtp" {
			continue
		}
		with := maps.Clone(main)
		maps.Copy(with, s.Own)
		if _, why := with.dnssecDisabledBy(); why != "" {
			return fmt.Sprintf("master.cf: %s: %s", s.Name, why), nil
		}
	}
	return "", nil
}
