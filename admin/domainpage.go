package admin

import (
	"fmt"
	"strings"
	"time"
)

// A domainView is what domain.html shows: an Explanation in its order.
type domainView struct {
	Name, Host, Now string
	Sections        []sectionView
}

// A sectionView is a part of it.
type sectionView struct {
	Title string
	Facts []fact
	Text  string // as it stands, such as a policy
}

// add adds a fact, unless it is empty.
func (s *sectionView) add(name, format string, args ...any) {
	if text := fmt.Sprintf(format, args...); text != "" {
		s.Facts = append(s.Facts, fact{Name: name, Text: text})
	}
}

// at adds a time and how far away that is, unless it is zero.
func (s *sectionView) at(name string, t, now time.Time) {
	switch {
	case t.IsZero():
	case t.After(now):
		s.add(name, "%s (in %s)", moment(t), Span(t.Sub(now)))
	default:
		s.add(name, "%s (%s ago)", moment(t), Span(now.Sub(t)))
	}
}

func moment(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }

// domainView makes what the page of a domain shows at the time now.
func (p *Page) domainView(e Explanation, now time.Time) domainView {
	v := domainView{Name: e.Key, Host: p.host(), Now: moment(now)}
	told := sectionView{Title: "What Postfix is told"}
	told.add("Reply", "%s", strings.TrimSpace(e.Reply.Status+" "+e.Reply.Text))
	if e.Domain == "" {
		told.add("Why", "the key has no policy domain, and is answered without looking")
		v.Sections = []sectionView{told}
		return v
	}
	v.Name = e.NextHop
	told.add("Decision", "%s", e.Decision)
	told.add("Why", "%s", e.Reason)
	told.at("Holds until", e.Until, now)
	told.add("Postfix", "%s", e.Postfix.Release)
	told.add("Map", "%s; policies in mode testing: %s", e.Map, e.Testing)
	v.Sections = append(v.Sections, told)
	if s := overrideSection(e); len(s.Facts) > 0 {
		v.Sections = append(v.Sections, s)
	}
	v.Sections = append(v.Sections, policySection(e, now))
	if e.DANE != nil {
		v.Sections = append(v.Sections, daneSection(*e.DANE))
	}
	v.Sections = append(v.Sections, historySection(e.History))
	return v
}

// overrideSection shows the override in force, and the others for the domain.
func overrideSection(e Explanation) sectionView {
	s := sectionView{Title: "Overrides"}
	one := func(name string, o OverrideStatus) {
		text := strings.TrimSpace(o.Action + " " + o.Text)
		if !o.Until.IsZero() {
			text += ", until " + moment(o.Until)
		}
		s.add(name+" "+o.Domain, "%s", strings.TrimSuffix(text+": "+o.Reason, ": "))
	}
	if e.Override != nil {
		one("Counts:", *e.Override)
	}
	for _, o := range e.Others {
		one("Does not count:", o)
	}
	return s
}

// policySection shows the cached policy of the domain.
func policySection(e Explanation, now time.Time) sectionView {
	s := sectionView{Title: "The policy"}
	rec := e.Record
	switch {
	case e.StoreError != "":
		s.add("Not known", "the store cannot be read: %s", e.StoreError)
		return s
	case rec == nil:
		s.add("Not known", "nothing is remembered of the domain")
		return s
	case rec.Policy == "":
		s.add("Mode", "none is known")
	case rec.Expired(now):
		s.add("Mode", "%s, has expired", rec.Mode)
	default:
		s.add("Mode", "%s", rec.Mode)
	}
	s.add("Version", "%s", rec.ID)
	s.at("Downloaded", rec.Fetched, now)
	s.at("Expires", rec.Expires, now)
	s.at("Record looked at", rec.Checked, now)
	s.at("Next download", rec.Refresh, now)
	s.at("Last used", rec.Used, now)
	if rec.Error != "" {
		s.Facts = append(s.Facts, fact{"Last failure", rec.Error, true})
	}
	if rec.Failures > 0 {
		s.add("Failures in a row", "%d (%s)", rec.Failures, rec.Result)
	}
	s.at("Next attempt", rec.Retry, now)
	s.Text = rec.Policy
	return s
}

// daneSection shows the DANE findings.
func daneSection(f DANEFindings) sectionView {
	s := sectionView{Title: "DANE"}
	s.add("State", "%s", strings.Join(append([]string{f.State}, f.Reasons...), ": "))
	if f.Error != "" {
		s.Facts = append(s.Facts, fact{"Error", f.Error, true})
	}
	if !f.Looked {
		return s
	}
	secure := "insecure"
	if f.MXSecure {
		secure = "secure"
	}
	s.add("MX records", "%s", secure)
	if f.NoMail {
		s.add("Mail", "the domain takes none")
	}
	for _, h := range f.Hosts {
		s.add(h.Name, "%s", strings.TrimSuffix(h.State+": "+h.Error, ": "))
	}
	return s
}

// historySection has what happened to the domain.
func historySection(all []Change) sectionView {
	s := sectionView{Title: "What happened"}
	for _, c := range all {
		times := ""
		if c.Count > 1 {
			times = fmt.Sprintf(" (%d times since %s)", c.Count, moment(c.First))
		}
		s.add(moment(c.Time), "%s", strings.TrimSuffix(c.Message+times+": "+c.Text, ": "))
	}
	if len(all) == 0 {
		s.add("Nothing", "since the daemon began")
	}
	return s
}
