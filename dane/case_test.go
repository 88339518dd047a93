package dane

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"stsmap/internal/fakenet"
	"stsmap/resolver"
)

// TestCases runs the files in testdata, which testdata/README explains, against a
// real name server and with the real resolver.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			play(t, ar)
		})
	}
}

func play(t *testing.T, ar *txtar.Archive) {
	if len(strings.TrimSpace(string(ar.Comment))) == 0 {
		t.Fatal("the case has no description")
	}
	section := make(map[string]string)
	for _, f := range ar.Files {
		switch f.Name {
		case "dns", "timeout", "ask", "want", "queries":
			section[f.Name] = string(f.Data)
		default:
			t.Fatalf("section %q", f.Name)
		}
	}
	world, err := fakenet.Start("-- dns --\n"+section["dns"], fakenet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer world.Close()
	timeout := time.Minute // no case takes this long
	if s := strings.TrimSpace(section["timeout"]); s != "" {
		if timeout, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	r, err := resolver.New(resolver.Config{Servers: []string{world.DNSAddr()}, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, hop := range strings.Fields(section["ask"]) {
		res, err := Check(t.Context(), r, nextHop(t, hop))
		got.WriteString(hop + ": " + show(t, res, err))
	}
	text := strings.ReplaceAll(got.String(), world.DNSAddr(), "dns")
	if diff := cmp.Diff(section["want"], text); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	for line := range strings.Lines(section["queries"]) {
		f := strings.Fields(line) // [NAME] TYPE N
		n, err := strconv.Atoi(f[len(f)-1])
		if err != nil {
			t.Fatal(err)
		}
		name := strings.Join(f[:len(f)-2], "")
		if got := world.Queries(name, f[len(f)-2]); got != n {
			t.Errorf("%d questions for %s, want %d", got, strings.Join(f[:len(f)-1], " "), n)
		}
	}
}

// nextHop reads what NextHop.String writes.
func nextHop(t *testing.T, s string) NextHop {
	t.Helper()
	var hop NextHop
	host, port, ok := strings.Cut(s, ":")
	if ok {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			t.Fatal(err)
		}
		hop.Port = uint16(n)
	}
	hop.Domain = strings.Trim(host, "[]")
	hop.NoMX = hop.Domain != host
	if hop.String() != s {
		t.Fatalf("next-hop %q comes back as %q", s, hop)
	}
	return hop
}

// show returns a result as text, and checks what is true of every one.
func show(t *testing.T, res Result, err error) string {
	t.Helper()
	if err != nil {
		if _, ok := errors.AsType[*resolver.Error](err); !ok {
			t.Errorf("error of type %T: %v", err, err)
		}
		if diff := cmp.Diff(Result{}, res); diff != "" {
			t.Errorf("a result beside the error: %s", diff)
		}
		return fmt.Sprintf("error: %v\n", err)
	}
	if res.NoMail != (len(res.Hosts) == 0) {
		t.Errorf("no mail is %v, with hosts %v", res.NoMail, res.Hosts)
	}
	var b strings.Builder
	b.WriteString(res.TTL.String())
	if res.MXSecure {
		b.WriteString(" secure")
	}
	if res.NoMail {
		b.WriteString(" no-mail")
	}
	b.WriteByte('\n')
	for _, h := range res.Hosts {
		fmt.Fprintf(&b, "  %s %s", h.Name, h.State)
		if h.Base != "" {
			b.WriteString(" at " + h.Base)
		}
		if h.Err != nil {
			fmt.Fprintf(&b, ": %v", h.Err)
		}
		b.WriteByte('\n')
		_, failed := errors.AsType[*resolver.Error](h.Err)
		if failed != (h.State == Failed || h.State == Unresolved) || (h.Err != nil) != (failed || h.State == Unusable) {
			t.Errorf("%s is %s with error %v", h.Name, h.State, h.Err)
		}
		if (h.Base != "") != (h.State == Usable || h.State == Unusable) {
			t.Errorf("%s is %s with base %q", h.Name, h.State, h.Base)
		}
	}
	return b.String()
}

// TestFailUnresolved checks that hosts last known to be usable count as failed
// when they are unresolved, and that the result itself stays as it is.
func TestFailUnresolved(t *testing.T) {
	err := &resolver.Error{Kind: resolver.ServFail}
	r := Result{MXSecure: true, Hosts: []Host{
		{Name: "mx1.example", State: Unresolved, Err: err},
		{Name: "mx2.example", State: Unresolved, Err: err},
		{Name: "mx3.example", State: None},
	}}
	want := Result{MXSecure: true, Hosts: []Host{
		{Name: "mx1.example", State: Unresolved, Err: err},
		{Name: "mx2.example", State: Failed, Err: err},
		{Name: "mx3.example", State: None},
	}}
	if diff := cmp.Diff(want, r.FailUnresolved([]string{"mx2.example", "mx3.example"})); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	if n := r.Count(Unresolved); n != 2 {
		t.Errorf("%d hosts of the argument are unresolved, want 2", n)
	}
}

// TestNextHop checks the canonical text of a next-hop.
func TestNextHop(t *testing.T) {
	for want, hop := range map[string]NextHop{
		"example.com":         {Domain: "example.com", Port: 25},
		"example.com:587":     {Domain: "example.com", Port: 587},
		"[relay.example]":     {Domain: "relay.example", NoMX: true},
		"[relay.example]:587": {Domain: "relay.example", Port: 587, NoMX: true},
	} {
		if got := hop.String(); got != want {
			t.Errorf("%#v is %q, want %q", hop, got, want)
		}
	}
}

// TestStates checks the words that logs and JSON have.
func TestStates(t *testing.T) {
	got := fmt.Sprint(None, Usable, Unusable, Failed, NoAddress, Unresolved, State(9))
	if want := "none usable unusable failed absent unresolved State(9)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestEnded checks that Check sends no query and returns at once if the context
// has ended: every host is failed.
func TestEnded(t *testing.T) {
	world, err := fakenet.Start("-- dns --\nmx.example. A 192.0.2.1\n", fakenet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer world.Close()
	r, err := resolver.New(resolver.Config{Servers: []string{world.DNSAddr()}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	res, err := Check(ctx, r, NextHop{Domain: "mx.example", NoMX: true})
	if got, want := show(t, res, err), "0s secure\n  mx.example failed: mx.example A: not asked: context canceled\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := Check(ctx, r, NextHop{Domain: "example"}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if n := world.Queries("", ""); n != 0 {
		t.Errorf("%d questions", n)
	}
}
