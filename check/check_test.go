package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/rogpeppe/go-internal/txtar"

	"stsmap/internal/fakenet"
)

// world is a setting with a world of its own, for tests that are no cases.
func world(t *testing.T, ask, more string) *Checker {
	t.Helper()
	base, err := txtar.ParseFile("testdata/base.txtar")
	if err != nil {
		t.Fatal(err)
	}
	a := txtar.Parse([]byte("-- ask --\n" + ask + more))
	return New(newSetting(t, base, a).config)
}

// TestEach: ten thousand lines with rubbish between have a result each, in their
// order, with no more than some in memory.
func TestEach(t *testing.T) {
	const lines = 10000
	var text strings.Builder
	for i := range lines {
		switch {
		case i%100 == 0:
			fmt.Fprintf(&text, "d%d.bulk.example\n", i+1)
		case i%100 == 1:
			text.WriteString("# a comment\n\n")
		case i%2 == 0:
			fmt.Fprintf(&text, "rubbish \x1b[31m %d\n", i)
		default:
			text.WriteString(strings.Repeat("x", 3000) + "\n")
		}
	}
	k := world(t, "", "-- bulk --\npolicy d%d.bulk.example 1..20000 addr=127.0.0.3 mx=mx%d.example.net mxaddr=127.0.0.11\n")
	keys, failure := Keys(strings.NewReader(text.String()))
	var taken, done atomic.Int64
	good, refused := 0, 0
	counted := func(yield func(string) bool) {
		for key := range keys {
			if n := taken.Add(1) - done.Load(); n > 2*ahead+2*workers {
				t.Errorf("%d keys are taken that are not done", n)
				return
			}
			if !yield(key) {
				return
			}
		}
	}
	last := 0
	err := k.Each(t.Context(), counted, func(r *Report) error {
		done.Add(1)
		var n int
		if _, err := fmt.Sscanf(r.Key, "d%d.", &n); err == nil {
			if good++; n <= last || r.Policy == nil || r.Verdict != Fine {
				t.Errorf("%s after %d: %v", r.Key, last, r.Verdict)
			}
			last = n
		} else if refused++; r.Verdict != Unknown || len(r.Findings) != 1 || r.Findings[0].ID != "STS-A01" {
			t.Errorf("%+v", r)
		}
		return nil
	})
	if err != nil || failure() != nil || good != lines/100 || refused != lines-2*lines/100 {
		t.Errorf("%d, %d, %v, %v", good, refused, err, failure())
	}
}

// TestEachEnds: Each ends with the error of its callback, and when its context
// ends.
func TestEachEnds(t *testing.T) {
	k := world(t, "", "")
	forever := func(yield func(string) bool) {
		for yield("rubbish") {
		}
	}
	enough := errors.New("enough")
	n := 0
	err := k.Each(t.Context(), forever, func(*Report) error {
		if n++; n == 10 {
			return enough
		}
		return nil
	})
	if err != enough || n != 10 {
		t.Errorf("%v after %d", err, n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := k.Each(ctx, forever, func(*Report) error { cancel(); return nil }); err != context.Canceled {
		t.Errorf("%v", err)
	}
}

// TestKeys: what is in a file of keys, and what is none.
func TestKeys(t *testing.T) {
	keys, failure := Keys(strings.NewReader("a.example\r\n  # comment\n\n b.example # ours\n[c.example]:587\ntwo words"))
	if got := slices.Collect(iter.Seq[string](keys)); !slices.Equal(got, []string{"a.example", "b.example", "[c.example]:587", "two words"}) || failure() != nil {
		t.Errorf("%q, %v", got, failure())
	}
	keys, failure = Keys(badReader{})
	for range keys {
		t.Error("a key of nothing")
	}
	if failure() == nil {
		t.Error("that nothing can be read is not told")
	}
}

type badReader struct{}

func (badReader) Read([]byte) (int, error) { return 0, errors.New("broken") }

// TestSilence: DNS that answers nothing, or nonsense, ends in a report and in
// bounded time.
func TestSilence(t *testing.T) {
	for _, fault := range []string{"!silent * *", "!garbage * *", "!truncate-notcp * *", "!refused * *", "!formerr * *"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			k := world(t, "timeout 1s\n", "-- dns --\n"+fault+"\n")
			k.c.Timeout = k.c.Timeout / 5 // so that silence ends, too
			if r := k.Check(t.Context(), "example.com"); r.Verdict != Unknown && r.Verdict != Refused || r.Policy != nil {
				t.Errorf("%v: %s", r.Verdict, r.Screen(Style{}))
			}
		})
	}
}

