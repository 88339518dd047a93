package doctor

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"stsmap/postfix"
	"stsmap/postfix/postconf"
)

// checkRelease is LOC-06.
func checkRelease(_ context.Context, e *exam) []Result {
	return e.eachSetup(mailers, func(s *postconf.Setup, services []postconf.Service) []Result {
		where := e.where(s, services)
		all := append(e.believed(s), e.askedAs(s, services)...)
		switch {
		case before(s.Release, 3, 4):
			all = append(all, fail("%sPostfix %s does not know the attribute servername", where, s.Release).
				because("all mail to domains with a policy waits").fix("# install Postfix 3.4 or later"))
		case before(s.Release, 3, 10, 5):
			all = append(all, info("%sPostfix %s does not compare the names of MX hosts with a policy, only certificates", where, s.Release).
				because("from 3.10.5 on it does as RFC 8461 says"))
		default:
			all = append(all, e.patterns(s, services)...)
		}
		if !slices.ContainsFunc(all, func(f Result) bool { return f.Severity >= Info }) {
			all = append(all, ok("%sPostfix %s knows policy attributes, and compares the names of MX hosts", where, s.Release))
		}
		return all
	})
}

// before compares a release with numbers. What cannot be read is not before
// anything.
func before(release string, numbers ...int) bool {
	number, _, _ := strings.Cut(release, "-")
	var have []int
	for part := range strings.SplitSeq(number, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return false
		}
		have = append(have, n)
	}
	return slices.Compare(have, numbers) < 0
}

// attributes says whether a release knows policy attributes.
func attributes(release string) bool {
	r, err := postfix.ParseRelease(release)
	return err == nil && r.Attributes()
}

// believed compares the release with what the configuration and the daemon take
// it for.
func (e *exam) believed(s *postconf.Setup) (all []Result) {
	if said := e.Settings.Postfix.Release; said != "auto" && attributes(said) != attributes(s.Release) {
		f := warn("postfix.release = %q, and this Postfix is %s", said, s.Release).because("policy attributes are left out: names of MX hosts are not compared, and TLS reports name no policy")
		if attributes(said) {
			f = fail("postfix.release = %q, and this Postfix is %s", said, s.Release).because("it does not know policy attributes, and all mail to domains with a policy waits")
		}
		all = append(all, f.fix(fmt.Sprintf("# in %s: remove postfix.release", e.fileName()), e.reloadLine()))
	}
	if e.status == nil || e.status.Postfix.Attributes == attributes(s.Release) || len(all) > 0 {
		return all
	}
	f := warn("the daemon takes Postfix for %s, and it is %s", orElse(e.status.Postfix.Release, "a release that it does not know"), s.Release).
		because("it asks postconf every ten minutes; until then replies have the words of the other release")
	if e.status.Postfix.Error != "" {
		f = warn("the daemon does not know the release of Postfix, which is %s: %s", s.Release, e.status.Postfix.Error).
			because("replies have no policy attributes")
		return append(all, f.fix(fmt.Sprintf("# in %s: postfix.release = %q", e.fileName(), s.Release), e.reloadLine()))
	}
	return append(all, f.fix(e.reloadLine()))
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// fileName is where the configuration is.
func (e *exam) fileName() string { return orElse(e.File, "/etc/stsmap/stsmap.toml") }

// askedAs is about the names of the socketmaps.
func (e *exam) askedAs(s *postconf.Setup, services []postconf.Service) (all []Result) {
	told := make(map[string]bool)
	for _, c := range cohorts(s, services, policyMaps) {
		for _, t := range e.asking(s, c.services[0]) {
			if told[t.Map] {
				continue
			}
			told[t.Map] = true
			if f, bad := e.judgeName(s, c, t); bad {
				all = append(all, f)
			}
		}
	}
	return all
}

// judgeName is about one of them.
func (e *exam) judgeName(s *postconf.Setup, c cohort, t postconf.Table) (Result, bool) {
	where := e.where(s, c.services)
	m, known := e.Settings.Map(t.Map)
	plain := strings.TrimSuffix(t.Text, t.Map) + "postfix"
	rename := set(s, c, policyMaps, strings.Replace(c.values[0], t.Text, plain, 1))
	switch {
	case !known:
		return warn("%sthe socketmap name %q is not configured", where, t.Map).
			because("it is answered as postfix, and is perhaps misspelt").fix(rename...), true
	case m.TLSRPT == "yes" && !attributes(s.Release):
		return fail("%sthe socketmap name %s has policy attributes, which Postfix %s does not know", where, t.Map, s.Release).
			because(`all mail to domains with a policy waits, with "invalid attribute name"`).fix(rename...), true
	case m.TLSRPT == "no" && attributes(s.Release):
		return info("%sthe socketmap name %s has no policy attributes, which Postfix %s knows", where, t.Map, s.Release).
			because("names of MX hosts are not compared, and TLS reports name no policy").fix(rename...), true
	}
	return Result{}, false
}

// patterns is about the switch for comparing names.
func (e *exam) patterns(s *postconf.Setup, services []postconf.Service) (all []Result) {
	const parameter = "smtp_tls_enforce_sts_mx_patterns"
	for _, c := range cohorts(s, services, parameter) {
		if c.values[0] == "no" {
			all = append(all, warn("%s%s = no", e.where(s, c.services), parameter).
				because("the names of MX hosts are not compared with the policy, as RFC 8461 wants").fix(set(s, c, parameter, "yes")...))
		}
	}
	return all
}
