package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"stsmap/admin"
	"stsmap/config"
	"stsmap/policy"
	"stsmap/postfix/postconf"
	"stsmap/resolver"
)

// The surroundings of the daemon decide whether DANE can be used, which needs a
// resolver that validates and a Postfix that looks up DNSSEC, and in which words
// to answer, which is a matter of the release of Postfix. They are asked again
// and again, because they are changed by people who do not think of this daemon.
const (
	resolverEvery = time.Hour
	postfixEvery  = 10 * time.Minute
	// resolverAgain and postfixAgain are how soon to ask again after nothing
	// was learned.
	resolverAgain = 10 * time.Second
	postfixAgain  = time.Minute
	// postfixLimit is long for postconf: it waits until a main.cf that was
	// just written is two seconds old.
	postfixLimit = 10 * time.Second
	// pokeEvery is how often the resolver is asked at most because an answer
	// of it was odd.
	pokeEvery = time.Minute
)

// surroundings watches them. One goroutine, that of run, owns all that is not
// guarded by the mutex.
type surroundings struct {
	allow   func(why error)      // policy.Engine.AllowDANE
	release func(finding, error) // told which release asks, or why that is not known
	heard   chan struct{}        // closed when release was told for the first time
	poked   chan struct{}        // holds one
	changed chan inquiries       // holds one; the latest counts
	now     inquiries            // what is asked
	results chan *inquiry        // those whose answer is there
	state   admin.DANEStatus     // what was told to allow
	told    string               // what was told to release, for comparing

	mu   sync.Mutex
	view admin.Status // the sections about the surroundings
}

// inquiries are what is asked under one configuration.
type inquiries struct {
	mode     string
	servers  []string
	resolver *inquiry // nil if dane.mode is "off"
	postfix  *inquiry // about DNSSEC; likewise
	release  *inquiry
}

// An inquiry is one question, which is asked again and again.
type inquiry struct {
	about        string // for people, if nothing is known
	key          string // what the answer depends on in the configuration
	ask          func(context.Context) (finding, error)
	limit        time.Duration // of one answer
	every, again time.Duration // after something was learned, and after nothing was

	next   time.Time // when to ask
	asked  time.Time // when it was asked last
	asking bool
	found  *finding // the last answer; nil if there never was one
	at     time.Time
	err    error // why there was none the last time

	// What came of the one under way, handed over by results.
	freshly finding
	failure error
}

// A finding is an answer.
type finding struct {
	against error  // why DANE cannot be used; nil if nothing stands against it
	release string // of Postfix
	given   bool   // it was not found out, but said in the configuration
}

// A reason is why DANE cannot be used, for people.
type reason string

// Error implements error.
func (r reason) Error() string { return string(r) }

func newSurroundings(allow func(error), release func(finding, error)) *surroundings {
	return &surroundings{
		allow: allow, release: release, heard: make(chan struct{}), poked: make(chan struct{}, 1), changed: make(chan inquiries, 1), results: make(chan *inquiry),
		view: admin.Status{DANE: admin.DANEStatus{State: "unknown"}},
	}
}

// ask replaces what is asked, and has it asked at once. It does not wait. It
// may not be called concurrently.
func (s *surroundings) ask(q inquiries) {
	select {
	case <-s.changed:
	default:
	}
	s.changed <- q
}

// poke has the resolver asked again soon. It does not wait.
func (s *surroundings) poke() {
	select {
	case s.poked <- struct{}{}:
	default:
	}
}

// observe looks for a resolver that may have stopped to validate: what was
// secure no longer is. That can be the doing of a domain as well.
func (s *surroundings) observe(ev policy.Event) {
	if ev.Kind == policy.DANEChecked && ev.DANEBefore != nil && ev.DANEBefore.MXSecure && !ev.DANE.MXSecure {
		s.poke()
	}
}

