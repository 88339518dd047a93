package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"stsmap/e2e/site"
	"stsmap/socketmap"
)

// A textCase is a line of postfix/testdata/texts.txt: a text of an override, and what becomes of it.
type textCase struct {
	domain  string // that the text is for here
	text    string
	ok      bool    // package postfix lets it pass
	from    release // the first release of Postfix that understands it; nil if all do
	warning string  // what Postfix writes of one that it does not understand; empty if it may well understand it
}

// theirs is the file that texts name for tafile=, and theirsHere the one that is there, below the queue directory, where
// smtp(8) runs, with and without a jail.
const theirs, theirsHere = "/etc/postfix/theirs.pem", "etc/theirs.pem"

// texts has the real smtp(8) read texts of overrides, in one message each. "ok": all that stsmap lets pass, as overrides.
// Postfix must understand each. "refused": those that stsmap refuses since Postfix does not understand them, told by
// something else in the place of the daemon. Postfix must not, and say why.
func texts(p *play, ctx context.Context, rest string) {
	cases := textCases(p)
	p.must(os.WriteFile(filepath.Join(p.site.Postfix.Jail, theirsHere), p.site.World.CAPEM(), 0o644))
	switch rest {
	case "ok":
		p.textsAsOverrides(ctx, cases)
	case "refused":
		p.textsInstead(ctx, cases)
	default:
		p.fatalf("neither ok nor refused")
	}
	number := 0
	for _, c := range cases {
		if c.ok != (rest == "ok") || !c.ok && c.warning == "" {
			continue
		}
		number++
		m, err := p.site.Postfix.Send("user@" + c.domain)
		p.must(err)
		status, err := p.site.Postfix.Status(ctx, m, 0)
		p.must(err)
		p.compareText(c, m, status)
	}
	if number < 20 {
		p.fatalf("only %d texts", number)
	}
}

// compareText compares what Postfix does with a message with what the case expects for the text.
func (p *play) compareText(c textCase, m site.Message, status site.Status) {
	p.t.Helper()
	understood := !strings.Contains(status.Why, "client TLS configuration problem")
	if wanted := c.ok && !p.before(c.from); understood != wanted {
		p.fatalf("%q: understood: %v, %s: %s", c.text, understood, status.Word, status.Why)
	}
	warning := regexp.MustCompile(`warning: .*` + regexp.QuoteMeta(c.warning))
	if c.warning != "" && p.site.Postfix.Log.Find(warning, m.Seen) == nil {
		p.fatalf("%q: %s is not in the log", c.text, c.warning)
	}
	// These are found only when the connection is there, and TLS is given up then.
	if late := p.site.Postfix.Log.Find(regexp.MustCompile(`invalid .*(cipher|protocol)|fingerprints unusable`), m.Seen); c.ok && late != nil {
		p.fatalf("%q: %s", c.text, late)
	}
}

// before reports whether the Postfix that runs is older than r, which may be nil.
func (p *play) before(r release) bool { return r != nil && !(span{from: r}).covers(p.now) }

// textCases reads the table.
func textCases(p *play) []textCase {
	data, err := os.ReadFile("../postfix/testdata/texts.txt")
	p.must(err)
	var all []textCase
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		quoted, verdict, _ := strings.Cut(line, " => ")
		c := textCase{domain: fmt.Sprintf("t%d.texts.example", len(all)+1)}
		c.text, err = strconv.Unquote(quoted)
		p.must(err)
		c.text = strings.ReplaceAll(c.text, theirs, theirsHere)
		verdict, c.warning, _ = strings.Cut(verdict, "; Postfix: ")
		first, from, _ := strings.Cut(verdict, " from ")
		if c.ok = first == "ok"; c.ok && from != "" {
			c.from, err = parseRelease(from)
			p.must(err)
		}
		all = append(all, c)
	}
	return all
}

// textsAsOverrides has the daemon answer each text that it lets pass.
func (p *play) textsAsOverrides(ctx context.Context, cases []textCase) {
	var file bytes.Buffer
	last := textCase{}
	for _, c := range cases {
		if c.ok {
			fmt.Fprintf(&file, "[[override]]\ndomain = %q\naction = \"reply\"\ntext = %q\n", c.domain, c.text)
			last = c
		}
	}
	p.must(os.WriteFile(filepath.Join(filepath.Dir(p.site.Daemon.Conf()), "overrides.toml"), file.Bytes(), 0o644))
	awaitQuery(p, ctx, last.domain+" => OK "+last.text)
}

// textsInstead has something else answer all of them.
func (p *play) textsInstead(ctx context.Context, cases []textCase) {
	replies := make(map[string]socketmap.Reply)
	for _, c := range cases {
		replies[c.domain] = socketmap.Reply{Status: socketmap.OK, Text: c.text}
	}
	p.usurp(ctx).serve(func(_ context.Context, r socketmap.Request) socketmap.Reply {
		if reply, ok := replies[string(r.Key)]; ok {
			return reply
		}
		return socketmap.Reply{Status: socketmap.NotFound}
	})
}
