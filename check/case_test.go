package check

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"stsmap/cache"
	"stsmap/internal/fakenet"
	"stsmap/override"
	"stsmap/policy"
	"stsmap/postfix"
	"stsmap/postfix/postconf"
	"stsmap/resolver"
	"stsmap/stsfetch"
)

// update writes the golden sections anew: go test ./check -args update
func update() bool { return slices.Contains(flag.Args(), "update") }

// TestCases runs testdata/*.txtar. Each case is one mistake of a domain or of
// this host, which the text above the first section describes. Sections
//
//	ask        the key to check, and the state of this host; see newSetting
//	dns, https, smtp, policy/…, ns/…
//	           the differences from testdata/base.txtar, in the format of
//	           internal/fakenet. A line replaces those of the base that begin
//	           with the same name (and type), "-NAME [TYPE]" only takes them away
//	cached     the policy that the daemon has
//	screen, letter, nagios
//	           the expected output in that form
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 40 {
		t.Fatal(len(files), err)
	}
	base, err := txtar.ParseFile("testdata/base.txtar")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan map[string]bool, len(files))
	t.Run("cases", func(t *testing.T) {
		for _, file := range files {
			if filepath.Base(file) != "base.txtar" {
				t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
					t.Parallel()
					seen <- runCase(t, base, file)
				})
			}
		}
	})
	close(seen)
	appears, lacks := make(map[string]bool), make(map[string]bool)
	for ids := range seen {
		for _, e := range Catalogue() {
			appears[e.ID] = appears[e.ID] || ids[e.ID]
			lacks[e.ID] = lacks[e.ID] || !ids[e.ID]
		}
	}
	for _, e := range Catalogue() {
		if !appears[e.ID] || !lacks[e.ID] {
			t.Errorf("%s appears in a case: %v, and does not in another: %v", e.ID, appears[e.ID], lacks[e.ID])
		}
	}
}

// runCase returns which checks had something to say.
func runCase(t *testing.T, base *txtar.Archive, file string) map[string]bool {
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(strings.TrimSpace(string(a.Comment))) < 10 {
		t.Error("the case does not say what it is about")
	}
	s := newSetting(t, base, a)
	k := New(s.config)
	if s.slow {
		k.slow = 0
	}
	r := k.Check(t.Context(), s.key)
	steady(r)
	got := map[string]string{"screen": r.Screen(Style{}), "letter": r.Letter(time.Date(2026, 11, 25, 17, 0, 0, 0, time.UTC)), "nagios": nagios(r)}
	changed := false
	for i, f := range a.Files {
		if want, ok := got[f.Name]; ok && string(f.Data) != want {
			changed = true
			a.Files[i].Data = []byte(want)
			if !update() {
				t.Errorf("%s: %s", f.Name, cmp.Diff(string(f.Data), want))
			}
		}
	}
	if !slices.ContainsFunc(a.Files, func(f txtar.File) bool { return f.Name == "screen" }) {
		a.Files = append(a.Files, txtar.File{Name: "screen", Data: []byte(got["screen"])})
		if changed = true; !update() {
			t.Error("there is no section screen")
		}
	}
	if changed && update() {
		if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ids := make(map[string]bool)
	for _, f := range r.Findings {
		if _, ok := Lookup(f.ID); !ok {
			t.Errorf("%s is not in the catalogue", f.ID)
		}
		ids[f.ID] = ids[f.ID] || f.Severity >= Info || f.acted()
		if f.Severity >= Warn && f.Who != Nobody && f.Fix == "" {
			t.Errorf("%s says who must act, and not what to do", f.ID)
		}
	}
	for line := range strings.Lines(got["screen"]) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > width && !regexp.MustCompile(`^ +\S+$`).MatchString(strings.TrimSuffix(line, "\n")) {
			t.Errorf("%d columns: %s", n, line)
		}
		if printable(strings.TrimSuffix(line, "\n")) != strings.TrimSuffix(line, "\n") {
			t.Errorf("not fit for a terminal: %q", line)
		}
	}
	return ids
}

// nagios is the line about one Report.
func nagios(r *Report) string {
	var t Tally
	t.Add(r)
	return t.Nagios() + "\n"
}

