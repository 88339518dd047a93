package e2e

import (
	"context"
	"os/exec"
	"strconv"
	"strings"

	"stsmap/e2e/site"
)

// step does what one verb says; scenarios/README.md says it for people.
type step func(p *play, ctx context.Context, rest string)

func steps() map[string]step {
	return map[string]step{
		"send":       send,
		"flush":      flush,
		"expect":     expect,
		"reason":     reason,
		"log":        inLog,
		"nolog":      notInLog,
		"daemonlog":  inDaemonLog,
		"daemonlogs": timesInDaemonLog,
		"query":      query,
		"querymap":   queryMap,
		"awaitquery": awaitQuery,
		"hold":       hold,
		"ask":        ask,
		"answer":     answer,
		"asked":      asked,
		"notasked":   notAsked,
		"stsmap":     command,
		"output":     output,
		"received":   received,
		"requests":   requests,
		"report":     report,
		"noreport":   noReport,
		"world":      newWorld,
		"edit":       edit,
		"zone":       zone,
		"unbound":    unbound,
		"daemon":     daemon,
		"postfix":    configure,
		"postconf":   postconf,
		"upgrade":    upgrade,
		"chroot":     chroot,
		"socket":     socket,
		"impostor":   impersonate,
		"texts":      texts,
		"stream":     startStream,
		"flow":       flow,
		"endstream":  endStream,
	}
}

func send(p *play, _ context.Context, rest string) {
	recipient, header, more := strings.Cut(rest, " ")
	var lines []string
	if more {
		lines = []string{header}
	}
	m, err := p.site.Postfix.Send(recipient, lines...)
	p.must(err)
	p.sent, p.tries, p.status = &m, 0, site.Status{}
}

func flush(p *play, _ context.Context, rest string) {
	p.words(rest, 0)
	p.must(p.site.Postfix.Flush())
}

func expect(p *play, ctx context.Context, rest string) {
	word := p.words(rest, 1)[0]
	if word != "sent" && word != "deferred" && word != "bounced" {
		p.fatalf("Postfix has no such status")
	}
	if p.sent == nil {
		p.fatalf("nothing was sent")
	}
	var err error
	p.status, err = p.site.Postfix.Status(ctx, *p.sent, p.tries)
	p.must(err)
	p.tries++
	p.outcomes += word[:1]
	if p.status.Word != word {
		p.fatalf("%s: %s", p.status.Word, p.status.Why)
	}
}

func reason(p *play, _ context.Context, rest string) {
	if !p.regexp(rest).MatchString(p.status.Why) {
		p.fatalf("reason: %s", p.status.Why)
	}
}

// seen is where mail.log begins to be of interest: at the last message.
func (p *play) seen() int64 {
	if p.sent == nil {
		return p.mark
	}
	return p.sent.Seen
}

func inLog(p *play, ctx context.Context, rest string) {
	_, err := p.site.Postfix.Log.Wait(ctx, p.regexp(rest), p.seen())
	p.must(err)
}

func notInLog(p *play, _ context.Context, rest string) {
	if p.tries == 0 {
		p.fatalf("too early: what is to be absent might yet come; expect first")
	}
	if p.site.Postfix.Log.Find(p.regexp(rest), p.seen()) != nil {
		p.fatalf("it is in the log")
	}
}

func inDaemonLog(p *play, ctx context.Context, rest string) {
	_, err := p.site.Daemon.Log.Wait(ctx, p.regexp(rest), 0)
	p.must(err)
}

func timesInDaemonLog(p *play, _ context.Context, rest string) {
	number, rest, _ := strings.Cut(rest, " ")
	want, err := strconv.Atoi(number)
	p.must(err)
	re, got := p.regexp(rest), 0
	for _, line := range p.site.Daemon.Log.Since(0) {
		if re.MatchString(line) {
			got++
		}
	}
	if got != want {
		p.fatalf("%d lines", got)
	}
}

func command(p *play, ctx context.Context, rest string) {
	args := append([]string{"--config", p.site.Daemon.Conf()}, strings.Fields(rest)...)
	out, err := exec.CommandContext(ctx, p.site.Daemon.Binary(), args...).CombinedOutput()
	if p.output = string(out); err != nil {
		p.fatalf("%v: %s", err, out)
	}
}