// TestColours: a Screen and a Row in colour have the same text as without.
func TestColours(t *testing.T) {
	r := world(t, "", "").Check(t.Context(), "example.com")
	r.add(Finding{ID: "STS-P14", Severity: Warn, Who: Them, Seen: "x", Fix: "Y."})
	r.Verdict = Warnings
	for plain, coloured := range map[string]string{r.Screen(Style{}): r.Screen(Style{Colour: true}), r.Row(Style{}): r.Row(Style{Colour: true})} {
		if strings.Contains(plain, "\x1b") || !strings.Contains(coloured, "\x1b[33m") || stripped(coloured) != plain {
			t.Errorf("%q is in colour %q", plain, coloured)
		}
	}
	if text := r.Screen(Style{Brief: true}); strings.Contains(text, "[OK]") || !strings.Contains(text, "[WARN] STS-P14") {
		t.Errorf("brief: %s", text)
	}
}

// stripped is text without colours.
func stripped(text string) string {
	for _, code := range []string{"\x1b[m", "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[33m", "\x1b[1;31m"} {
		text = strings.ReplaceAll(text, code, "")
	}
	return text
}

// TestRow: a row has 80 columns, whatever is in it.
func TestRow(t *testing.T) {
	for _, key := range []string{"a.example", strings.Repeat("ü", 70)} {
		r := &Report{Key: cut(key, 60), Verdict: Refused}
		r.add(Finding{ID: "STS-A02", Severity: Fail, Seen: strings.Repeat("long ", 40)})
		if n := len([]rune(r.Row(Style{}))); n > 90 || n < 80 {
			t.Errorf("%d columns: %s", n, r.Row(Style{}))
		}
	}
}

// TestCatalogue: every check has a name, a title and a text, and is found.
func TestCatalogue(t *testing.T) {
	seen := make(map[string]bool)
	for _, e := range Catalogue() {
		if seen[e.ID] || len(e.ID) != len("STS-A01") || e.Title == "" || e.Text == "" || strings.HasSuffix(e.Title, ".") {
			t.Errorf("%+v", e)
		}
		seen[e.ID] = true
		for _, name := range []string{e.ID, strings.ToLower(e.ID), e.ID[len(prefix):]} {
			if found, ok := Lookup(name); !ok || found != e {
				t.Errorf("%s is %+v", name, found)
			}
		}
	}
	if _, ok := Lookup("STS-X01"); ok {
		t.Error("there is a check that there is not")
	}
}

// TestWorse: that mail is refused is worse than not to know, and that than a
// warning.
func TestWorse(t *testing.T) {
	order := []Verdict{Fine, Warnings, Unknown, Refused}
	for i, v := range order {
		for j, w := range order {
			if got := v.Worse(w); got != order[max(i, j)] {
				t.Errorf("%v and %v: %v", v, w, got)
			}
		}
	}
}

// FuzzPrintable: whatever comes in, what goes out does nothing to a terminal, is
// not too long, and what is fit to be printed stays as it is.
func FuzzPrintable(f *testing.F) {
	for _, s := range []string{"plain", "a\x1b[31mb", "\u009b", "\xff\xfe", "\u202e", strings.Repeat("ü", 2000), `"\`, "\ufffd"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		out := printable(s)
		if len(out) > most {
			t.Fatalf("%d bytes", len(out))
		}
		for _, r := range out {
			if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
				t.Fatalf("%q became %q", s, out)
			}
		}
		if again := printable(out); again != out {
			t.Fatalf("%q became %q", out, again)
		}
	})
}

// FuzzCheckText: whatever a policy host serves and a record contains, the
// findings are printable and fit a terminal of 80 columns and JSON.
func FuzzCheckText(f *testing.F) {
	n, err := fakenet.Start("", fakenet.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(n.Close)
	for _, s := range []string{"version: STSv1\nmode: enforce\nmx: *.com\nmax_age: 1\n", "<html>", "nmx: \x1b", "\xff", "mx: a\nmx: b\nmode: none\nmode: x\n\n\n"} {
		f.Add(s, "v=STSv1; id=a\x1b")
	}
	f.Fuzz(func(t *testing.T, policy, record string) {
		l := &look{Checker: New(Config{}), Report: &Report{}, text: policy, visited: true}
		l.hop.Domain = "example.com"
		l.judgeText()
		rua, wrong := parseTLSRPT(record)
		l.info("STS-T01", "%s %s", several(rua), wrong)
		for _, seen := range l.Findings {
			if text := seen.Seen + seen.Why + seen.Fix; printable(seen.Seen) != seen.Seen || strings.ContainsFunc(text, unicode.IsControl) {
				t.Fatalf("%q", seen)
			}
		}
		if _, err := json.Marshal(l.Report); err != nil || len(l.Screen(Style{})) == 0 {
			t.Fatal(err)
		}
	})
}

// TestRemembering: the check that the resolver validates is made once, or now
// and then while it has no result, and not for each domain.
func TestRemembering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		answer := errors.New("nobody knows")
		validates := remembering(func(context.Context) error {
			asked++
			return answer
		})
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if err := validates(t.Context()); err == nil {
					t.Error("it is known")
				}
			})
		}
		all.Wait()
		time.Sleep(again)
		answer = nil
		for range 3 {
			if err := validates(t.Context()); err != nil || asked != 2 {
				t.Errorf("asked %d times: %v", asked, err)
			}
			time.Sleep(2 * again)
		}
	})
}