// inquiriesOf makes the questions of a configuration.
func inquiriesOf(cfg *config.Config, r *resolver.Resolver) inquiries {
	q := inquiries{mode: cfg.DANE.Mode, servers: cfg.DNS.Servers}
	q.release = &inquiry{
		key: cfg.Postfix.Release + " " + cfg.Postfix.ConfigDirectory,
		ask: askRelease(cfg.Postfix.Release, cfg.Postfix.ConfigDirectory), limit: postfixLimit, every: postfixEvery, again: postfixAgain,
	}
	if len(q.servers) == 0 {
		q.servers = []string{"/etc/resolv.conf"}
	}
	if q.mode == "off" {
		return q
	}
	q.resolver = &inquiry{
		about: "whether the resolver validates", key: fmt.Sprint(cfg.DNS.Servers, cfg.DNS.TrustAD),
		ask: askResolver(r), limit: cfg.DNS.Timeout, every: resolverEvery, again: resolverAgain,
	}
	q.postfix = &inquiry{
		about: "whether Postfix looks up DNSSEC", key: cfg.Postfix.DNSSEC + " " + cfg.Postfix.ConfigDirectory,
		ask: askPostfix(cfg.Postfix.DNSSEC, cfg.Postfix.ConfigDirectory), limit: postfixLimit, every: postfixEvery, again: postfixAgain,
	}
	return q
}

func askResolver(r *resolver.Resolver) func(context.Context) (finding, error) {
	return func(ctx context.Context) (finding, error) {
		err := r.Validating(ctx)
		if errors.Is(err, resolver.ErrNotValidating) {
			return finding{against: err}, nil
		}
		return finding{}, err
	}
}

func askPostfix(dnssec, directory string) func(context.Context) (finding, error) {
	return func(ctx context.Context) (finding, error) {
		switch dnssec {
		case "yes":
			return finding{given: true}, nil
		case "no":
			return finding{given: true, against: reason(`Postfix does not look up DNSSEC: postfix.dnssec = "no"`)}, nil
		}
		d, err := postconf.Detect(ctx, directory)
		if err != nil {
			return finding{}, fmt.Errorf("%w; set postfix.dnssec", err)
		}
		var f finding
		if !d.DNSSEC {
			f.against = reason("Postfix does not look up DNSSEC: " + d.Why + "; see stsmap-postfix(7)")
		}
		return f, nil
	}
}

func askRelease(release, directory string) func(context.Context) (finding, error) {
	return func(ctx context.Context) (finding, error) {
		if release != "auto" {
			return finding{given: true, release: release}, nil
		}
		found, err := postconf.DetectRelease(ctx, directory)
		if err != nil {
			return finding{}, fmt.Errorf("%w; set postfix.release", err)
		}
		return finding{release: found}, nil
	}
}

// await waits until it is known for the first time in which words to answer,
// but not for long: the words that every release understands will do.
func (s *surroundings) await(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case <-s.heard:
	case <-ctx.Done():
	}
}

// run asks until ctx ends.
func (s *surroundings) run(ctx context.Context) {
	var asking sync.WaitGroup
	defer asking.Wait()
	timer := time.NewTimer(time.Hour) // there is nothing to ask yet
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-s.results:
			if slices.Contains(s.all(), q) { // and not of an old configuration
				q.note(time.Now())
			}
		case next := <-s.changed:
			next.resolver.inherit(s.now.resolver)
			next.postfix.inherit(s.now.postfix)
			next.release.inherit(s.now.release)
			s.now = next
		case <-s.poked:
			if q := s.now.resolver; q != nil && !q.asked.IsZero() {
				q.hasten(q.asked.Add(pokeEvery))
			}
		case <-timer.C:
		}
		s.settle()
		timer.Reset(s.start(ctx, &asking))
	}
}

// start begins what is due, and returns how long nothing else will be.
func (s *surroundings) start(ctx context.Context, asking *sync.WaitGroup) time.Duration {
	wait := time.Hour
	for _, q := range s.all() {
		left := time.Until(q.next)
		switch {
		case q.asking:
		case left > 0:
			wait = min(wait, left)
		default:
			q.asking, q.asked = true, time.Now()
			asking.Go(func() {
				once, cancel := context.WithTimeout(ctx, q.limit)
				defer cancel()
				q.freshly, q.failure = q.ask(once)
				select {
				case s.results <- q:
				case <-ctx.Done():
				}
			})
		}
	}
	return wait
}

// all are the questions there are.
func (s *surroundings) all() []*inquiry {
	return slices.DeleteFunc(append(s.forDANE(), s.now.release), func(q *inquiry) bool { return q == nil })
}

