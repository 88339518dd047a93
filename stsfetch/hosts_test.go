package stsfetch

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestHosts runs testdata/hosts.txt.
func TestHosts(t *testing.T) {
	data, err := os.ReadFile("testdata/hosts.txt")
	if err != nil {
		t.Fatal(err)
	}
	results := map[string]string{
		"fetch": "sts-policy-fetch-error", "invalid": "sts-policy-invalid", "webpki": "sts-webpki-invalid",
	}
	cases := 0
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		words, wanted, ok := strings.Cut(line, " => ")
		class, text, hasText := strings.Cut(wanted, ":")
		step, result, _ := strings.Cut(class, " ")
		if !ok || wanted != "ok" && (!hasText || results[result] == "") {
			t.Fatalf("bad line %q", line)
		}
		if wanted == "ok" {
			step, result = "", ""
		}
		cases++
		t.Run(words, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, hostWorld(words))
			e := fetch(t, w.fetcher(t, Config{AllowPrivate: loopback()}))
			want(t, e, Step(step), strings.TrimSpace(text))
			if e != nil && e.Result() != results[result] {
				t.Errorf("result %s, want %s", e.Result(), results[result])
			}
			if n := w.Requests("mta-sts.example.com"); n > 1 {
				t.Errorf("%d requests", n)
			}
			if len(w.dialled) != 1 {
				t.Errorf("dialled %q, want one address once", w.dialled)
			}
		})
	}
	if cases == 0 {
		t.Fatal("no cases")
	}
}

func hostWorld(words string) string {
	return "-- dns --\n_mta-sts.example.com. TXT \"v=STSv1; id=A;\"\nmta-sts.example.com. A 127.0.0.2\n" +
		"-- https --\nmta-sts.example.com addr=127.0.0.2 " + words + "\n" +
		"-- policy-quoted/empty --\n\"\"\n-- policy/html --\n<html>no policy</html>\n"
}

// TestSize: MaxSize is the last size that is accepted.
func TestSize(t *testing.T) {
	for _, words := range []string{"", " chunked"} {
		w := newWorld(t, hostWorld("policy=p"+words))
		c := Config{AllowPrivate: loopback(), MaxSize: len(policyText)}
		want(t, fetch(t, w.fetcher(t, c)), "", "")
		c.MaxSize--
		want(t, fetch(t, w.fetcher(t, c)), StepTooLarge, fmt.Sprintf("more than %d", c.MaxSize))
	}
}

// TestStalls: wherever a host stops answering, the fetch times out, with that
// reason.
func TestStalls(t *testing.T) {
	for _, words := range []string{
		"stall=accept", "policy=p stall=tls", "policy=p stall=headers", "policy=p stall=body", "policy=p stall=body chunked",
		"policy=p drip=10s", "policy=p delay=5m", "policy=p size=65536 drip=1ms",
	} {
		t.Run(words, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, hostWorld(words))
			e := fetch(t, w.fetcher(t, Config{AllowPrivate: loopback(), Timeout: time.Second}))
			want(t, e, StepTimeout, ": timed out")
			if e != nil && e.Result() != "sts-policy-fetch-error" {
				t.Errorf("result %s", e.Result())
			}
		})
	}
	t.Run("dns", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, hostWorld("policy=p")+"-- policy/q --\n")
		if err := w.Update("-- dns --\n!silent mta-sts.example.com\n"); err != nil {
			t.Fatal(err)
		}
		e := fetch(t, w.fetcher(t, Config{AllowPrivate: loopback(), Timeout: time.Second}))
		want(t, e, StepTimeout, "dns: timed out")
	})
}

// TestCancel: a caller that gives up gets an answer, although the host says
// nothing, and the connection is closed.
func TestCancel(t *testing.T) {
	for _, words := range []string{"stall=accept", "policy=p stall=tls", "policy=p stall=headers", "policy=p stall=body"} {
		t.Run(words, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, hostWorld(words))
			ctx, cancel := context.WithCancel(t.Context())
			f := w.fetcher(t, Config{AllowPrivate: loopback(), Timeout: time.Hour})
			// At some time during the retrieval, whichever.
			time.AfterFunc(50*time.Millisecond, cancel)
			text, p, err := f.Policy(ctx, "example.com")
			if err == nil {
				t.Fatalf("got %q", text)
			}
			checkError(t, text, p, err)
		})
	}
	t.Run("before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w := newWorld(t, hostWorld("policy=p"))
		text, p, err := w.fetcher(t, Config{AllowPrivate: loopback()}).Policy(ctx, "example.com")
		if err == nil {
			t.Fatalf("got %q", text)
		}
		checkError(t, text, p, err)
		if n := w.Requests("mta-sts.example.com"); n != 0 {
			t.Errorf("%d requests", n)
		}
	})
}
