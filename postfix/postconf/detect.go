package postconf

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"stsmap/postfix"
)

// Detected is the result of Detect.
type Detected struct {
	// DNSSEC reports whether every smtp(8) looks up DNSSEC. One that does not
	// treats the level "dane" as "may", and defers mail at "dane-only"
	// (smtp/smtp_tls_policy.c).
	DNSSEC bool
	// Why is the setting that disables it, for people; empty if DNSSEC is true.
	Why string
}

// DetectRelease returns the mail_version of the installed Postfix, in a form that
// postfix.ParseRelease accepts. An empty configDirectory is the default of postconf;
// a broken main.cf in it does not matter. Errors are those of Detect. It may be
// called concurrently.
func DetectRelease(ctx context.Context, configDirectory string) (string, error) {
	p := program{directory: configDirectory}
	if err := p.find(); err != nil {
		return "", err
	}
	// The compiled-in value, not that of main.cf: replies must suit the programs,
	// whatever version the administrator has them announce.
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

// Detect reports whether the installed Postfix looks up DNSSEC. An empty
// configDirectory is the default of postconf. An error is ErrNotFound or an *Error,
// and means that nothing was learned. It may be called concurrently.
func Detect(ctx context.Context, configDirectory string) (Detected, error) {
	p := program{directory: configDirectory}
	if err := p.find(); err != nil {
		return Detected{}, err
	}
	// With names, so without "-h": a release that does not know a parameter omits
	// its line.
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

// daneSettings returns the parameters that can disable DANE in smtp(8)
// (smtp/smtp.c, post_init; smtp/smtp_tls_policy.c, dane_init).
func daneSettings() []string {
	return []string{"smtp_dns_support_level", "disable_dns_lookups", "smtp_host_lookup", "smtp_dns_resolver_options", "ignore_mx_lookup_error"}
}

// settings are values by parameter name.
type settings map[string]string

// dnssecDisabledBy returns the parameter that disables DANE in an smtp(8), and its
// setting for people; both are empty if none does.
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
		// Also an invalid word, with which smtp(8) does not start.
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

// splitList splits a list at commas and white space, as Postfix does.
func splitList(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
}

// serviceWithoutDNSSEC returns the setting in master.cf that disables DANE in the
// smtp(8) of a service, where main are the settings of main.cf; empty if there is
// none. One such service is enough: lookups do not tell services apart.
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
