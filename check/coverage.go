package check

import (
	"fmt"
	"slices"
	"strings"

	"stsmap/policy"
	"stsmap/sts"
)

// judgeCoverage holds the MX hosts against the policy: STS-M.
func (l *look) judgeCoverage() {
	p := l.policy()
	switch {
	case p == nil:
		l.skipGroup('M', "there is no policy to hold the MX hosts against")
		return
	case p.Mode == sts.None:
		l.skipGroup('M', "the policy is in mode none")
		return
	case len(l.hosts) == 0:
		l.skipGroup('M', "there are no MX hosts")
		return
	}
	var bare []string
	for _, h := range l.hosts {
		if !h.covered {
			bare = append(bare, l.listed(h))
		}
	}
	if len(bare) == 0 {
		l.ok("STS-M01", "the policy covers every MX host%s", map[bool]string{true: " that was looked at"}[l.omitted > 0])
	} else {
		l.judgeUncovered(p, bare)
	}
	l.judgeDepth(p)
	l.judgeLeftOver(p)
	l.judgeCase()
}

// judgeUncovered is about hosts that the policy does not list.
func (l *look) judgeUncovered(p *sts.Policy, bare []string) {
	all := len(bare) == len(l.hosts)
	f := Finding{
		ID: "STS-M01", Severity: Warn, Who: Them, Seen: "not covered by the policy: " + several(bare),
		Why: "Mail from here never uses these; if the others are down, it waits.",
		Fix: `Add a line "mx:" for each to the policy, then change the id of the record; or delete the MX record.`,
	}
	switch {
	case p.Mode == sts.Testing && l.decision.Kind != policy.Enforce:
		f.Why = "With mode enforce, mail would not use these hosts."
	case l.decision.Override != nil && l.decision.Kind != policy.Enforce:
		f.Why = "An override goes before the policy here; other senders do not use these hosts."
	case l.decision.Kind != policy.Enforce:
		f.Why = "DANE goes before the policy here; other senders do not use these hosts."
	case all:
		f.Severity, f.Seen = Fail, "the policy covers none of the MX hosts: "+several(bare)
		f.Why = "Mail from here waits, until it is returned."
	}
	l.add(f)
}

// judgeDepth is about wildcards that were meant to match several labels.
func (l *look) judgeDepth(p *sts.Policy) {
	for _, h := range l.hosts {
		for _, m := range p.MX {
			below, wild := strings.CutPrefix(string(m), "*")
			if !h.covered && wild && strings.HasSuffix(h.name, below) {
				_, parent, _ := strings.Cut(h.name, ".")
				l.add(Finding{
					ID: "STS-M03", Severity: Warn, Who: Them, Seen: fmt.Sprintf("mx: %s does not match %s: a wildcard stands for one label only", m, h.name),
					Why: "The host is not covered, though it seems to be.", Fix: fmt.Sprintf("Write mx: *.%s, then change the id of the record.", parent),
				})
				break
			}
		}
	}
}

// judgeLeftOver is about patterns that match no MX host.
func (l *look) judgeLeftOver(p *sts.Policy) {
	var idle []string
	for _, m := range p.MX {
		if !slices.ContainsFunc(l.hosts, func(h *host) bool { return m.Match(h.name) }) {
			idle = append(idle, string(m))
		}
	}
	if len(idle) > 0 && l.omitted == 0 {
		l.info("STS-M02", "no MX host matches mx: %s; left over, or for a move to come", several(idle))
	}
}

// judgeCase is about names that are written in capitals.
func (l *look) judgeCase() {
	lines, _ := sts.ReadPolicy([]byte(l.text))
	for _, line := range lines {
		if line.Name == "mx" && line.Err == nil && line.Value != strings.ToLower(line.Value) {
			l.info("STS-M04", "mx: %s is written with capitals, which make no difference", line.Value)
			return
		}
	}
}
