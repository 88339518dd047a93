package warm

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// plain takes names with a dot in them for policy domains.
func plain(key string) (string, bool) {
	return strings.ToLower(key), strings.Contains(strings.Trim(key, "."), ".")
}

func TestRead(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want List
	}{
		"empty": {"", List{}},
		"list": {
			"# those of last year\nb.example\n\n  A.example\t3 of them\nb.example again\nnonsense\nc.example",
			List{Domains: []string{"b.example", "a.example", "c.example"}, Bad: []BadLine{{6, "nonsense"}}},
		},
		"log": {
			`2026-11-01T10:00:00.1+01:00 mx postfix/smtp[12]: 4A: to=<x@once.example>, relay=mx.once.example[192.0.2.1]:25, delay=1, dsn=2.0.0, status=sent (250 ok)
Nov  1 10:00:01 mx postfix/out/smtp[13]: 4B: to=<"a>, b@c"@twice.example>, orig_to=<y@other.example>, relay=none, delay=1, status=deferred (x)
Nov  1 10:00:01 mx postfix/smtp[13]: 4B: to=<y@twice.example>, relay=none, delay=1, status=deferred (to=<q@r.example>)
Nov  1 10:00:01 mx postfix/smtp[13]: connect to mx.example[192.0.2.1]:25: Connection refused
Nov  1 10:00:01 mx postfix/smtpd[14]: NOQUEUE: reject: RCPT from x[192.0.2.7]: 554; from=<> to=<z@ours.example> proto=ESMTP
Nov  1 10:00:01 mx postfix/local[15]: 4C: to=<root@here.example>, relay=local, status=sent
Nov  1 10:00:01 mx sshd[16]: to=<z@no.example>, who knows
`,
			List{Domains: []string{"twice.example", "once.example"}, Messages: 3},
		},
		"rubbish": {
			strings.Repeat("\x00\xff ", 100000) + "\nlong.example " + strings.Repeat("x", 1<<20) + "\r\nz.example\r\n",
			List{Domains: []string{"long.example", "z.example"}, Bad: []BadLine{{1, strings.Repeat("\x00\xff ", 20)}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Read(strings.NewReader(test.text), plain)
			if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
				t.Errorf("%v; -want +got:\n%s", err, diff)
			}
		})
	}
}

func TestReadBadLines(t *testing.T) {
	got, err := Read(strings.NewReader(strings.Repeat("?\n", maxBad+7)), plain)
	if err != nil || len(got.Bad) != maxBad || got.Omitted != 7 {
		t.Errorf("%d bad lines, %d omitted (%v)", len(got.Bad), got.Omitted, err)
	}
	// What came before an error is not lost.
	got, err = Read(io.MultiReader(strings.NewReader("a.example\n"), iotest.ErrReader(io.ErrUnexpectedEOF)), plain)
	if len(got.Domains) != 1 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v, %v", got, err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("Nov  1 mx postfix/smtp[1]: 4A: to=<a@b.example>, relay=none\nx.example\n# no\n")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := Read(strings.NewReader(text), plain)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range list.Domains {
			if _, ok := plain(d); !ok {
				t.Errorf("%q is no domain", d)
			}
		}
	})
}

func TestEach(t *testing.T) {
	var domains []string
	for i := range 100 {
		domains = append(domains, strconv.Itoa(i)+".example")
	}
	var running, most, done atomic.Int32
	retrieve := func(context.Context, string) {
		n := running.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		done.Add(1)
		running.Add(-1)
	}
	Each(t.Context(), domains, retrieve)
	if done.Load() != 100 || most.Load() > AtOnce {
		t.Errorf("%d done, %d at once", done.Load(), most.Load())
	}

	ctx, cancel := context.WithCancel(t.Context())
	done.Store(0)
	Each(ctx, domains, func(ctx context.Context, domain string) { cancel(); retrieve(ctx, domain) })
	if n := done.Load(); n == 0 || n > AtOnce+1 {
		t.Errorf("%d done after the end", n)
	}
}
