package postfix_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/internal/fakenet"
	"stsmap/policy"
	"stsmap/postfix"
	"stsmap/resolver"
	"stsmap/socketmap"
	"stsmap/sts"
	"stsmap/stsfetch"
)

// TestVectors runs testdata/vectors through the whole chain: a client of the
// socketmap protocol, the server, the handler, the engine, a store in memory,
// and fetcher and resolver on real sockets. Each case runs twice: for a Postfix
// before 3.10, and for one that knows policy attributes.
//
// Of the conformance vectors, these are not here: the rows that need a running
// clock (F.4, H23, H25, and of P18 what happens after the rate limit), which
// package policy plays in a bubble; R01, R02, R03, R05, R08 and R13, which are
// about netstrings and connections, not about replies (package socketmap);
// R06, which is about a store or network that hangs (package policy); and R14,
// which needs Postfix (package e2e). R09 to R12 hold for every reply of every
// case.
func TestVectors(t *testing.T) {
	files, err := filepath.Glob("testdata/vectors/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no vectors", err)
	}
	for _, file := range files {
		for _, v := range readVectors(t, file) {
			t.Run(v.name, func(t *testing.T) {
				t.Parallel()
				play(t, v)
			})
			again := *v
			again.attributes = true
			t.Run(v.name+"-tlsrpt", func(t *testing.T) {
				t.Parallel()
				play(t, &again)
			})
		}
	}
}

// play runs one case.
func play(t *testing.T, v *vector) {
	d := start(t, v)
	for i, p := range v.phases {
		if i > 0 {
			if err := d.net.Update(p.world()); err != nil {
				t.Fatalf("%s: %v", p.at, err)
			}
		}
		d.remember(t, p)
		d.bodies = append([]string{p.body}, d.bodies...)
		before := d.count(p)
		d.ask(t, p, v.attributes)
		if p.event != "" {
			d.wait(t, p)
		}
		for j, c := range p.counts {
			if got := d.count(p)[j] - before[j]; got != c.want {
				t.Errorf("%s: %s: %d %s %s, want %d", v.at, v.what, got, c.what, c.name, c.want)
			}
		}
		if p.unknown >= 0 && len(d.unknown) != p.unknown {
			t.Errorf("%s: unknown map names %q, want %d", p.at, d.unknown, p.unknown)
		}
	}
	// The last phase says what is remembered in the end, when nothing runs
	// any more.
	d.engine.Close()
	d.checkStored(t, v.phases[len(v.phases)-1])
}

// A chain is a daemon without a command line, and the world that it is in.
type chain struct {
	net    *fakenet.Net
	store  *cache.Memory
	engine *policy.Engine
	addr   string
	bodies []string // of policies that may be in force, the last first

	mu      sync.Mutex
	unknown []string
	events  map[string]chan struct{} // closed when one of that name has come
}

