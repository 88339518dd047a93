package doctor

import (
	"context"
	"fmt"

	"stsmap/postfix/postconf"
)

const dnsLevel = "smtp_dns_support_level"

// checkLevel is LOC-03.
func checkLevel(_ context.Context, e *exam) []Result {
	return e.eachSetup(mailers, func(s *postconf.Setup, services []postconf.Service) (all []Result) {
		blind := false
		for _, c := range cohorts(s, services, "smtp_tls_security_level", "smtp_use_tls", "smtp_enforce_tls", dnsLevel) {
			f := e.judgeLevel(s, c)
			blind = blind || f.Severity == Fail
			all = append(all, f)
		}
		if blind {
			return all // which says it already
		}
		return append(all, e.judgeDNSSEC(s, services))
	})
}

// judgeLevel is about what holds where stsmap has nothing to say.
func (e *exam) judgeLevel(s *postconf.Setup, c cohort) Result {
	const parameter = "smtp_tls_security_level"
	where, level := e.where(s, c.services), c.values[0]
	seen := fmt.Sprintf("%s%s = %s", where, parameter, orNothing(level))
	_, setting := s.DNSSECDisabledBy(c.services[0])
	switch level {
	case "may", "encrypt", "verify", "secure", "fingerprint":
		return ok("%s", seen)
	case "dane", "dane-only":
		if setting == "" {
			return ok("%s", seen)
		}
		why := `without DNSSEC the level "dane" is no more than "may"`
		if level == "dane-only" {
			why = `without DNSSEC all mail of the level "dane-only" waits`
		}
		return fail("%s, and %s", seen, setting).because("%s", why).fix(lookUpDNSSEC(s, c.services[0])...)
	case "", "none":
		if level == "" && (c.values[1] == "yes" || c.values[2] == "yes") {
			return info("%s; smtp_use_tls and smtp_enforce_tls are obsolete", seen)
		}
		return warn("%s", seen).because("mail to domains without a policy goes in the clear, even where TLS is offered").
			fix(set(s, c, parameter, "may")...)
	}
	return fail("%s", seen).because("Postfix has no such level, and smtp(8) does not start").fix(set(s, c, parameter, "may")...)
}

// judgeDNSSEC is about whether DANE can go first.
func (e *exam) judgeDNSSEC(s *postconf.Setup, services []postconf.Service) Result {
	if e.Settings.DANE.Mode == "off" {
		return info(`dane.mode = "off": policies are answered where DANE may apply`)
	}
	for _, service := range services {
		_, setting := s.DNSSECDisabledBy(service)
		if setting == "" {
			continue
		}
		where := e.where(s, []postconf.Service{service})
		if e.Settings.Postfix.DNSSEC == "yes" {
			return fail(`%spostfix.dnssec = "yes", and %s`, where, setting).
				because(`mail to domains that are answered "dane-only" waits`).fix(lookUpDNSSEC(s, service)...)
		}
		return info("%sDNSSEC is not looked up: %s", where, setting).
			because("DANE cannot go before policies (RFC 8461, Section 2)").fix(lookUpDNSSEC(s, service)...)
	}
	return ok("%sDNSSEC is looked up", e.where(s, services))
}

// lookUpDNSSEC takes away what keeps a service from doing so.
func lookUpDNSSEC(s *postconf.Setup, service postconf.Service) []string {
	name, _ := s.DNSSECDisabledBy(service)
	if _, own := service.Own[name]; own {
		return inherit(s, cohort{own: []string{service.Name}}, name)
	}
	right := map[string]string{"smtp_host_lookup": "dns", "smtp_dns_resolver_options": "", "ignore_mx_lookup_error": "no"}
	if value, known := right[name]; known {
		return set(s, cohort{inherits: true}, name, value)
	}
	return set(s, cohort{inherits: true}, dnsLevel, "dnssec")
}