// steady takes out of a report what differs from run to run.
func steady(r *Report) {
	for i := range r.Findings {
		f := &r.Findings[i]
		for _, text := range []*string{&f.Seen, &f.Why, &f.Fix} {
			for pattern, steady := range map[string]string{
				`\d+ ms`: "N ms", `\d+\.\d s\b`: "N s", `\b(for|in|than|has expired|ago,) \d+ (days|hours|minutes|seconds)`: "$1 N $2",
				`\d{4}-\d\d-\d\d \d\d:\d\d UTC`: "DATE", `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`: "DATE", `127\.0\.0\.1:\d{4,5}`: "127.0.0.1:PORT", `[0-9a-f]{64}`: "HASH",
				`downloaded \d+`: "downloaded N",
			} {
				*text = regexp.MustCompile(pattern).ReplaceAllString(*text, steady)
			}
		}
	}
	r.Seconds = 0
}

// A setting is what a case is run in.
type setting struct {
	key    string
	config Config
	slow   bool
}

// newSetting starts the servers of a case. The lines of its section ask are
//
//	key KEY            the key to check; example.com
//	smtp, ns           as the flags
//	release R          of Postfix; 3.10.5
//	dnssec             Postfix does not look up DNSSEC
//	dane off|all       dane.mode
//	partial, defer, strict   other settings of the daemon
//	trust nobody|other|unknown
//	                   the trust anchors of Postfix
//	private            fetch.allow_private is empty
//	proxy URL          fetch.proxy
//	noipv6             this host has no IPv6
//	slow               every response counts as slow
//	timeout D          fetch.timeout
//	daemon [ERROR]     a daemon runs, or cannot be queried for this reason;
//	                   a section cached implies it, and has
//	                   words before the policy: id=, age=
//	event TEXT         an event in the daemon's history
//	override A [TEXT]  an override of this host
//	nooverrides        the overrides cannot be read
func newSetting(t *testing.T, base, a *txtar.Archive) *setting {
	t.Helper()
	n, err := fakenet.Start(merged(base, a), fakenet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	s := &setting{key: "example.com"}
	c := &s.config
	c.Dial, c.Timeout, c.DANE = n.Dial, time.Minute, true
	c.Policy.Timeout = time.Minute
	c.Postfix = Postfix{Release: "3.10.5", Roots: n.Roots(), Trust: postconf.Trust{Directory: "/etc/ssl/certs"}}
	fetch := stsfetch.Config{Roots: n.Roots(), Dial: n.Dial, Timeout: 40 * time.Second, UserAgent: "stsmap/test",
		AllowPrivate: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}}
	for line := range strings.Lines(section(a, "ask")) {
		word, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		s.set(t, &fetch, word, value)
	}
	c.Resolver, err = resolver.New(resolver.Config{Servers: []string{n.DNSAddr()}, Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	fetch.Resolver = c.Resolver
	if c.Fetch, err = stsfetch.New(fetch); err != nil {
		t.Fatal(err)
	}
	if text := section(a, "cached"); text != "" {
		s.remember(t, text)
	}
	return s
}

// set reads a line of the section ask.
func (s *setting) set(t *testing.T, fetch *stsfetch.Config, word, value string) {
	t.Helper()
	c := &s.config
	switch word {
	case "key":
		s.key = value
		if text, err := unquoted(value); err == nil {
			s.key = text
		}
	case "smtp":
		c.SMTP = true
	case "ns":
		c.NameServers = true
	case "release":
		c.Postfix.Release = value
	case "dnssec":
		c.Postfix.DNSSEC = errors.New("Postfix does not look up DNSSEC: main.cf: smtp_dns_support_level is not set")
	case "dane":
		c.DANE, c.Policy.DANE.All = value != "off", value == "all"
	case "partial":
		c.Policy.DANE.Partial = true
	case "defer":
		c.Policy.Defer = true
	case "strict":
		c.Policy.Strict, c.Postfix.Map.Testing = true, postfix.Enforce
	case "trust":
		c.Postfix.Roots, c.Postfix.Trust = nil, postconf.Trust{}
		_, c.Postfix.NoRoots = c.Postfix.Trust.Pool()
		switch value {
		case "other":
			c.Postfix.Roots = x509.NewCertPool()
		case "unknown":
			c.Postfix.NoRoots = postconf.ErrNotFound
		}
	case "private":
		fetch.AllowPrivate = nil
	case "proxy":
		fetch.Proxy = value
	case "noipv6":
		dial := c.Dial
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if strings.HasPrefix(addr, "[") {
				return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}
			}
			return dial(ctx, network, addr)
		}
		fetch.Dial = c.Dial
	case "slow":
		s.slow = true
	case "timeout":
		d, err := time.ParseDuration(value)
		if err != nil {
			t.Fatal(err)
		}
		fetch.Timeout, c.Timeout = d, d+4*time.Second
	case "daemon", "event":
		s.tell(word, value)
	case "override":
		action, text, _ := strings.Cut(value, " ")
		var err error
		c.Overrides, err = override.Parse(fmt.Sprintf("[[override]]\ndomain = \"example.com\"\naction = %q\ntext = %q\nuntil = %s\nreason = \"ticket 4711\"\n",
			action, text, time.Now().Add(48*time.Hour).Format(time.DateOnly)), postfix.CheckText)
		if err != nil {
			t.Fatal(err)
		}
	case "nooverrides":
		c.NoOverrides = errors.New("open overrides.toml: permission denied")
	default:
		t.Fatalf("unknown line %q", word)
	}
}

