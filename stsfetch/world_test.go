package stsfetch

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"stsmap/internal/fakenet"
	"stsmap/resolver"
	"stsmap/sts"
)

// A world is a small internet, and a record of what was dialed in it.
type world struct {
	*fakenet.Net
	silent string // prefix of addresses that do not answer; empty for none

	mu      sync.Mutex
	dialled []string // hosts, in order
}

// policyText is the policy that every host of these tests has.
const policyText = "version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 86400\n"

func newWorld(t *testing.T, description string) *world {
	t.Helper()
	n, err := fakenet.Start(description+"\n-- policy/p --\n"+policyText, fakenet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return &world{Net: n}
}

// dial records the address. A silent address is one whose packets are lost.
func (w *world) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.dialled = append(w.dialled, host)
	w.mu.Unlock()
	if w.silent != "" && strings.HasPrefix(host, w.silent) {
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Net: network, Err: ctx.Err()}
	}
	return w.Dial(ctx, network, addr)
}

// fetcher returns a Fetcher in w; c has what differs from the usual.
func (w *world) fetcher(t *testing.T, c Config) *Fetcher {
	t.Helper()
	r, err := resolver.New(resolver.Config{Servers: []string{w.DNSAddr()}, Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	c.Resolver = r
	if c.Roots == nil {
		c.Roots = w.Roots()
	}
	if c.Dial == nil {
		c.Dial = w.dial
	}
	if c.Timeout == 0 {
		c.Timeout = time.Minute
	}
	f, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// loopback is what most tests have to allow.
func loopback() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
}

// fetch downloads the policy of example.com; whatever goes wrong is an *Error
// about example.com, with nothing beside it.
func fetch(t *testing.T, f *Fetcher) *Error {
	t.Helper()
	text, p, err := f.Policy(t.Context(), "example.com")
	if err == nil {
		if text != policyText || p == nil || p.Mode != sts.Enforce {
			t.Errorf("got %q, %+v", text, p)
		}
		return nil
	}
	return checkError(t, text, p, err)
}

func checkError(t *testing.T, text string, p *sts.Policy, err error) *Error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("error is %T: %v", err, err)
	}
	if text != "" || p != nil {
		t.Errorf("beside an error: %q, %+v", text, p)
	}
	if e.Domain != "example.com" || e.Err == nil || e.Error() == "" || !errors.Is(err, e.Err) {
		t.Errorf("incomplete error: %+v", e)
	}
	return e
}

// want fails unless e is about step and says text; an empty step is success.
func want(t *testing.T, e *Error, step Step, text string) {
	t.Helper()
	switch {
	case e == nil && step != "":
		t.Errorf("succeeded, want %s: %s", step, text)
	case e != nil && (step != e.Step || !strings.Contains(e.Error(), text)):
		t.Errorf("got %s: %s\nwant %s: %s", e.Step, e, step, text)
	}
}
