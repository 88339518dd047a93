package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/policy"
	"stsmap/sts"
)

// eventCase is one case of testdata/events.txt.
type eventCase struct {
	name    string
	event   policy.Event
	expires time.Duration
	retry   time.Duration
	kind    policy.Kind
	lookups string
	weaker  bool
	change  string
	line    string
}

// TestEvents runs testdata/events.txt.
func TestEvents(t *testing.T) {
	for _, c := range readEvents(t) {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				m := NewMonitor(slog.New(NewHandler(&out, "text", slog.LevelDebug)), c.lookups)
				m.Observe(c.make())
				if got := withoutTime(t, out.String()); got != c.line {
					t.Errorf("got  %s\nwant %s", got, c.line)
				}
				for i := range m.changes {
					if got, want := m.changes[i].Load() == 1, change(i).String() == c.change; got != want {
						t.Errorf("counted as %s: %v, want %v", change(i), got, want)
					}
				}
			})
		})
	}
}

// make completes the event; the clock is that of the bubble.
func (c *eventCase) make() policy.Event {
	ev := c.event
	now := time.Now().UTC()
	ev.After.Expires, ev.After.Retry = now.Add(c.expires), now.Add(c.retry)
	if ev.Kind == policy.Lookup {
		ev.Decision = &policy.Decision{Domain: ev.Domain, Kind: c.kind, STS: new(sts.Policy), ID: "A"}
	}
	if c.weaker {
		before, _ := sts.ParsePolicy([]byte(ev.Before.Policy))
		after, _ := sts.ParsePolicy([]byte(ev.After.Policy))
		ev.Weaker = sts.Weakened(before, after)
	}
	if ev.Kind == policy.Panicked {
		ev.Stack = []byte("goroutine 1\nmain.go:1")
	}
	return ev
}

// withoutTime takes the time from a line, which depends on the zone, and sees
// that there is only one line.
func withoutTime(t *testing.T, s string) string {
	t.Helper()
	if s == "" {
		return ""
	}
	line, rest, ok := strings.Cut(s, "\n")
	time, line, timed := strings.Cut(line, " ")
	if !ok || rest != "" || !timed || !strings.HasPrefix(time, "time=") {
		t.Errorf("not one line with a time: %q", s)
	}
	return line
}

