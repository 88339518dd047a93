package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mailLogPage tells people what lines of mail.log mean.
const mailLogPage = "../docs/mail-log.md"

// A claim is a line of that page, and the scenario in whose mail.log it is to be seen.
type claim struct {
	text     string         // "..." stands for what differs
	pattern  *regexp.Regexp // the same for a program
	scenario string
	when     span
}

// claims reads the page: a heading of the third level is a line of mail.log in backticks, and a comment behind it names
// the scenario, perhaps only for some releases of Postfix.
func claims(page string) ([]claim, error) {
	var all []claim
	heading, proved := "", true
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		if text, ok := strings.CutPrefix(line, "### "); ok {
			if !proved {
				return nil, fmt.Errorf("no scenario is named for %s", heading)
			}
			heading, proved = strings.Trim(text, "`"), false
			if text != "`"+heading+"`" {
				return nil, fmt.Errorf("not a line of mail.log in backticks: %s", text)
			}
			continue
		}
		name, ok := strings.CutPrefix(line, "<!-- seen in ")
		if !ok {
			continue
		}
		c := claim{text: heading}
		condition, name := "", strings.TrimSuffix(name, " -->")
		if strings.HasPrefix(name, "[") {
			condition, name, _ = strings.Cut(name, " ")
		}
		if condition != "" {
			var err error
			if c.when, _, err = conditionOf(condition); err != nil {
				return nil, err
			}
		}
		c.scenario, proved = name, true
		c.pattern = regexp.MustCompile(strings.ReplaceAll(regexp.QuoteMeta(heading), `\.\.\.`, ".+"))
		all = append(all, c)
	}
	if !proved {
		return nil, fmt.Errorf("no scenario is named for %s", heading)
	}
	return all, nil
}

// conditionOf reads a condition that stands alone.
func conditionOf(word string) (span, string, error) { return condition(word + " step") }

// TestMailLogPage: each line on the page names a scenario that exists, and the manual page has the longest part of it.
func TestMailLogPage(t *testing.T) {
	page, err := os.ReadFile(mailLogPage)
	if err != nil {
		t.Fatal(err)
	}
	all, err := claims(string(page))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 15 {
		t.Errorf("only %d lines: the page is not understood any more", len(all))
	}
	manual, err := os.ReadFile("../man/stsmap-postfix.7")
	if err != nil {
		t.Fatal(err)
	}
	told := strings.NewReplacer(`\(dq`, `"`, "\n", " ").Replace(string(manual))
	for _, c := range all {
		if _, err := os.Stat(filepath.Join("scenarios", c.scenario, "play")); err != nil {
			t.Errorf("%s: there is no scenario %s", c.text, c.scenario)
		}
		// The manual page is shorter, and has other things in the place of what differs.
		longest := ""
		for part := range strings.SplitSeq(c.text, "...") {
			if part = strings.Trim(part, " ':"); len(part) > len(longest) {
				longest = part
			}
		}
		if !strings.Contains(told, longest) {
			t.Errorf("stsmap-postfix.7 does not have %q", longest)
		}
	}
}

// prove looks for the lines that the page says are to be seen in this scenario.
func (p *play) prove() {
	p.t.Helper()
	page, err := os.ReadFile(mailLogPage)
	p.check(err)
	all, err := claims(string(page))
	p.check(err)
	lines := p.site.Postfix.Log.Since(p.mark)
	for _, c := range all {
		if c.scenario == p.scenario.name && c.when.covers(p.release) && !slices.ContainsFunc(lines, c.pattern.MatchString) {
			p.t.Errorf("docs/mail-log.md: mail.log has no line with %q", c.text)
		}
	}
}

// check fails the play on an error when there is no step.
func (p *play) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Error(err)
	}
}