// tell has a daemon that says something.
func (s *setting) tell(word, value string) {
	before := s.config.Known
	s.config.Known = func(ctx context.Context, domain string) (Known, error) {
		var k Known
		if before != nil {
			k, _ = before(ctx, domain)
		}
		switch word {
		case "event":
			k.Events = append(k.Events, value)
		case "daemon":
			if value != "" {
				return k, errors.New(value)
			}
		}
		return k, nil
	}
}

// remember has a daemon that has a policy cached.
func (s *setting) remember(t *testing.T, text string) {
	t.Helper()
	head, body, _ := strings.Cut(text, "\n")
	e := cache.Entry{Domain: "example.com", Policy: body, Used: time.Now(), Recheck: time.Now().Add(time.Hour)}
	age := 3 * time.Hour
	for word := range strings.FieldsSeq(head) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "id":
			e.ID = value
		case "age":
			var err error
			if age, err = time.ParseDuration(value); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("unknown word %q", word)
		}
	}
	e.Fetched = time.Now().Add(-age)
	e.Expires, e.Refresh, e.Checked = e.Fetched.Add(7*24*time.Hour), e.Fetched.Add(24*time.Hour), e.Fetched
	s.config.Known = func(_ context.Context, domain string) (Known, error) { return Known{Entry: &e}, nil }
}

func unquoted(s string) (text string, err error) {
	_, err = fmt.Sscanf(s, "%q", &text)
	return text, err
}

// section is the text of a section; empty if there is none.
func section(a *txtar.Archive, name string) string {
	for _, f := range a.Files {
		if f.Name == name {
			return string(f.Data)
		}
	}
	return ""
}

// merged is the world of a case: that of base, with what differs.
func merged(base, a *txtar.Archive) string {
	var out txtar.Archive
	done := make(map[string]bool)
	for _, f := range base.Files {
		done[f.Name] = true
		other := section(a, f.Name)
		switch {
		case f.Name == "policy/p" && section(a, "policy-quoted/p") != "":
			continue
		case f.Name == "policy/p" && other != "":
			f.Data = []byte(other)
		default:
			f.Data = []byte(mergedLines(string(f.Data), other, f.Name == "dns" || strings.HasPrefix(f.Name, "ns/")))
		}
		out.Files = append(out.Files, f)
	}
	for _, f := range a.Files {
		kind, _, _ := strings.Cut(f.Name, "/")
		if !done[f.Name] && (strings.HasPrefix(kind, "policy") || kind == "ns" || kind == "bulk") {
			out.Files = append(out.Files, f)
		}
	}
	return string(txtar.Format(&out))
}

func mergedLines(base, own string, typed bool) string {
	gone := make(map[string]bool)
	var out, added strings.Builder
	for line := range strings.Lines(own) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		name := strings.TrimPrefix(words[0], "-")
		if len(words) > 2 && strings.Trim(words[1], "0123456789") == "" {
			words = append(words[:1], words[2:]...) // without a TTL
		}
		if typed && len(words) > 1 {
			gone[name+" "+words[1]] = true
		} else {
			gone[name] = true
		}
		if name == words[0] {
			added.WriteString(line)
		}
	}
	for line := range strings.Lines(base) {
		words := strings.Fields(line)
		if !gone[words[0]] && (len(words) < 2 || !gone[words[0]+" "+words[1]]) {
			out.WriteString(line)
		}
	}
	return out.String() + added.String()
}

var _ policy.Fetcher = replay{}