func readEvents(t *testing.T) (all []*eventCase) {
	t.Helper()
	data, err := os.ReadFile("testdata/events.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		if word == "case" {
			name, _, _ := strings.Cut(rest, ":")
			c := &eventCase{name: name, lookups: "changes"}
			c.event.Domain, c.event.First = "example.com", true
			c.event.Before, c.event.After = new(cache.Entry), new(cache.Entry)
			all = append(all, c)
			continue
		}
		if strings.HasPrefix(rest, `"`) {
			if rest, err = strconv.Unquote(rest); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
		if err := all[len(all)-1].read(word, rest); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return all
}

func (c *eventCase) read(word, rest string) (err error) {
	index := func(names ...string) uint8 {
		i := slices.Index(names, rest)
		if i < 0 {
			err = fmt.Errorf("unknown %s", word)
			return 0
		}
		return uint8(i)
	}
	ev := &c.event
	switch word {
	case "kind":
		ev.Kind = policy.EventKind(index("lookup", "policy-new", "policy-changed", "policy-renewed", "policy-gone",
			"record-absent", "record-invalid", "record-failed", "policy-failed", "store-failed", "panicked",
			"dane-on", "dane-off", "dane-checked", "dane-failed", "override-used", "recovered", "policy-lapsing"))
	case "domain":
		ev.Domain = rest
	case "id":
		ev.After.ID = rest
	case "policy":
		ev.After.Policy = rest
	case "old":
		ev.Before.Policy = rest
	case "expires":
		c.expires, err = time.ParseDuration(rest)
	case "retry":
		c.retry, err = time.ParseDuration(rest)
	case "failures":
		ev.After.Failures, err = strconv.Atoi(rest)
	case "result":
		ev.After.Result = rest
	case "error":
		ev.Err = errors.New(rest)
	case "decision":
		c.kind = policy.Kind(index("none", "testing", "enforce", "failed", "dane", "dane-only"))
	case "dane":
		ev.DANE, err = readResult(rest)
	case "switched-off":
		ev.Err = ErrDANEMode
	case "again":
		ev.First = false
	case "lookups":
		c.lookups = rest
	case "weaker":
		c.weaker = true
	case "change":
		c.change = rest
	case "line":
		c.line = rest
	default:
		err = fmt.Errorf("unknown word %q", word)
	}
	return err
}

// readResult reads "secure STATE…": the MX records, and then the hosts; or
// "secure no-mail".
func readResult(text string) (*dane.Result, error) {
	word, rest, _ := strings.Cut(text, " ")
	r := &dane.Result{MXSecure: word == "secure", NoMail: rest == "no-mail"}
	if r.NoMail {
		return r, nil
	}
	for word := range strings.FieldsSeq(rest) {
		i := slices.Index([]string{"none", "usable", "unusable", "failed", "absent", "unresolved"}, word)
		if i < 0 {
			return nil, fmt.Errorf("unknown state %q", word)
		}
		r.Hosts = append(r.Hosts, dane.Host{State: dane.State(i)})
	}
	return r, nil
}

// TestQuietNone: no failure about a policy in mode none is ever more than a
// debugging line (RFC 8461, Section 3.3), however often it happens.
func TestQuietNone(t *testing.T) {
	var out bytes.Buffer
	m := NewMonitor(slog.New(NewHandler(&out, "text", slog.LevelInfo)), "changes")
	ev := policy.Event{Kind: policy.PolicyFailed, Domain: "example.com", Err: errors.New("x")}
	ev.After = &cache.Entry{Policy: "version: STSv1\nmode: none\nmax_age: 86400\n"}
	for ev.After.Failures = 1; ev.After.Failures < 100; ev.After.Failures++ {
		m.Observe(ev)
	}
	if out.Len() > 0 {
		t.Errorf("logged %s", out.String())
	}
}

// TestRepeated: failures that hit many domains at once make one line a minute,
// which tells how many there were, and each kind has its own minute.
func TestRepeated(t *testing.T) {
	others := map[policy.EventKind]policy.EventKind{
		policy.RecordFailed: policy.StoreFailed, policy.StoreFailed: policy.DANEFailed, policy.DANEFailed: policy.RecordFailed,
	}
	for kind, other := range others {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			m := NewMonitor(slog.New(NewHandler(&out, "text", slog.LevelInfo)), "changes")
			ev := policy.Event{Kind: kind, Domain: "example.com", Err: errors.New("x")}
			lines := func() []string {
				defer out.Reset()
				return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
			}
			for range 5 {
				m.Observe(ev)
				time.Sleep(time.Second)
			}
			if got := lines(); len(got) != 1 || got[0] == "" || strings.Contains(got[0], "omitted") {
				t.Errorf("5 failures: %q, want one line", got)
			}
			m.Observe(policy.Event{Kind: other, Err: errors.New("x")})
			m.Observe(policy.Event{After: new(cache.Entry), Kind: policy.PolicyNew, Domain: "example.com"})
			if got := lines(); len(got) != 2 {
				t.Errorf("other kinds: %q, want two lines", got)
			}
			time.Sleep(time.Minute)
			m.Observe(ev)
			m.Observe(ev)
			if got := lines(); len(got) != 1 || !strings.HasSuffix(got[0], " omitted=4") {
				t.Errorf("a minute later: %q, want one line with omitted=4", got)
			}
			time.Sleep(time.Hour)
			m.Observe(ev)
			if got := lines(); len(got) != 1 || !strings.HasSuffix(got[0], " omitted=1") {
				t.Errorf("an hour later: %q, want one line with omitted=1", got)
			}
			time.Sleep(time.Hour)
			m.Observe(ev)
			if got := lines(); len(got) != 1 || strings.Contains(got[0], "omitted") {
				t.Errorf("two hours later: %q, want one line", got)
			}
		})
	}
}