func start(t *testing.T, v *vector) *chain {
	t.Helper()
	n, err := fakenet.Start(v.phases[0].world(), fakenet.Options{})
	if err != nil {
		t.Fatalf("%s: %v", v.at, err)
	}
	t.Cleanup(n.Close)
	res, err := resolver.New(resolver.Config{Servers: []string{n.DNSAddr()}, Timeout: v.dnsTimeout, TrustAD: v.trust})
	if err != nil {
		t.Fatal(err)
	}
	fetch, err := stsfetch.New(stsfetch.Config{
		Resolver: res, Roots: n.Roots(), Dial: n.Dial, Timeout: v.timeout,
		AllowPrivate: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	if err != nil {
		t.Fatal(err)
	}
	d := &chain{net: n, store: cache.NewMemory(100), events: make(map[string]chan struct{})}
	for _, name := range eventNames() {
		d.events[name] = make(chan struct{})
	}
	v.dane.Check = func(ctx context.Context, hop dane.NextHop) (dane.Result, error) { return dane.Check(ctx, res, hop) }
	if !v.checkDANE {
		v.dane.Check = nil
	}
	d.engine = policy.New(policy.Config{
		Store: d.store, Fetch: fetch, Timeout: v.timeout, Defer: v.deferred, DANE: v.dane, Strict: true,
		Render: postfix.Render, Observe: d.observe,
	})
	d.engine.AllowDANE(v.noDANE)
	t.Cleanup(d.engine.Close)
	d.serve(t, v.attributes)
	return d
}

// theMaps are those that the cases ask.
func theMaps() map[string]postfix.Map {
	return map[string]postfix.Map{
		"postfix":         {},
		"QUERY":           {Attributes: postfix.Never},
		"QUERYwithTLSRPT": {Attributes: postfix.Always},
		"report":          {Testing: postfix.Report},
		"report-encrypt":  {Testing: postfix.Report, Level: "encrypt"},
		"report-plain":    {Testing: postfix.Report, Attributes: postfix.Never},
		"strict":          {Testing: postfix.Enforce},
	}
}

// serve puts the handler behind a socket.
func (d *chain) serve(t *testing.T, attributes bool) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.addr = l.Addr().String()
	var known atomic.Bool
	known.Store(attributes)
	server := &socketmap.Server{Handler: &postfix.Handler{
		Engine: d.engine, Bracketed: true, Maps: theMaps(), Attributes: &known, UnknownMap: d.noteUnknown,
	}}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, socketmap.ErrServerClosed) {
			t.Error(err)
		}
	})
}

func (d *chain) noteUnknown(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unknown = append(d.unknown, name)
}

// eventNames are the words for events, in the order of their kinds.
func eventNames() []string {
	return []string{
		"lookup", "policy-new", "policy-changed", "policy-renewed", "policy-gone", "record-absent",
		"record-invalid", "record-failed", "policy-failed", "store-failed", "panicked",
		"dane-on", "dane-off", "dane-checked", "dane-failed", "override-used", "recovered", "policy-lapsing",
	}
}

func (d *chain) observe(ev policy.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	seen := d.events[eventNames()[ev.Kind]]
	select {
	case <-seen:
	default:
		close(seen)
	}
}

// wait waits for the event of p, which may come after the answer.
func (d *chain) wait(t *testing.T, p *phase) {
	t.Helper()
	seen := d.events[p.event]
	if seen == nil {
		t.Fatalf("%s: unknown event %q", p.at, p.event)
	}
	select {
	case <-seen:
	case <-time.After(time.Minute):
		t.Fatalf("%s: no event %s", p.at, p.event)
	}
}

