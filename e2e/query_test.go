package e2e

import (
	"context"
	"strings"
	"sync"
	"time"

	"stsmap/e2e/site"
	"stsmap/socketmap"
)

func query(p *play, ctx context.Context, rest string) {
	key, want := p.sides(rest)
	got, err := lookup(ctx, key)
	p.must(err)
	if !fits(got, want) {
		p.fatalf("reply: %s", got)
	}
}

// queryMap is query under another name than "postfix".
func queryMap(p *play, ctx context.Context, rest string) {
	name, rest, _ := strings.Cut(rest, " ")
	key, want := p.sides(rest)
	got, err := lookupIn(ctx, name, key)
	p.must(err)
	if !fits(got, want) {
		p.fatalf("reply: %s", got)
	}
}

// awaitQuery asks until the reply is as wanted. It may ask more often than Postfix would.
func awaitQuery(p *play, ctx context.Context, rest string) {
	key, want := p.sides(rest)
	for last := ""; ; time.Sleep(20 * time.Millisecond) {
		got, err := lookup(ctx, key)
		if err != nil {
			p.fatalf("%v; reply before: %s", err, last)
		}
		if fits(got, want) {
			return
		}
		last = got
	}
}

// hold asks again and again, and wants the same reply, until the daemon has written a line.
func hold(p *play, ctx context.Context, rest string) {
	key, rest := p.sides(rest)
	want, pattern, ok := strings.Cut(rest, " until ")
	if !ok {
		p.fatalf("no until")
	}
	re, from := p.regexp(pattern), p.site.Daemon.Log.Mark()
	for p.site.Daemon.Log.Find(re, from) == nil {
		got, err := lookup(ctx, key)
		if ctx.Err() != nil {
			p.fatalf("the reply was always that, and there is no such line")
		}
		p.must(err)
		if !fits(got, want) {
			p.fatalf("reply: %s", got)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// asking is a question that is put to the daemon while the play goes on.
type asking struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	reply  string // once done
	err    error  // likewise
}

func ask(p *play, _ context.Context, rest string) {
	key := p.words(rest, 1)[0]
	if p.asking != nil {
		p.fatalf("a question is open already")
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), hang) // beyond this step
	a := &asking{cancel: cancel}
	a.done.Go(func() { a.reply, a.err = lookup(ctx, key) })
	p.asking = a
}

// answer waits for the reply to the question of ask.
func answer(p *play, _ context.Context, rest string) {
	a := p.asking
	if a == nil {
		p.fatalf("nothing was asked")
	}
	p.asking = nil
	a.done.Wait()
	a.cancel()
	p.must(a.err)
	if !fits(a.reply, rest) {
		p.fatalf("reply: %s", a.reply)
	}
}

// stop gives up.
func (a *asking) stop() {
	a.cancel()
	a.done.Wait()
}

// lookup asks the daemon as Postfix would.
func lookup(ctx context.Context, key string) (string, error) { return lookupIn(ctx, "postfix", key) }

func lookupIn(ctx context.Context, name, key string) (string, error) {
	c, err := socketmap.Dial(ctx, site.LookupAddr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	reply, err := c.Do(ctx, name, key)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(reply.Status.String() + " " + reply.Text), nil
}

// fits compares a reply with the wanted one. If that ends in " ...", the reply may go on: stsmap sends more attributes
// to later releases of Postfix.
func fits(got, want string) bool {
	begin, open := strings.CutSuffix(want, " ...")
	return got == begin || open && strings.HasPrefix(got, begin+" ")
}
