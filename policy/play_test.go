package policy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/dane"
	"stsmap/override"
	"stsmap/sts"
	"stsmap/stsfetch"
)

// TestPlays performs testdata/plays/*.txt, each in a bubble of its own with a
// clock that costs no time. A play is a text of one command a line:
//
//	record ID [ttl=D]          from now on DNS has this record
//	record none|broken|two [ttl=D]
//	record fails|silent        SERVFAIL; no answer
//	policy MODE [max_age=S] [MX…]   from now on HTTPS has this policy
//	policy fails|badcert|hangs
//	delay D                    each response of the domain takes this long
//	dane STATE… [insecure] [nomail] [ttl=D]   from now on the MX hosts are in these states
//	dane fails|silent|hangs    SERVFAIL; a timeout; no answer before the context ends
//	danedelay D                each answer about DANE takes this long
//	allow                      DANE may be used, as at the beginning
//	deny                       it may not
//	lookup KIND [ID]           ask, and expect this decision
//	of NEXT-HOP KIND [ID]      the same for another next-hop than example.com
//	strictly KIND [ID]         the same for a caller that enforces policies in testing mode
//	look KIND [ID]             expect this decision from Decide, which does not count as use
//	override none              there are no overrides (any more)
//	override DOMAIN ACTION [for=D] [WORD…]   there is this one alone; the words are its reason
//	uses N                     expect that it has decided so many answers
//	checked N                  expect so many DANE checks since the last "checked"
//	because TEXT               expect that in the reason of the last lookup
//	retrieve [known] [WORD…]   have it retrieved, or downloaded even if known; expect mode, or none, and the words in the error
//	forget                     forget the domain
//	lookups N KIND             ask N times at once
//	took D                     expect that the last lookup took exactly D
//	sleep D                    time passes
//	asked RECORDS POLICIES     expect so many questions since the last "asked"
//	events KIND…               expect these events, but lookups, since the last "events"
//	lapsings N                 expect so many events of that kind since the last "lapsings" or "events"
//	weaker WORDS               expect that in the last change of a policy, or nothing
//	expires D                  expect the decision to expire after D
//	store fails|hangs|write-hangs|works   the store stops working, or works again
//	run                        start refreshing
//	restart                    a new engine on the old store
//	stored N                   expect so many entries in the store
//	option defer|workers=N|forget=D      of the engine; before anything else
//	option dane|all|partial|fallback     likewise; the last three include the first
//	option strict              policies in mode testing are decided as enforced, too
//	option unfit               Config.Render fails for every policy
//	option undecided           AllowDANE has not been called yet
func TestPlays(t *testing.T) {
	files, err := filepath.Glob("testdata/plays/*.txt")
	if err != nil || len(files) < 20 {
		t.Fatalf("found %d plays (%v)", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { perform(t, file, string(text)) })
		})
	}
}

func perform(t *testing.T, file, text string) {
	s := &stage{
		domain: &fakeDomain{policyErr: errors.New("nothing there")},
		store:  newTestStore(),
	}
	defer func() { s.close() }()
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if err := s.do(words[0], words[1:]); err != nil {
			t.Fatalf("%s:%d: %s: %v", file, n, strings.TrimSpace(line), err)
		}
	}
}

// A stage is what a play is performed on.
type stage struct {
	domain *fakeDomain
	store  *testStore
	config Config
	engine *Engine
	stop   func() // ends Run
	unsaid bool   // whether DANE may be used
	rules  *override.Table

	last *Decision
	took time.Duration

	mu     sync.Mutex
	events []string
	weaker []sts.Weakening // of the policy that came last
}

func (s *stage) start() {
	s.config.Store, s.config.Fetch, s.config.Observe = s.store, s.domain, s.observe
	s.engine = New(s.config)
	if !s.unsaid {
		s.engine.AllowDANE(nil)
		s.mu.Lock()
		s.events = slices.DeleteFunc(s.events, func(name string) bool { return name == "dane-on" })
		s.mu.Unlock()
	}
}

func (s *stage) close() {
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
	if s.engine != nil {
		s.engine.Close()
	}
}

func (s *stage) observe(ev Event) {
	if ev.Kind == Lookup {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, kindName(ev.Kind))
	if ev.Kind == PolicyNew || ev.Kind == PolicyChanged {
		s.weaker = ev.Weaker
	}
}

func kindName(k EventKind) string {
	return [...]string{"lookup", "new", "changed", "renewed", "gone", "absent", "invalid",
		"record-failed", "policy-failed", "store-failed", "panicked",
		"dane-on", "dane-off", "dane-checked", "dane-failed", "override-used", "recovered", "lapsing", "ended", "short"}[k]
}