// remember puts the cached policy of p into the store.
func (d *chain) remember(t *testing.T, p *phase) {
	t.Helper()
	if p.cached == "" {
		return
	}
	fetched := time.Now().Add(-24 * time.Hour)
	body := "version: STSv1\r\nmode: " + p.mode + "\r\nmx: " + p.cached + "\r\nmax_age: 604800\r\n"
	d.bodies = append(d.bodies, body)
	err := d.store.Put(t.Context(), cache.Entry{
		Domain: p.domain, ID: "A", Fetched: fetched, Checked: fetched, Recheck: fetched,
		Policy:  body,
		Expires: fetched.Add(7 * 24 * time.Hour), Refresh: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatalf("%s: %v", p.at, err)
	}
}

// count returns what p counts, so far.
func (d *chain) count(p *phase) []int {
	out := make([]int, len(p.counts))
	for i, c := range p.counts {
		host, record := c.name, c.name
		if c.name == "" {
			host, record = "mta-sts."+p.domain, "_mta-sts."+p.domain
		}
		switch c.what {
		case "gets":
			out[i] = d.net.Requests(host)
		case "handshakes":
			out[i] = d.net.Handshakes(host)
		case "txtqueries":
			out[i] = d.net.Queries(record, "TXT")
		case "queries":
			out[i] = d.net.Queries(c.name, "")
		}
	}
	return out
}

// ask does the lookups of p, and looks at every reply. attributes says whether
// Postfix knows them.
func (d *chain) ask(t *testing.T, p *phase, attributes bool) {
	attributes = theMaps()[p.mapName].Attributes == postfix.Always || attributes && theMaps()[p.mapName].Attributes != postfix.Never
	want := p.reply
	if attributes {
		want = d.withAttributes(t, p)
	}
	keys := p.keys
	if keys == nil {
		keys = []string{p.domain}
	}
	var clients sync.WaitGroup
	for range p.parallel {
		clients.Go(func() {
			client, err := socketmap.Dial(t.Context(), d.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer client.Close()
			for _, key := range keys {
				for range p.lookups {
					reply, err := client.Do(t.Context(), p.mapName, key)
					if err != nil {
						t.Errorf("%s: key %q: %v", p.at, key, err)
						return
					}
					checkReply(t, p, key, reply, want)
				}
			}
		})
	}
	clients.Wait()
}

func checkReply(t *testing.T, p *phase, key string, reply socketmap.Reply, want string) {
	checkForm(t, reply)
	got := reply.Status.String() + " " + reply.Text
	if want == "TEMP" {
		checkTemp(t, reply, p.domain, p.says)
	} else if got != want {
		t.Errorf("%s: key %q\n got %s\nwant %s", p.at, key, got, want)
	}
}

// withAttributes is the reply that p expects for a Postfix that knows policy
// attributes: what it says itself, or else what the policy comes to that makes
// the reply for others.
func (d *chain) withAttributes(t *testing.T, p *phase) string {
	if p.tlsrpt != "" || !strings.HasPrefix(p.reply, "OK secure ") {
		return cmp.Or(p.tlsrpt, p.reply)
	}
	for _, body := range d.bodies {
		if m := modelOf(p.domain, body); "OK "+m.plain() == p.reply {
			return "OK " + m.full()
		}
	}
	t.Fatalf("%s: no policy makes this reply, so the one with attributes has to be said", p.at)
	return ""
}

// checkForm holds a reply against the rows R09 to R12.
func checkForm(t *testing.T, reply socketmap.Reply) {
	t.Helper()
	text := reply.Status.String() + " " + reply.Text
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		t.Errorf("R09: not clean UTF-8: %q", text)
	}
	if len(text) > 100000 {
		t.Errorf("R09: %d bytes", len(text))
	}
	if reply.Status != socketmap.OK {
		return
	}
	tokens := tokenize(reply.Text)
	if len(tokens) == 1 && (tokens[0] == "dane" || tokens[0] == "dane-only") {
		return // R12
	}
	rest := tokens[1:]
	switch {
	case tokens[0] == "may" || tokens[0] == "encrypt" || tokens[0] == "dane":
		if len(rest) == 0 {
			t.Errorf("a level that the administrator has anyway: %q", reply.Text)
		}
	case len(tokens) < 3 || tokens[0] != "secure" || !strings.HasPrefix(tokens[1], "match=") || tokens[2] != "servername=hostname":
		t.Errorf("R11: tokens %q", tokens)
	default:
		rest = tokens[3:]
	}
	if len(rest) > 0 {
		checkAttributes(t, rest)
	}
}

// checkAttributes holds the attributes of Postfix 3.10 against R10.
func checkAttributes(t *testing.T, tokens []string) {
	t.Helper()
	state := 0 // what must come next: policy_type, policy_domain, patterns, strings
	for _, token := range tokens {
		switch {
		case state == 0 && token == "policy_type=sts":
		case state == 1 && regexp.MustCompile(`^policy_domain=[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`).MatchString(token):
		case (state == 2 || state == 3) && regexp.MustCompile(`^mx_host_pattern=(\*\.)?[a-z0-9.-]+$`).MatchString(token):
			state = 2
		case state >= 3 && strings.HasPrefix(token, "{ policy_string = ") && strings.HasSuffix(token, " }"):
			state = 3
		default:
			t.Errorf("R10: %q in %q", token, tokens)
		}
		state++
	}
	if state != 4 {
		t.Errorf("R10: not all attributes are there: %q", tokens)
	}
}

// checkTemp holds a reply against the form of texts that Postfix prints.
func checkTemp(t *testing.T, reply socketmap.Reply, domain, says string) {
	t.Helper()
	text := reply.Text
	if reply.Status != socketmap.Temp || !strings.HasPrefix(text, "mta-sts: "+domain+": ") ||
		!strings.HasSuffix(text, "; run: stsmap explain "+domain) || !strings.Contains(text, says) {
		t.Errorf("%s %q is not a TEMP about %s that says %q", reply.Status, text, domain, says)
	}
	if len(text) > 200 {
		t.Errorf("Postfix prints 200 bytes, the text has %d: %q", len(text), text)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Errorf("text is not printable ASCII: %q", text)
	}
}

// checkStored looks at what is remembered of the domain of p.
func (d *chain) checkStored(t *testing.T, p *phase) {
	t.Helper()
	entry, err := d.engine.Entry(context.Background(), p.domain)
	if err != nil && !errors.Is(err, cache.ErrNotFound) {
		t.Fatal(err)
	}
	if p.class != "" && entry.Result != p.class {
		t.Errorf("%s: classified %q (%s), want %q", p.at, entry.Result, entry.Error, p.class)
	}
	if p.id != "" && entry.ID != p.id {
		t.Errorf("%s: id %q stored, want %q", p.at, entry.ID, p.id)
	}
	if got := entry.Expires.Sub(entry.Fetched); p.life >= 0 && got != time.Duration(p.life)*time.Second {
		t.Errorf("%s: lifetime is %s, want %d s", p.at, got, p.life)
	}
	if p.stored == "" {
		return
	}
	got := "nothing"
	if entry.Policy != "" {
		parsed, err := sts.ParsePolicy([]byte(entry.Policy))
		if err != nil {
			t.Fatalf("%s: %v", p.at, err)
		}
		got = parsed.Mode.String()
	}
	if got != p.stored {
		t.Errorf("%s: %s stored, want %s", p.at, got, p.stored)
	}
}

// world is the description of p for fakenet.
func (p *phase) world() string {
	var b strings.Builder
	b.WriteString("-- dns --\n$TTL 300\n")
	if !p.noMX {
		fmt.Fprintf(&b, "%s. MX 10 mx1.%s.\n", p.domain, p.domain)
	}
	records := p.txt
	if records == nil && !p.noTXT {
		records = [][]string{{"v=STSv1; id=A;"}}
	}
	for _, strs := range records {
		fmt.Fprintf(&b, "_mta-sts.%s. TXT", p.domain)
		for _, s := range strs {
			b.WriteString(" " + zoneString(s))
		}
		b.WriteString("\n")
	}
	if !p.noHost {
		fmt.Fprintf(&b, "mta-sts.%s. A 127.0.0.2\n", p.domain)
	}
	b.WriteString(strings.Join(p.dns, "\n"))
	fmt.Fprintf(&b, "\n-- https --\nmta-sts.%s addr=127.0.0.2 policy=p %s\n", p.domain, p.https)
	b.WriteString(strings.Join(p.hosts, "\n"))
	fmt.Fprintf(&b, "\n-- policy-quoted/p --\n%q\n", p.body)
	return b.String()
}

// zoneString quotes s as master files do (RFC 1035, Section 5.1).
func zoneString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.Write([]byte{'\\', c})
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, "\\%03d", c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// tokenize splits a value as Postfix does from 3.10 on: at what CHARS_COMMA_SP
// of global/mail_params.h has, but within braces (util/mystrtok.c).
func tokenize(value string) (tokens []string) {
	depth, begin := 0, -1
	for i := range len(value) + 1 {
		if i == len(value) || depth == 0 && strings.IndexByte(", \t\r\n", value[i]) >= 0 {
			if begin >= 0 {
				tokens = append(tokens, value[begin:i])
			}
			begin = -1
			continue
		}
		if begin < 0 {
			begin = i
		}
		switch value[i] {
		case '{':
			depth++
		case '}':
			depth = max(depth-1, 0)
		}
	}
	return tokens
}
