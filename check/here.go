package check

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/override"
	"stsmap/policy"
	"stsmap/postfix"
	"stsmap/socketmap"
	"stsmap/sts"
	"stsmap/stsfetch"
)

// A replay answers an Engine with what was gathered. It is a policy.Fetcher.
type replay struct{ *look }

func (p replay) Record(context.Context, string) (stsfetch.Record, error) {
	return p.record, p.recordErr
}

func (p replay) Policy(_ context.Context, domain string) (string, *sts.Policy, error) {
	if p.siteErr != nil {
		return "", nil, p.siteErr
	}
	for _, v := range p.site.Probes {
		if v.Err == nil {
			// A copy: an Engine keeps of a policy what it needs.
			copied, err := sts.ParsePolicy([]byte(v.Text))
			return v.Text, copied, err
		}
	}
	if len(p.site.Probes) > 0 {
		return "", nil, p.site.Probes[0].Err
	}
	return "", nil, &stsfetch.Error{Domain: domain, Step: stsfetch.StepDNS, Err: errors.New("not asked")}
}

// decide has an Engine like the daemon's decide, given the gathered data and
// the daemon's cached policy alone.
func (l *look) decide(ctx context.Context) {
	store := cache.NewMemory(1)
	if l.cached != nil {
		_ = store.Put(ctx, *l.known.Entry) // which does not fail in memory
	}
	c := l.c.Policy
	c.Store, c.Shared, c.Fetch, c.Observe, c.CacheSize, c.Render = store, nil, replay{l}, nil, 1, postfix.Render
	if c.DANE.Check = nil; l.c.DANE {
		c.DANE.Check = func(context.Context, dane.NextHop) (dane.Result, error) { return l.dane, l.daneErr }
	}
	engine := policy.New(c)
	defer engine.Close()
	engine.Override(l.c.Overrides)
	engine.AllowDANE(l.noDANE())
	// All data is gathered already, so the end of the time for gathering must
	// not cancel this.
	l.decision = engine.Decide(context.WithoutCancel(ctx), l.hop, l.c.Postfix.Map.Testing == postfix.Enforce)
}

// noDANE is why DANE is not used here; nil if it is.
func (l *look) noDANE() error {
	switch {
	case !l.c.DANE:
		return errors.New(`dane.mode = "off"`)
	case l.unsure != nil:
		return l.unsure
	}
	return l.c.Postfix.DNSSEC
}

// judgeHere judges the delivery of mail from here: STS-L.
func (l *look) judgeHere() {
	d, m := l.decision, l.c.Postfix.Map
	reply := postfix.Reply(d, m, l.release.Attributes())
	text := strings.TrimSpace(reply.Status.String() + " " + reply.Text)
	h := &Here{Postfix: l.c.Postfix.Release, Reply: printable(text), Kind: d.Kind.String(), Reason: printable(d.Reason)}
	l.Here = h
	l.judgeOverride()
	l.judgeDaemon()
	f := Finding{ID: "STS-L02", Severity: Info, Seen: "Postfix is answered: " + brief(text)}
	if d.Reason != "" && reply.Status == socketmap.NotFound {
		f.Seen += ": " + d.Reason
	}
	if l.known.Reply != "" {
		f.Seen = "the daemon answers: " + brief(l.known.Reply)
		h.Reply = printable(l.known.Reply)
	}
	if l.known.Waits || l.known.Reply == "" && reply.Status != socketmap.OK && reply.Status != socketmap.NotFound {
		f.Severity, f.Who = Fail, You
		f.Why = "Mail waits, with \"client TLS configuration problem\" in the log."
		f.Fix = "What is wrong is said above. To let mail pass meanwhile: stsmap override set " + l.hop.Domain + " --action exempt --until 7d"
		if d.Override != nil {
			f.Fix = "Remove the override once mail shall go: stsmap override remove " + d.Override.Domain
		}
	}
	l.add(f)
	l.judgeRelease(h)
}

// brief is as much of a reply as people want to see.
func brief(reply string) string {
	if i := strings.Index(reply, " policy_type="); i >= 0 {
		return reply[:i] + " policy_type=sts ..."
	}
	return reply
}

// judgeRelease tells which hosts Postfix would use, and how.
func (l *look) judgeRelease(h *Here) {
	const id = "STS-L03"
	name := "Postfix " + l.c.Postfix.Release
	if l.c.Postfix.Release == "" {
		name = "Postfix, whose release is not known,"
	}
	for _, x := range l.hosts {
		if l.uses(x) {
			h.Uses = append(h.Uses, x.name)
		} else {
			h.Avoids = append(h.Avoids, x.name)
		}
	}
	how := ""
	switch l.decision.Kind {
	case policy.Enforce:
		how = "with a certificate for the name of the host"
		if !l.byHost() {
			how = "with a certificate for a name that the policy lists"
		}
	case policy.DANEOnly:
		how = "with DANE"
	case policy.DANE:
		how = "with DANE, where it applies"
	case policy.Failed:
		l.info(id, "%s would not connect to any host for now", name)
		return
	case policy.Replied:
		how = "as the override says"
	default:
		how = "as smtp_tls_security_level in main.cf says"
	}
	if len(l.hosts) == 0 {
		l.skip("there are no MX hosts", id)
		return
	}
	text := fmt.Sprintf("%s would connect to %s, %s", name, several(h.Uses), how)
	if len(h.Uses) == 0 {
		text = name + " would not connect to any host"
	}
	if len(h.Avoids) > 0 && len(h.Uses) > 0 {
		text += "; not to " + several(h.Avoids)
	}
	l.info(id, "%s", text)
}

// uses reports whether Postfix would connect to a host.
func (l *look) uses(h *host) bool {
	if h.err != nil || len(h.addrs.Records) == 0 {
		return false
	}
	switch l.decision.Kind {
	case policy.Enforce:
		return h.covered || !l.byHost()
	case policy.DANEOnly:
		return h.dane.State == dane.Usable
	case policy.DANE:
		return h.dane.State != dane.Failed
	case policy.Failed:
		return false
	}
	return true
}

// judgeDaemon is about what only the daemon knows.
func (l *look) judgeDaemon() {
	switch {
	case l.c.Known == nil:
		l.skip("no daemon was asked", "STS-L04", "STS-P12", "STS-P13", "STS-D09")
		return
	case l.knownErr != nil:
		l.skip(l.knownErr.Error(), "STS-L04", "STS-P12", "STS-P13", "STS-D09")
		return
	}
	for _, e := range l.known.Events[:min(len(l.known.Events), 5)] {
		l.info("STS-L04", "%s", e)
	}
}

// judgeOverride is about what the administrator of this host wants.
func (l *look) judgeOverride() {
	const id = "STS-L01"
	if l.c.NoOverrides != nil {
		l.skip(l.c.NoOverrides.Error(), id)
		return
	}
	o := l.decision.Override
	if o == nil {
		return
	}
	text := fmt.Sprintf("an override for %s is in force: %s", o.Domain, o.Action)
	if !o.Until.IsZero() {
		text += ", until " + date(o.Until)
	}
	if o.Reason != "" {
		text += ": " + o.Reason
	}
	if o.Action == override.Enforce {
		l.info(id, "%s", text)
		return
	}
	l.add(Finding{
		ID: id, Severity: Warn, Who: You, Seen: text,
		Why: "What the domain publishes does not count here.", Fix: "Remove it once its reason is gone: stsmap override remove " + o.Domain,
	})
}