func (s *stage) do(verb string, args []string) error {
	if verb == "option" {
		return s.option(args[0])
	}
	if s.engine == nil {
		s.start()
	}
	switch verb {
	case "record":
		return s.domain.setRecord(args)
	case "policy":
		return s.domain.setPolicy(args)
	case "store":
		return s.store.set(args[0])
	case "override", "uses":
		return s.override(verb, args)
	case "lookup", "look", "of", "strictly", "lookups", "took", "expires", "because":
		return s.ask(verb, args)
	case "asked":
		return s.domain.asked(args)
	case "retrieve":
		return s.retrieve(args)
	case "forget":
		return s.engine.Delete(context.Background(), "example.com")
	case "dane", "danedelay", "checked":
		return s.domain.doDANE(verb, args)
	case "allow":
		s.engine.AllowDANE(nil)
		return nil
	case "deny":
		s.engine.AllowDANE(errors.New("denied"))
		return nil
	case "events":
		return s.expectEvents(args)
	case "lapsings":
		return s.expectLapsings(args[0])
	case "weaker":
		return s.expectWeaker(strings.Join(args, " "))
	case "delay", "sleep":
		d, err := time.ParseDuration(args[0])
		if verb == "delay" {
			s.domain.set(func(n *fakeDomain) { n.delay = d })
			return err
		}
		time.Sleep(d)
		synctest.Wait()
		return err
	case "run":
		ctx, cancel := context.WithCancel(context.Background())
		var done sync.WaitGroup
		done.Go(func() { s.engine.Run(ctx) })
		s.stop = func() { cancel(); done.Wait() }
		synctest.Wait()
		return nil
	case "stored":
		n := 0
		for _, err := range s.store.All(context.Background()) {
			if n++; err != nil {
				return err
			}
		}
		if args[0] != strconv.Itoa(n) {
			return fmt.Errorf("%d entries are stored", n)
		}
		return nil
	case "restart":
		s.close()
		s.start()
		return nil
	}
	return fmt.Errorf("unknown command")
}

func (s *stage) option(word string) error {
	name, value, _ := strings.Cut(word, "=")
	var err error
	switch name {
	case "defer":
		s.config.Defer = true
	case "workers":
		s.config.Concurrency, err = strconv.Atoi(value)
	case "forget":
		s.config.Forget, err = time.ParseDuration(value)
	case "dane", "all", "partial", "fallback":
		s.config.DANE.Check = s.domain.check
		s.config.DANE.All = s.config.DANE.All || name == "all"
		s.config.DANE.Partial = s.config.DANE.Partial || name == "partial"
		s.config.DANE.FallBack = s.config.DANE.FallBack || name == "fallback"
	case "strict":
		s.config.Strict = true
	case "unfit":
		s.config.Render = func(*Decision) (string, error) { return "", errors.New("it does not fit") }
	case "undecided":
		s.unsaid = true
	default:
		err = errors.New("unknown option")
	}
	return err
}

func (s *stage) ask(verb string, args []string) error {
	switch verb {
	case "took":
		if s.took.String() != args[0] {
			return fmt.Errorf("took %s", s.took)
		}
		return nil
	case "because":
		if text := s.last.String(); !strings.Contains(text, strings.Join(args, " ")) {
			return fmt.Errorf("because %q", text)
		}
		return nil
	case "expires":
		if d := time.Until(s.last.Expires()); d.String() != args[0] {
			return fmt.Errorf("expires after %s", d)
		}
		return nil
	case "lookups":
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		failures := make([]error, n)
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() { failures[i] = expect(s.lookup(dane.NextHop{Domain: "example.com"}, false), args[1:]) })
		}
		all.Wait()
		return errors.Join(failures...)
	}
	hop := dane.NextHop{Domain: "example.com"}
	if verb == "of" {
		hop, args = nextHop(args[0]), args[1:]
	}
	began := time.Now()
	if verb == "look" {
		s.last = s.engine.Decide(context.Background(), hop, false)
	} else {
		s.last = s.lookup(hop, verb == "strictly")
	}
	s.took = time.Since(began)
	// What goes on behind the answer gets its turn, as far as it can get
	// without time passing.
	synctest.Wait()
	return expect(s.last, args)
}

// lookup asks as postfix.Handler does.
func (s *stage) lookup(hop dane.NextHop, strict bool) *Decision {
	if d := s.engine.Cached([]byte(hop.String()), strict); d != nil {
		return d
	}
	return s.engine.Lookup(context.Background(), hop, strict)
}

// nextHop reads what dane.NextHop.String writes.
func nextHop(text string) (hop dane.NextHop) {
	host, port, _ := strings.Cut(text, ":")
	hop.Domain = strings.Trim(host, "[]")
	hop.NoMX = hop.Domain != host
	n, _ := strconv.Atoi(port)
	hop.Port = uint16(n)
	return hop
}

