package doctor

import (
	"context"
	"slices"
	"strings"

	"stsmap/postfix/postconf"
)

const policyMaps = "smtp_tls_policy_maps"

// checkTables is LOC-02.
func checkTables(_ context.Context, e *exam) []Result {
	if len(e.setups) == 0 {
		return []Result{e.noSetup()}
	}
	var all []Result
	for _, s := range e.setups {
		some := mailers(s)
		if len(some) == 0 {
			all = append(all, warn("%sno service in master.cf runs smtp(8)", e.which(s)).because("no mail goes out by SMTP").
				fix(postconfCommand(s)+"-M 'smtp/unix=smtp unix - - n - - smtp'", reload(s)))
			continue
		}
		for _, c := range cohorts(s, some, policyMaps) {
			all = append(all, e.judgeTables(s, c)...)
		}
	}
	if e.setupBy != nil {
		all = append(all, e.noSetup())
	}
	return all
}

// judgeTables says what is to be said of the tables of some services.
func (e *exam) judgeTables(s *postconf.Setup, c cohort) []Result {
	where, tables := e.where(s, c.services), postconf.Tables(c.values[0])
	at := slices.IndexFunc(tables, func(t postconf.Table) bool { return e.ours(s, t) })
	if at < 0 {
		return []Result{e.notAsked(s, c, where, tables)}
	}
	var all []Result
	for _, before := range tables[:at] {
		if f, bad := e.before(s, c, where, tables, before); bad {
			all = append(all, f)
		}
	}
	if tables[at].Proxied {
		direct := slices.Clone(tables)
		direct[at].Text = strings.TrimPrefix(direct[at].Text, "proxy:")
		all = append(all, warn("%sthe socketmap is asked by way of proxymap(8): %s", where, tables[at]).
			because("one lookup that takes long holds up the lookups of all others").fix(set(s, c, policyMaps, list(direct))...))
	}
	if after := tables[at+1:]; len(after) > 0 {
		last := append(slices.Delete(slices.Clone(tables), at, at+1), tables[at])
		all = append(all, warn("%sasked after stsmap: %s", where, list(after)).
			because("the first table that has the domain decides: an exception there does not count for a domain with a policy").
			fix(set(s, c, policyMaps, list(last))...))
	}
	if len(all) > 0 {
		return all
	}
	f := ok("%s%s asks %s", where, policyMaps, tables[at])
	if at > 0 {
		f.Seen += ", after " + list(tables[:at])
	}
	return []Result{f}
}

// before judges a table that Postfix queries before stsmap. Tables of
// exceptions belong there.
func (e *exam) before(s *postconf.Setup, c cohort, where string, tables []postconf.Table, t postconf.Table) (Result, bool) {
	without := slices.DeleteFunc(slices.Clone(tables), func(other postconf.Table) bool { return other.Text == t.Text })
	switch {
	case t.Address != "":
		return warn("%sanother socketmap is asked first: %s", where, t).
			because("it decides for every domain that it knows; two daemons for the same are one too many").
			fix(set(s, c, policyMaps, list(without))...), true
	case strings.HasPrefix(strings.TrimPrefix(t.Text, "proxy:"), "static:"):
		return fail("%s%s is asked first, and has every domain", where, t).
			because("stsmap is never asked").fix(set(s, c, policyMaps, list(without))...), true
	}
	return Result{}, false
}

// notAsked is for services that do not ask stsmap.
func (e *exam) notAsked(s *postconf.Setup, c cohort, where string, tables []postconf.Table) Result {
	f := fail("%s%s = %s", where, policyMaps, orNothing(c.values[0])).because("policies of other domains are not applied to mail that goes out there")
	for _, t := range tables {
		if t.Address != "" {
			f = fail("%sthe socketmap %s is asked, and stsmap does not listen there", where, t).
				because("if nobody answers there, all mail waits; if another daemon does, stsmap is of no use")
		}
	}
	others := slices.DeleteFunc(slices.Clone(tables), func(t postconf.Table) bool { return t.Address != "" })
	if c.inherits {
		return f.fix(set(s, c, policyMaps, list(append(others, e.table(s))))...)
	}
	// With -o the administrator has set that for these services alone.
	if len(tables) == 0 {
		f.Severity = Info
	} else if f.Severity = Warn; len(others) < len(tables) {
		f.Severity = Fail
	}
	return f.fix(inherit(s, c, policyMaps)...)
}

// table is how an instance would best ask: over the socket in its queue
// directory, if there is one, and otherwise over TCP.
func (e *exam) table(s *postconf.Setup) postconf.Table {
	queue, _ := s.Main("queue_directory")
	best := ""
	for _, a := range e.addresses() {
		path, isUnix := strings.CutPrefix(a, "unix:")
		inside, within := strings.CutPrefix(path, strings.TrimSuffix(queue, "/")+"/")
		switch {
		case isUnix && within:
			return postconf.Table{Text: "socketmap:unix:" + inside + ":postfix"}
		case !isUnix && best == "":
			best = "inet:" + a
		case isUnix && best == "":
			best = a
		}
	}
	if best == "" {
		best = "inet:127.0.0.1:8461"
	}
	return postconf.Table{Text: "socketmap:" + best + ":postfix"}
}

// list puts tables together as they stand in main.cf.
func list(tables []postconf.Table) string {
	var all []string
	for _, t := range tables {
		all = append(all, t.Text)
	}
	return strings.Join(all, ", ")
}

func orNothing(value string) string {
	if value == "" {
		return "(nothing)"
	}
	return value
}

// asking are the tables of this daemon that a service has.
func (e *exam) asking(s *postconf.Setup, service postconf.Service) []postconf.Table {
	return slices.DeleteFunc(postconf.Tables(s.Value(service, policyMaps)), func(t postconf.Table) bool { return !e.ours(s, t) })
}

// checkLog is LOC-11.
func checkLog(_ context.Context, e *exam) []Result {
	const parameter = "smtp_tls_loglevel"
	return e.eachSetup(mailers, func(s *postconf.Setup, services []postconf.Service) (all []Result) {
		for _, c := range cohorts(s, services, parameter) {
			where, level := e.where(s, c.services), c.values[0]
			if level == "" || level == "0" {
				all = append(all, warn("%s%s = %s", where, parameter, level).
					because(`mail.log has no line "Verified TLS connection established": nothing shows whether policies are applied`).
					fix(set(s, c, parameter, "1")...))
				continue
			}
			all = append(all, ok("%s%s = %s", where, parameter, level))
		}
		return all
	})
}