// forDANE are the questions whose answers decide whether DANE can be used; nil
// where nobody asks.
func (s *surroundings) forDANE() []*inquiry { return []*inquiry{s.now.postfix, s.now.resolver} }

// note takes over what came of a question. That nothing was learned takes
// nothing away from what is known: DNS that is down does not mean that the
// resolver has stopped to validate.
func (q *inquiry) note(now time.Time) {
	q.asking, q.err, q.next = false, q.failure, now.Add(q.again)
	if q.err == nil {
		q.found, q.at, q.next = new(q.freshly), now, now.Add(q.every)
	}
}

// inherit takes over what old knows, if it asked the same.
func (q *inquiry) inherit(old *inquiry) {
	if q != nil && old != nil && q.key == old.key {
		q.found, q.at, q.err, q.asked = old.found, old.at, old.err, old.asked
	}
}

// hasten has q asked at that time, if it would be later.
func (q *inquiry) hasten(at time.Time) {
	if q.next.After(at) {
		q.next = at
	}
}

// settle tells the engine, and who asks for the status, what all this means.
func (s *surroundings) settle() {
	state, why := s.judge()
	if state.State != s.state.State || !slices.Equal(state.Reasons, s.state.Reasons) {
		s.state = state
		s.state.Since = time.Now()
	}
	s.state.Mode = s.now.mode
	if s.state.State != "unknown" {
		s.allow(why)
	}
	s.tellRelease()
	var view admin.Status
	view.DANE = s.state
	view.Resolver = admin.ResolverStatus{Servers: s.now.servers, Validates: s.now.resolver.view()}
	view.Postfix.DNSSEC = s.now.postfix.view()
	view.Postfix.Release, view.Postfix.Error = s.now.release.answer()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view = view
}

// tellRelease passes on which release asks. Where the last answer is that
// nobody knows, an earlier one is given up: what was Postfix 3.10 may be 3.7
// again, whose mail would wait for what only the other understands.
func (s *surroundings) tellRelease() {
	q := s.now.release
	if q == nil || q.found == nil && q.err == nil {
		return
	}
	var f finding
	if q.err == nil {
		f = *q.found
	}
	if now := fmt.Sprint(f.release, q.err); now != s.told {
		s.told = now
		s.release(f, q.err)
	}
	select {
	case <-s.heard:
	default:
		close(s.heard)
	}
}

// answer is what a status says of the release.
func (q *inquiry) answer() (release, failure string) {
	switch {
	case q == nil:
	case q.err != nil:
		failure = q.err.Error()
	case q.found != nil:
		release = q.found.release
	}
	return release, failure
}

// judge says whether DANE can be used; as long as an answer is awaited, nobody
// knows. The error has all the reasons.
func (s *surroundings) judge() (state admin.DANEStatus, why error) {
	if s.now.mode == "off" {
		return admin.DANEStatus{State: "off"}, admin.ErrDANEMode
	}
	if s.now.resolver == nil {
		return admin.DANEStatus{State: "unknown"}, nil
	}
	for _, q := range s.forDANE() {
		switch {
		case q.found == nil && q.err == nil:
			return admin.DANEStatus{State: "unknown"}, nil
		case q.found == nil:
			state.Reasons = append(state.Reasons, fmt.Sprintf("not known %s: %v", q.about, q.err))
		case q.found.against != nil:
			state.Reasons = append(state.Reasons, q.found.against.Error())
		}
	}
	if len(state.Reasons) == 0 {
		state.State = "on"
		return state, nil
	}
	state.State = "off"
	return state, errors.New(strings.Join(state.Reasons, "; and "))
}

// view is what a status says of q.
func (q *inquiry) view() (f admin.Finding) {
	if q == nil {
		return f
	}
	if q.err != nil {
		f.Error = q.err.Error()
	}
	switch {
	case q.found == nil:
		f.Verdict = "unknown"
		return f
	case q.found.against == nil:
		f.Verdict = "yes"
	default:
		f.Verdict, f.Reason = "no", q.found.against.Error()
	}
	if !q.found.given {
		f.At = q.at
	}
	return f
}

// describe fills the sections of a status that are about the surroundings.
func (s *surroundings) describe(status *admin.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	status.DANE, status.Resolver, status.Postfix = s.view.DANE, s.view.Resolver, s.view.Postfix
}