func expect(d *Decision, args []string) error {
	got := d.Kind.String()
	if len(args) > 1 {
		got += " " + d.ID
	}
	if want := strings.Join(args, " "); got != want {
		return fmt.Errorf("decided %s because %q, want %s", got, d.String(), want)
	}
	return nil
}

// expectLapsings takes the events that happened, and counts.
func (s *stage) expectLapsings(want string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, kind := range s.events {
		if kind == "lapsing" {
			n++
		}
	}
	s.events = nil
	if got := strconv.Itoa(n); got != want {
		return fmt.Errorf("happened %s times", got)
	}
	return nil
}

func (s *stage) expectWeaker(want string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, w := range s.weaker {
		all = append(all, w.String())
	}
	if got := strings.Join(all, "; "); got != want {
		return fmt.Errorf("it is %q", got)
	}
	return nil
}

func (s *stage) expectEvents(want []string) error {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.events
	s.events = nil
	if !slices.Equal(got, want) {
		return fmt.Errorf("happened: %q", got)
	}
	return nil
}

// A fakeDomain is a Fetcher for the one domain of a play.
type fakeDomain struct {
	mu        sync.Mutex
	delay     time.Duration
	record    stsfetch.Record
	recordErr error
	text      string
	policyErr error
	hangs     bool
	records   int // questions since the last asked
	policies  int

	result    dane.Result
	resultErr error
	daneDelay time.Duration
	checks    int // since the last checked
}

func (n *fakeDomain) set(change func(*fakeDomain)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(n)
}

func (n *fakeDomain) Record(ctx context.Context, _ string) (stsfetch.Record, error) {
	n.mu.Lock()
	n.records++
	r, err, delay := n.record, n.recordErr, n.delay
	n.mu.Unlock()
	return r, errors.Join(err, pause(ctx, delay))
}

func (n *fakeDomain) Policy(ctx context.Context, name string) (string, *sts.Policy, error) {
	n.mu.Lock()
	n.policies++
	text, err, delay, hangs := n.text, n.policyErr, n.delay, n.hangs
	n.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return "", nil, &stsfetch.Error{Domain: name, Step: stsfetch.StepTimeout, Err: ctx.Err()}
	}
	if err := errors.Join(err, pause(ctx, delay)); err != nil {
		return "", nil, err
	}
	p, err := sts.ParsePolicy([]byte(text))
	return text, p, err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// slowness is the error of a name server that does not answer.
type slowness struct{}

func (slowness) Error() string { return "timeout" }
func (slowness) Timeout() bool { return true }

func (n *fakeDomain) setRecord(args []string) error {
	r := stsfetch.Record{TTL: time.Hour}
	var err error
	switch args[0] {
	case "none":
		r.Why = sts.ErrNoRecord
	case "two":
		r.Why = sts.ErrManyRecords
	case "broken":
		r.Why = &sts.SyntaxError{Field: "id", Reason: "broken"}
	case "fails":
		r, err = stsfetch.Record{}, errors.New("SERVFAIL")
	case "silent":
		r, err = stsfetch.Record{}, slowness{}
	default:
		r.ID = args[0]
	}
	for _, word := range args[1:] {
		ttl, ok := strings.CutPrefix(word, "ttl=")
		d, parseErr := time.ParseDuration(ttl)
		if !ok || parseErr != nil {
			return fmt.Errorf("unknown word %q", word)
		}
		r.TTL = d
	}
	n.set(func(n *fakeDomain) { n.record, n.recordErr = r, err })
	return nil
}

func (n *fakeDomain) setPolicy(args []string) error {
	var text string
	var err error
	hangs := false
	switch args[0] {
	case "fails":
		err = &stsfetch.Error{Domain: "example.com", Step: stsfetch.StepStatus, Err: errors.New("HTTP status is 404, not 200")}
	case "badcert":
		err = &stsfetch.Error{Domain: "example.com", Step: stsfetch.StepCert, Err: errors.New("certificate expired")}
	case "hangs":
		hangs = true
	case "enforce", "testing", "none":
		age, mx := "604800", "mx: mx.example.com\n"
		for _, word := range args[1:] {
			if a, ok := strings.CutPrefix(word, "max_age="); ok {
				age = a
			} else {
				mx = "mx: " + word + "\n"
			}
		}
		text = "version: STSv1\nmode: " + args[0] + "\n" + mx + "max_age: " + age + "\n"
	default:
		return errors.New("unknown policy")
	}
	n.set(func(n *fakeDomain) { n.text, n.policyErr, n.hangs = text, err, hangs })
	return nil
}

func (n *fakeDomain) asked(args []string) error {
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	got := []string{strconv.Itoa(n.records), strconv.Itoa(n.policies)}
	n.records, n.policies = 0, 0
	if !slices.Equal(got, args) {
		return fmt.Errorf("asked for %s records and %s policies", got[0], got[1])
	}
	return nil
}
