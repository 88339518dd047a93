package e2e

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"stsmap/e2e/site"
)

// play is a scenario that is being played.
type play struct {
	t        *testing.T
	site     *site.Site
	scenario scenario
	line     line

	collector *site.Collector

	world     string         // the description of the small Internet as it is now
	zones     []site.Zone    // zones.txtar as it is now, with its lines "!tlsa"
	mark      int64          // mail.log from here on belongs to the play
	questions int64          // the log of Unbound from here on belongs to the play
	messages  map[string]int // by MX host: how many it had taken before
	requests  map[string]int // by policy host: how many it had answered before
	sent      *site.Message  // the last one handed in
	tries     int            // how many attempts to deliver it have been looked at
	status    site.Status    // the outcome of the last of them
	stream    *stream        // nil if there is none
	asking    *asking        // nil if there is none
	impostor  *impostor      // nil if there is none
	output    string         // of the last command

	release  release                                       // of the Postfix that the play began with
	now      release                                       // of the one that runs now
	home     func(context.Context, string) (string, error) // the directory of a suite's root; nil if Postfix is in one itself
	moved    bool                                          // Postfix is of a root now
	played   int                                           // how many steps were
	outcomes string                                        // of the messages, by their first letters
	failed   bool                                          // once it has ended
}

// begin makes the world, sets up Postfix and starts the daemon, in that order: the daemon asks Postfix and Unbound what
// they can do when it starts.
func (p *play) begin() {
	p.t.Helper()
	p.messages, p.requests = make(map[string]int), make(map[string]int)
	if _, err := p.collector.Rest(); err != nil { // of a scenario before that failed
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), hang)
	defer cancel()
	if err := p.site.Update(p.world); err != nil {
		p.t.Fatal(err)
	}
	// The counters of the small Internet outlive a world.
	for host := range hosts(p.world) {
		p.messages[host] = len(p.site.World.Messages(host))
		p.requests[host] = p.site.World.Requests(host)
	}
	if err := p.serveZones(ctx); err != nil {
		p.t.Fatal(err)
	}
	if settings := p.settings(); len(settings) > 0 {
		if err := p.site.Postfix.Configure(settings...); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := p.site.StartDaemon(ctx, p.scenario.files["daemon.toml"]); err != nil {
		p.t.Fatal(err)
	}
}

// settings returns the lines of main.cf that are for this release, but for comments. A setting does not go on in a
// further line.
func (p *play) settings() []string {
	var lines []string
	for l := range strings.Lines(p.scenario.files["main.cf"]) {
		if l = strings.TrimSpace(l); l == "" || strings.HasPrefix(l, "#") {
			continue
		}
		when, l, err := condition(l)
		if err != nil {
			p.t.Fatalf("main.cf: %v", err)
		}
		if when.covers(p.release) {
			lines = append(lines, l)
		}
	}
	return lines
}

// end stops the daemon, which has to go in good order, and shows what happened if it is not what should have happened.
// There must be no report left that no step has looked at.
func (p *play) end() {
	if p.stream != nil {
		p.stream.stop()
	}
	if p.asking != nil {
		p.asking.stop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	if p.impostor != nil {
		if err := p.impostor.stop(ctx); err != nil {
			p.t.Error(err)
		}
	}
	defer func() {
		if err := p.site.ServeWorld(ctx); err != nil {
			p.t.Error(err)
		}
		if p.moved {
			if err := p.site.Postfix.Move(""); err != nil {
				p.t.Error(err)
			}
		}
		if err := p.site.Postfix.Unmute(); err != nil {
			p.t.Error(err)
		}
	}()
	if d := p.site.Daemon; d != nil {
		if err := d.Stop(ctx); err != nil {
			p.t.Error(err)
		}
		if d.Log.Find(regexp.MustCompile("panic"), 0) != nil {
			p.t.Error("stsmap has had a panic")
		}
	}
	if !p.t.Failed() {
		p.prove()
		reports, err := p.collector.Rest()
		if err == nil && len(reports) == 0 && !p.t.Failed() {
			return
		}
		p.t.Errorf("reports that no step has taken: %s: %v", reports, err)
	}
	p.t.Logf("the purpose:\n%s", p.scenario.files["README"])
	mail := p.site.Postfix.Log.Since(p.mark)
	if cut := len(mail) - 200; cut > 0 {
		mail = append([]string{fmt.Sprintf("(%d lines, and then:)", cut)}, mail[cut:]...)
	}
	p.t.Logf("mail.log:\n%s", strings.Join(mail, "\n"))
	if p.site.Daemon != nil {
		p.t.Logf("stsmap:\n%s", strings.Join(p.site.Daemon.Log.Since(0), "\n"))
	}
	if p.site.Knot != nil {
		p.t.Logf("unbound:\n%s", strings.Join(p.site.Unbound.Log.Since(p.questions), "\n"))
	}
}

// hosts finds the names that a description gives to hosts: the first words of the sections https and smtp.
func hosts(world string) map[string]bool {
	names, section := make(map[string]bool), ""
	for text := range strings.Lines(world) {
		if name, ok := strings.CutPrefix(text, "-- "); ok {
			section, _, _ = strings.Cut(name, " ")
			continue
		}
		if fields := strings.Fields(text); len(fields) > 0 && (section == "https" || section == "smtp") {
			names[fields[0]] = true
		}
	}
	return names
}

// step plays one line. A verb that does not exist fails the test.
func (p *play) step(l line) {
	p.t.Helper()
	p.line = l
	if !l.when.covers(p.release) {
		return
	}
	p.played++
	ctx, cancel := context.WithTimeout(p.t.Context(), hang)
	defer cancel()
	do := steps()[l.verb]
	if do == nil {
		p.fatalf("no such step")
	}
	do(p, ctx, l.rest)
}

// fatalf ends the play, and says where.
func (p *play) fatalf(format string, args ...any) {
	p.t.Helper()
	args = append([]any{p.line.number, p.line.verb, p.line.rest}, args...)
	p.t.Fatalf("play:%d: %s %s\n\t"+format, args...)
}

// must fails the play on an error.
func (p *play) must(err error) {
	p.t.Helper()
	if err != nil {
		p.fatalf("%v", err)
	}
}

// words cuts the arguments of a step, which are so many.
func (p *play) words(rest string, n int) []string {
	p.t.Helper()
	words := strings.Fields(rest)
	if len(words) != n {
		p.fatalf("%d arguments, not %d", len(words), n)
	}
	return words
}

// sides cuts the arguments of a step at " => ".
func (p *play) sides(rest string) (left, right string) {
	p.t.Helper()
	left, right, ok := strings.Cut(rest, " => ")
	if !ok {
		p.fatalf("no =>")
	}
	return strings.TrimSpace(left), strings.TrimSpace(right)
}

func (p *play) regexp(rest string) *regexp.Regexp {
	p.t.Helper()
	if rest == "" {
		p.fatalf("empty pattern")
	}
	re, err := regexp.Compile(rest)
	p.must(err)
	return re
}
