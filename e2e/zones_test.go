package e2e

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"

	"stsmap/e2e/site"
	"stsmap/internal/fakenet"
)

// parseZones reads a zones.txtar, whose sections are "signed NAME" and "unsigned NAME".
func parseZones(text string) ([]site.Zone, error) {
	archive := txtar.Parse([]byte(text))
	var zones []site.Zone
	for _, f := range archive.Files {
		kind, name, _ := strings.Cut(f.Name, " ")
		if kind != "signed" && kind != "unsigned" || name == "" {
			return nil, fmt.Errorf("zones.txtar: unknown section: %s", f.Name)
		}
		if slices.ContainsFunc(zones, func(z site.Zone) bool { return z.Name == name }) {
			return nil, fmt.Errorf("zones.txtar: %s is there twice", name)
		}
		zones = append(zones, site.Zone{Name: name, Signed: kind == "signed", Text: string(f.Data)})
	}
	if len(zones) == 0 {
		return nil, errors.New("zones.txtar: no zones")
	}
	return zones, nil
}

// expand puts records in the place of the lines "!tlsa HOST USAGE SELECTOR MATCHING [OWNER]" of a zone, for the
// certificates that the MX hosts have now.
func expand(world *fakenet.Net, text string) (string, error) {
	var out strings.Builder
	for l := range strings.Lines(text) {
		if !strings.HasPrefix(l, "!") {
			out.WriteString(l)
			continue
		}
		var host, owner string
		var usage, selector, matching uint8
		n, _ := fmt.Sscanf(l, "!tlsa %s %d %d %d %s", &host, &usage, &selector, &matching, &owner)
		if n < 4 || n != len(strings.Fields(l))-1 {
			return "", fmt.Errorf("wants !tlsa HOST USAGE SELECTOR MATCHING [OWNER]: %s", l)
		}
		if owner == "" {
			owner = "_25._tcp." + host + "."
		}
		data, err := world.TLSA(host, usage, selector, matching)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "%s TLSA %s\n", owner, data)
	}
	return out.String(), nil
}

// serveZones begins to serve the zones of a scenario that has some.
func (p *play) serveZones(ctx context.Context) error {
	text, ok := p.scenario.files["zones.txtar"]
	if !ok {
		return nil
	}
	var err error
	if p.zones, err = parseZones(text); err != nil {
		return err
	}
	served := slices.Clone(p.zones)
	for i, z := range served {
		if served[i].Text, err = expand(p.site.World, z.Text); err != nil {
			return err
		}
	}
	return p.site.ServeZones(ctx, served)
}

// zone changes what Knot serves.
func zone(p *play, _ context.Context, rest string) {
	if p.site.Knot == nil {
		p.fatalf("there is no zones.txtar")
	}
	verb, rest, _ := strings.Cut(rest, " ")
	switch verb {
	case "edit":
		p.editZones(p.sides(rest))
	case "break", "mend":
		p.must(p.site.Knot.Break(p.words(rest, 1)[0], verb == "break"))
		// A resolver notices when it likes: it keeps keys that it has found good, and bad.
		p.must(p.site.Unbound.Flush())
	default:
		p.fatalf("no such thing can be done to a zone")
	}
}

func (p *play) editZones(from, to string) {
	p.t.Helper()
	found := false
	for i, z := range p.zones {
		if !strings.Contains(z.Text, from) {
			continue
		}
		found = true
		p.zones[i].Text = strings.ReplaceAll(z.Text, from, to)
		text, err := expand(p.site.World, p.zones[i].Text)
		p.must(err)
		p.must(p.site.Knot.Replace(z.Name, text))
	}
	if !found {
		p.fatalf("the zones have nothing of that kind")
	}
}

func unbound(p *play, ctx context.Context, rest string) {
	switch rest {
	case "validate", "novalidate":
		p.must(p.site.Validate(ctx, rest == "validate"))
	case "flush":
		p.must(p.site.Unbound.Flush())
	default:
		p.fatalf("no such thing can be done to Unbound")
	}
}

// question is the line in Unbound's log for a question.
func (p *play) question(rest string) *regexp.Regexp {
	p.t.Helper()
	words := p.words(rest, 2)
	return p.regexp(` info: \S+ ` + regexp.QuoteMeta(words[0]) + `\. ` + regexp.QuoteMeta(words[1]) + ` IN`)
}

func asked(p *play, ctx context.Context, rest string) {
	_, err := p.site.Unbound.Log.Wait(ctx, p.question(rest), p.questions)
	p.must(err)
}

func notAsked(p *play, _ context.Context, rest string) {
	if p.site.Unbound.Log.Find(p.question(rest), p.questions) != nil {
		p.fatalf("it has been asked")
	}
}
