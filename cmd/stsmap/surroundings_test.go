package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/admin"
	"stsmap/dane"
	"stsmap/policy"
)

// scene is a bubble with surroundings in it. Who plays holds the mutex but while
// time passes.
type scene struct {
	*surroundings
	mu       sync.Mutex
	heard    []string // what the engine was told, each time it was another
	releases []string // which release it was said to be
	resolver reply
	postfix  reply
	which    reply // which release
}

// A reply is how one of the surroundings answers, and how often it was asked.
type reply struct {
	scene *scene
	found finding
	err   error
	asked int
}

func (r *reply) ask(context.Context) (finding, error) {
	r.scene.mu.Lock()
	r.asked++
	r.scene.mu.Unlock()
	time.Sleep(time.Second)
	r.scene.mu.Lock()
	defer r.scene.mu.Unlock()
	return r.found, r.err
}

// inScene runs play in a bubble.
func inScene(t *testing.T, play func(*scene)) {
	synctest.Test(t, func(t *testing.T) {
		s := new(scene)
		s.resolver.scene, s.postfix.scene, s.which.scene = s, s, s
		s.which.found.release = "3.7.11"
		s.surroundings = newSurroundings(func(why error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if word := fmt.Sprint(why); len(s.heard) == 0 || s.heard[len(s.heard)-1] != word {
				s.heard = append(s.heard, word)
			}
		}, func(f finding, err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.releases = append(s.releases, fmt.Sprint(f.release, err))
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan bool)
		go func() {
			s.run(ctx)
			close(ended)
		}()
		s.mu.Lock()
		play(s)
		s.mu.Unlock()
		cancel()
		<-ended
	})
}

// inquiries are those of an ordinary configuration, but for who answers.
func (s *scene) inquiries(key string) inquiries {
	return inquiries{
		mode:     "precede",
		resolver: &inquiry{about: "about the resolver", key: key, ask: s.resolver.ask, limit: time.Minute, every: resolverEvery, again: resolverAgain},
		postfix:  &inquiry{about: "about Postfix", ask: s.postfix.ask, limit: time.Minute, every: postfixEvery, again: postfixAgain},
		release:  &inquiry{ask: s.which.ask, limit: time.Minute, every: postfixEvery, again: postfixAgain},
	}
}

// pass lets time pass, and what is then due happen.
func (s *scene) pass(d time.Duration) {
	s.mu.Unlock()
	defer s.mu.Lock()
	time.Sleep(d)
	synctest.Wait()
}

func (s *scene) expect(t *testing.T, when string, want ...string) {
	t.Helper()
	if !slices.Equal(s.heard, want) {
		t.Errorf("%s: the engine was told %q, want %q", when, s.heard, want)
	}
	s.heard = nil
}

// TestSurroundingsHours: each is asked at its times.
func TestSurroundingsHours(t *testing.T) {
	inScene(t, func(s *scene) {
		s.ask(s.inquiries(""))
		s.pass(0)
		s.expect(t, "before there is an answer")
		s.pass(2 * time.Second)
		s.expect(t, "at the start", "<nil>")
		s.pass(3*time.Hour + time.Minute) // between two questions
		if s.resolver.asked < 3 || s.resolver.asked > 4 || s.postfix.asked < 17 || s.postfix.asked > 19 {
			t.Errorf("in three hours, the resolver was asked %d times and Postfix %d times", s.resolver.asked, s.postfix.asked)
		}
		s.postfix.found.against = errors.New("p")
		s.resolver.found.against = errors.New("r")
		s.pass(11 * time.Minute)
		s.expect(t, "Postfix was changed", "<nil>", "p")
		s.pass(time.Hour)
		s.expect(t, "so was the resolver", "p", "p; and r")
		s.postfix.found.against, s.resolver.found.against = nil, nil
		s.pass(2 * time.Hour)
		s.expect(t, "and back", "p; and r", "r", "<nil>")
	})
}

// TestSurroundingsUnknown: who answers nothing is asked again soon; that takes
// away nothing that is known.
func TestSurroundingsUnknown(t *testing.T) {
	inScene(t, func(s *scene) {
		s.resolver.err = errors.New("timeout")
		s.ask(s.inquiries(""))
		s.pass(2 * time.Second)
		s.expect(t, "at the start", "not known about the resolver: timeout")
		s.pass(time.Minute)
		if s.resolver.asked < 5 {
			t.Errorf("the resolver was asked %d times in a minute", s.resolver.asked)
		}
		s.resolver.err = nil
		s.pass(resolverAgain + 2*time.Second)
		s.expect(t, "it answers", "not known about the resolver: timeout", "<nil>")
		s.resolver.err, s.postfix.err = errors.New("timeout"), errors.New("gone")
		s.pass(2 * time.Hour)
		s.expect(t, "it does not", "<nil>")
		var status admin.Status
		s.describe(&status)
		if v := status.Resolver.Validates; v.Verdict != "yes" || v.Error != "timeout" || time.Since(v.At) < time.Hour {
			t.Errorf("the status says %+v", v)
		}
		if status.DANE.State != "on" || status.Postfix.DNSSEC.Error != "gone" {
			t.Errorf("the status says %+v", status)
		}
	})
}

// TestSurroundingsReload: other questions are asked at once, and answers to the
// old ones count no more; answers to the same question stay.
func TestSurroundingsReload(t *testing.T) {
	inScene(t, func(s *scene) {
		s.ask(s.inquiries("a"))
		s.pass(0) // asking
		off := inquiries{mode: "off"}
		s.ask(off)
		s.pass(2 * time.Second)
		s.expect(t, "off while an answer is awaited", `dane.mode = "off"`)
		asked := s.resolver.asked + s.postfix.asked
		s.pass(24 * time.Hour)
		if s.resolver.asked+s.postfix.asked != asked {
			t.Error("somebody was asked although dane.mode is off")
		}
		s.heard = nil
		s.ask(s.inquiries("a"))
		s.pass(2 * time.Second)
		s.expect(t, "on again", "<nil>")
		s.resolver.err = errors.New("timeout")
		s.ask(s.inquiries("a"))
		s.pass(2 * time.Second)
		s.expect(t, "the same question", "<nil>")
		s.ask(s.inquiries("b"))
		s.pass(2 * time.Second)
		s.expect(t, "another one", "not known about the resolver: timeout")
	})
}

// TestSurroundingsRelease: which release asks is found out at the start, with
// every reload and every ten minutes. A failure takes it away, soon another
// question gives it back, and each is told once.
func TestSurroundingsRelease(t *testing.T) {
	inScene(t, func(s *scene) {
		expect := func(when string, want ...string) {
			t.Helper()
			if !slices.Equal(s.releases, want) {
				t.Errorf("%s: said to be %q, want %q", when, s.releases, want)
			}
			s.releases = nil
		}
		s.ask(s.inquiries(""))
		s.mu.Unlock()
		s.await(context.Background(), time.Hour)
		s.mu.Lock()
		expect("at the start", "3.7.11<nil>")
		s.pass(25 * time.Minute)
		if s.which.asked != 3 {
			t.Errorf("asked %d times in 25 minutes", s.which.asked)
		}
		s.which.found.release = "3.10.13"
		s.pass(10 * time.Minute)
		expect("upgraded", "3.10.13<nil>")
		s.which.err = errors.New("fatal")
		s.ask(s.inquiries(""))
		s.pass(2 * time.Second)
		expect("nobody knows", "fatal")
		var status admin.Status
		if s.describe(&status); status.Postfix.Release != "" || status.Postfix.Error != "fatal" {
			t.Errorf("the status says %+v", status.Postfix)
		}
		s.pass(5 * time.Minute)
		expect("nobody knows yet")
		s.which.err = nil
		s.pass(postfixAgain + 2*time.Second)
		expect("known again", "3.10.13<nil>")
		// It matters without DANE, too.
		off := inquiries{mode: "off", release: s.inquiries("").release}
		s.which.found.release = "3.11.7"
		s.ask(off)
		s.pass(2 * time.Second)
		expect("DANE is off", "3.11.7<nil>")
	})
	inScene(t, func(s *scene) {
		began := time.Now()
		s.mu.Unlock()
		s.await(context.Background(), time.Second) // for one who does not say anything
		s.mu.Lock()
		if took := time.Since(began); took != time.Second {
			t.Errorf("waited %s", took)
		}
	})
}

// TestSurroundingsPoke: a domain that was secure and is not has the resolver
// asked, but not all the time.
func TestSurroundingsPoke(t *testing.T) {
	secure, insecure := &dane.Result{MXSecure: true}, new(dane.Result)
	for _, c := range []struct {
		ev    policy.Event
		poked bool
	}{
		{policy.Event{Kind: policy.DANEChecked, DANE: insecure, DANEBefore: secure}, true},
		{policy.Event{Kind: policy.DANEChecked, DANE: insecure, DANEBefore: insecure}, false},
		{policy.Event{Kind: policy.DANEChecked, DANE: insecure}, false},
		{policy.Event{Kind: policy.DANEChecked, DANE: secure, DANEBefore: insecure}, false},
		{policy.Event{Kind: policy.DANEFailed, DANEBefore: secure}, false},
	} {
		inScene(t, func(s *scene) {
			s.ask(s.inquiries(""))
			s.pass(10 * time.Minute)
			before := s.resolver.asked
			for range 100 {
				s.observe(c.ev)
				s.pass(time.Second)
			}
			got := s.resolver.asked - before
			if !c.poked && got != 0 || c.poked && (got < 1 || got > 3) {
				t.Errorf("%+v: asked %d times in 100 seconds", c.ev, got)
			}
		})
	}
}

// TestShowStatus: nothing is wider than a screen, and what comes from elsewhere
// does not speak to it.
func TestShowStatus(t *testing.T) {
	now := time.Now()
	s := admin.Status{Version: "1", Since: now.Add(-50 * time.Hour), Store: admin.StoreStatus{Name: "memory:"}}
	s.DANE = admin.DANEStatus{Mode: "all", State: "off", Since: now.Add(-90 * time.Minute), Reasons: []string{strings.Repeat("reason \x1b[31m", 20)}}
	s.Resolver.Validates = admin.Finding{Verdict: "yes", At: now.Add(-5 * time.Second), Error: "timeout"}
	var out strings.Builder
	if err := showStatus(&out, s, now); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"(2d2h ago)\n", "(1h30m ago); dane.mode = \"all\"\n", "(5s ago)\n", "since then not known: timeout\n", "looks up DNSSEC: not asked\n"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("%q is not in\n%s", part, out.String())
		}
	}
	for line := range strings.Lines(out.String()) {
		if len(line) > statusWidth+1 || strings.Contains(line, "\x1b") {
			t.Errorf("%q", line)
		}
	}
}

// TestUncontrolled: the exit code tells who may not from nobody there, and only of
// nobody it is asked whether the daemon runs. A test that runs as root could not be
// refused.
func TestUncontrolled(t *testing.T) {
	for err, code := range map[error]int{fs.ErrPermission: exitPermission, fs.ErrNotExist: exitUnreachable, admin.ErrGarbled: exitFailed} {
		f, ok := errors.AsType[*failure](uncontrolled("/s", fmt.Errorf("dial: %w", err)))
		if !ok || f.code != code || f.hint == "" {
			t.Errorf("%v: %+v, want code %d and a hint", err, f, code)
		} else if asked := strings.Contains(f.hint, "is it running?"); asked != (code == exitUnreachable) {
			t.Errorf("%v: %s", err, f.hint)
		}
	}
}
