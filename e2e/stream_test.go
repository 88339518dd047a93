package e2e

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"stsmap/e2e/site"
)

// backlog is how many messages of a stream may be under way at once: more than the 20 that Postfix delivers to one
// destination at a time, so that it never runs dry.
const backlog = 25

// stream hands in messages to one recipient, one after the other, until quit is closed.
type stream struct {
	postfix *site.Postfix
	from    int64 // mail.log from here on is of interest
	quit    chan struct{}
	done    sync.WaitGroup

	mu     sync.Mutex // guards what follows
	most   int        // how many may be under way at once
	handed int
	err    error
}

func startStream(p *play, _ context.Context, rest string) {
	recipient := p.words(rest, 1)[0]
	if p.stream != nil {
		p.fatalf("there is one already")
	}
	s := &stream{postfix: p.site.Postfix, from: p.site.Postfix.Log.Mark(), quit: make(chan struct{}), most: backlog}
	s.done.Go(func() { s.run(recipient) })
	p.stream = s
}

// flow waits until so many further messages have been delivered; with "in", until so many have been handed in to
// Postfix, which goes on while nothing can be delivered.
func flow(p *play, ctx context.Context, rest string) {
	words := p.words(rest, 2)
	n, err := strconv.Atoi(words[0])
	p.must(err)
	if p.stream == nil {
		p.fatalf("there is no stream")
	}
	count := func() int { handed, _ := p.stream.state(); return handed }
	switch words[1] {
	case "delivered":
		count = func() int { return p.stream.count("sent") }
	case "handed-in":
		p.stream.allow(n)
	default:
		p.fatalf("messages are delivered or handed-in")
	}
	for target := count() + n; count() < target; {
		_, err := p.stream.state()
		p.must(err)
		if ctx.Err() != nil {
			p.fatalf("%d are missing", target-count())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// endStream waits for the outcome of every message, which must be that it was sent.
func endStream(p *play, ctx context.Context, rest string) {
	p.words(rest, 0)
	s := p.stream
	if s == nil {
		p.fatalf("there is no stream")
	}
	p.stream = nil
	s.stop()
	handed, err := s.state()
	p.must(err)
	for s.count("sent") < handed {
		if n := s.count("deferred") + s.count("bounced"); n > 0 {
			p.fatalf("%d of %d messages were not delivered at once", n, handed)
		}
		if ctx.Err() != nil {
			p.fatalf("%d of %d messages were delivered", s.count("sent"), handed)
		}
		time.Sleep(5 * time.Millisecond)
	}
	p.t.Logf("%d messages delivered, none deferred", handed)
}

// run hands in messages until quit is closed.
func (s *stream) run(recipient string) {
	for {
		select {
		case <-s.quit:
			return
		default:
		}
		if !s.hasRoom() {
			time.Sleep(time.Millisecond)
			continue
		}
		_, err := s.postfix.Send(recipient)
		s.mu.Lock()
		s.handed++
		s.err = err
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// allow has n more messages under way: while nothing is delivered, no other could be handed in.
func (s *stream) allow(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.most += n
}

// hasRoom reports whether another message may be under way.
func (s *stream) hasRoom() bool {
	over := s.count("")
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handed-over < s.most
}

// stop ends run. It may be called once.
func (s *stream) stop() {
	close(s.quit)
	s.done.Wait()
}

func (s *stream) state() (handed int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handed, s.err
}

// count counts the outcomes with a status; with none given, all of them.
func (s *stream) count(status string) int {
	mark := ", status="
	if status != "" {
		mark += status + " ("
	}
	n := 0
	for _, line := range s.postfix.Log.Since(s.from) {
		if strings.Contains(line, mark) {
			n++
		}
	}
	return n
}