func output(p *play, _ context.Context, rest string) {
	if !p.regexp(rest).MatchString(p.output) {
		p.fatalf("output: %s", p.output)
	}
}

func received(p *play, _ context.Context, rest string) {
	host, want := p.count(rest, p.messages)
	if got := len(p.site.World.Messages(host)) - p.messages[host]; got != want {
		p.fatalf("it has received %d messages", got)
	}
}

func requests(p *play, _ context.Context, rest string) {
	host, want := p.count(rest, p.requests)
	if got := p.site.World.Requests(host) - p.requests[host]; got != want {
		p.fatalf("it has had %d requests", got)
	}
}

// canReport fails a step that would be silent about a Postfix without TLSRPT.
func (p *play) canReport() {
	p.t.Helper()
	if !p.now.reports() {
		p.fatalf("this Postfix reports to nobody; such a step is for [3.10+]")
	}
}

func report(p *play, ctx context.Context, rest string) {
	domain, pattern := p.sides(rest)
	re := p.regexp(pattern)
	p.canReport()
	r, err := p.collector.Take(ctx, domain)
	p.must(err)
	if !re.MatchString(r.String()) {
		p.fatalf("report: %s", r)
	}
}

func noReport(p *play, _ context.Context, rest string) {
	p.words(rest, 0)
	if p.tries == 0 {
		p.fatalf("too early: what is to be absent might yet come; expect first")
	}
	p.canReport()
	reports, err := p.collector.Rest()
	p.must(err)
	if len(reports) > 0 {
		p.fatalf("reports: %s", reports)
	}
}

// count reads a host and a number. The host has to be in the world that the play began with, or else a misspelt one
// would be found to have received nothing.
func (p *play) count(rest string, known map[string]int) (host string, n int) {
	words := p.words(rest, 2)
	n, err := strconv.Atoi(words[1])
	p.must(err)
	if _, ok := known[words[0]]; !ok {
		p.fatalf("no such host in world.txtar")
	}
	return words[0], n
}

func newWorld(p *play, _ context.Context, rest string) {
	text, ok := p.scenario.files[p.words(rest, 1)[0]]
	if !ok {
		p.fatalf("no such file")
	}
	p.world = text
	p.must(p.site.Update(text))
}

func edit(p *play, _ context.Context, rest string) {
	from, to := p.sides(rest)
	if !strings.Contains(p.world, from) {
		p.fatalf("the world has nothing of that kind")
	}
	p.world = strings.ReplaceAll(p.world, from, to)
	p.must(p.site.Update(p.world))
}

func daemon(p *play, ctx context.Context, rest string) {
	d := p.site.Daemon
	switch rest {
	case "stop":
		p.must(d.Stop(ctx))
	case "kill":
		p.must(d.Kill())
	case "start":
		p.must(d.Start(ctx))
	case "reload":
		p.must(d.Reload(ctx))
	case "alive":
		p.must(d.Alive(ctx))
	case "new":
		p.must(p.site.StartDaemon(ctx, p.scenario.files["daemon.toml"]))
	case "remove":
		p.must(d.Stop(ctx))
		p.must(d.Close())
	default:
		p.fatalf("no such thing can be done to a daemon")
	}
}

func configure(p *play, _ context.Context, rest string) {
	if !strings.Contains(rest, "=") {
		p.fatalf("not a setting")
	}
	p.must(p.site.Postfix.Configure(rest))
}

func postconf(p *play, _ context.Context, rest string) {
	switch rest {
	case "fails":
		p.must(p.site.Postfix.Mute())
	case "works":
		p.must(p.site.Postfix.Unmute())
	default:
		p.fatalf("no such thing can be done to postconf")
	}
}

// upgrade goes on with the Postfix of another root. Conditions stay with the release that the play began with.
func upgrade(p *play, ctx context.Context, rest string) {
	if p.home == nil {
		p.fatalf("from a root nobody comes back; such a step is for the Postfix of this machine")
	}
	dir := ""
	if rest != "machine" {
		var err error
		dir, err = p.home(ctx, rest)
		p.must(err)
	}
	p.must(p.site.Postfix.Move(dir))
	p.moved = dir != ""
	version, err := p.site.Postfix.Release()
	p.must(err)
	p.now, err = parseRelease(version)
	p.must(err)
}

func chroot(p *play, _ context.Context, rest string) {
	p.must(p.site.Postfix.Chroot(p.words(rest, 1)[0]))
}