// TestRemoteBytes: what comes from elsewhere stays within its line and its
// value, and does not speak to a terminal, in both formats.
func TestRemoteBytes(t *testing.T) {
	for _, remote := range []string{
		"a\nlevel=ERROR msg=forged", "a\r\n", "\x1b[31mred\x1b]0;title\x07", "\x00", "del\x7f", "csi\u009b31m", "nel\u0085x",
		"\u2028", "\u202egpj.exe", "caf\xff", `"`, `\`, `a="b" c=d`, "{\"level\":\"ERROR\"}", "\ufeff",
	} {
		for _, format := range []string{"text", "json"} {
			var out bytes.Buffer
			m := NewMonitor(slog.New(NewHandler(&out, format, slog.LevelInfo)), "all")
			ev := policy.Event{Kind: policy.RecordInvalid, Domain: "example.com", Err: errors.New(remote)}
			m.Observe(ev)
			line, ok := strings.CutSuffix(out.String(), "\n")
			if !ok || strings.ContainsFunc(line, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }) {
				t.Errorf("%s: %q is logged as %q", format, remote, out.String())
			}
			plain := remote == `\` || remote == "del\x7f" // log/slog does not quote these
			if format == "text" && !plain && !strings.HasSuffix(line, " error="+strconv.Quote(remote)) {
				t.Errorf("text: %q is logged as %q", remote, line)
			}
			var fields struct{ Error string }
			if format == "json" && (json.Unmarshal([]byte(line), &fields) != nil || fields.Error != strings.ToValidUTF8(remote, "\ufffd")) {
				t.Errorf("json: %q is logged as %q", remote, line)
			}
		}
	}
}

// TestSummary: all answers are counted, logged or not, from many goroutines.
func TestSummary(t *testing.T) {
	m := NewMonitor(slog.New(slog.DiscardHandler), "none")
	if got, want := m.Summary(), "0 answers: 0 enforce, 0 dane, 0 dane-only, 0 testing, 0 none, 0 failed"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i, n := range []int{40, 10, 30, 20, 5, 6} {
				for range n {
					m.Observe(policy.Event{Kind: policy.Lookup, Decision: &policy.Decision{Kind: policy.Kind(i)}})
				}
			}
		})
	}
	all.Wait()
	if got, want := m.Summary(), "444 answers: 120 enforce, 20 dane, 24 dane-only, 40 testing, 160 none, 80 failed"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	want := map[string]int64{"enforce": 120, "dane": 20, "dane-only": 24, "testing": 40, "none": 160, "failed": 80, "said": 0}
	if got := m.Counts(); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	m.Observe(policy.Event{Kind: policy.Lookup, Decision: &policy.Decision{Kind: policy.Replied}})
	if got := m.Summary(); !strings.HasSuffix(got, ", 80 failed, 1 said") {
		t.Errorf("got %q, want 1 said", got)
	}
	for _, c := range []struct {
		ev   policy.Event
		want string
	}{
		{policy.Event{Kind: policy.DANEOn}, "; DANE on"},
		{policy.Event{Kind: policy.DANEOff, Err: errors.New("x")}, "; DANE off: x"},
		{policy.Event{Kind: policy.DANEOff, Err: errors.New(strings.Repeat("x", 1000))}, "; DANE off: " + strings.Repeat("x", 100) + "..."},
	} {
		m.Observe(c.ev)
		if got := m.Summary(); !strings.HasSuffix(got, " said"+c.want) {
			t.Errorf("got %q, want %q at the end", got, c.want)
		}
	}
}

// TestLevels: the names of the configuration.
func TestLevels(t *testing.T) {
	for name, want := range map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	} {
		if got := ParseLevel(name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

// TestLogLookups: what is logged of lookups can change while the daemon runs.
func TestLogLookups(t *testing.T) {
	var out bytes.Buffer
	m := NewMonitor(slog.New(NewHandler(&out, "text", slog.LevelInfo)), "none")
	ev := policy.Event{Kind: policy.Lookup, Domain: "example.com", First: true, Decision: &policy.Decision{Kind: policy.Enforce}}
	m.Observe(ev)
	if out.Len() > 0 {
		t.Errorf("none: %s", out.String())
	}
	m.LogLookups("changes")
	m.Observe(ev)
	if !strings.Contains(out.String(), "msg=lookup") {
		t.Errorf("changes: %q", out.String())
	}
}
