package stsfetch

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestAddresses: which addresses of a policy host are dialled, in which order,
// and the error if none can be used. All policy hosts here serve the
// same policy; a world has no address by itself that is public, but 9.9.9.x
// are, as far as can be told from an address.
func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		name    string
		addrs   string // of the policy host, in the order of the answer
		down    string // those of them where nothing listens
		silent  string // prefix of those that do not answer
		allow   string
		dialled string // those that may be dialled, at most; in this order
		step    Step
		text    string
	}{
		{name: "one", addrs: "9.9.9.1", dialled: "9.9.9.1"},
		{name: "first refuses", addrs: "9.9.9.1 9.9.9.2", down: "9.9.9.1", dialled: "9.9.9.1 9.9.9.2"},
		{name: "first is silent", addrs: "9.9.9.1 9.9.9.2", silent: "9.9.9.1", dialled: "9.9.9.1 9.9.9.2"},
		{name: "IPv6 is dead", addrs: "2620:fe::1 2620:fe::2 9.9.9.1", silent: "2620:", dialled: "2620:fe::1 9.9.9.1 2620:fe::2"},
		{name: "IPv6 refuses", addrs: "2620:fe::1 9.9.9.1", down: "2620:fe::1", dialled: "2620:fe::1 9.9.9.1"},
		{name: "families take turns", addrs: "9.9.9.1 9.9.9.2 2620:fe::1 2620:fe::2", down: "2620:fe::1 2620:fe::2 9.9.9.1",
			dialled: "2620:fe::1 9.9.9.1 2620:fe::2 9.9.9.2"},
		{name: "all refuse", addrs: "9.9.9.1 9.9.9.2", down: "9.9.9.1 9.9.9.2", dialled: "9.9.9.1 9.9.9.2",
			step: StepConnect, text: "connection refused"},
		{name: "one is private", addrs: "127.0.0.1", step: StepBlocked,
			text: "127.0.0.1 is not a public address; fetch.allow_private can allow it"},
		{name: "all are private", addrs: "10.0.0.1 192.168.0.1 127.0.0.1 fd00::1", step: StepBlocked, text: "is not a public address"},
		{name: "mapped", addrs: "::ffff:127.0.0.1", step: StepBlocked, text: "is not a public address"},
		{name: "some are private", addrs: "10.0.0.1 9.9.9.1", dialled: "9.9.9.1"},
		{name: "private or refusing", addrs: "10.0.0.1 9.9.9.1", down: "9.9.9.1", dialled: "9.9.9.1", step: StepConnect, text: "connection refused"},
		{name: "refusing or private", addrs: "2620:fe::1 127.0.0.1", down: "2620:fe::1", dialled: "2620:fe::1", step: StepConnect, text: "connection refused"},
		{name: "private and allowed", addrs: "127.0.0.2", allow: "127.0.0.0/8", dialled: "127.0.0.2"},
		{name: "private and another allowed", addrs: "127.0.0.2", allow: "10.0.0.0/8", step: StepBlocked, text: "127.0.0.2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, addressWorld(c.addrs, c.down))
			w.silent = c.silent
			var allow []netip.Prefix
			if c.allow != "" {
				allow = append(allow, netip.MustParsePrefix(c.allow))
			}
			e := fetch(t, w.fetcher(t, Config{AllowPrivate: allow}))
			want(t, e, c.step, c.text)
			// A slow machine may dial more before the first answers, but
			// never others and never in another order.
			may := strings.Fields(c.dialled)
			if len(w.dialled) > len(may) || !slices.Equal(w.dialled, may[:len(w.dialled)]) || len(w.dialled) == 0 && len(may) > 0 {
				t.Errorf("dialled %q, want %q", w.dialled, may)
			}
		})
	}
}

// addressWorld has a policy host at addrs, some of them down.
func addressWorld(addrs, down string) string {
	var dns, https strings.Builder
	for _, a := range strings.Fields(addrs) {
		kind, word := "A", "policy=p"
		if strings.Contains(a, ":") {
			kind = "AAAA"
		}
		if slices.Contains(strings.Fields(down), a) {
			word = "down"
		}
		fmt.Fprintf(&dns, "mta-sts.example.com. %s %s\n", kind, a)
		fmt.Fprintf(&https, "mta-sts.example.com addr=%s %s\n", a, word)
	}
	return "-- dns --\n" + dns.String() + "-- https --\n" + https.String()
}

// TestConnectBudget: connecting may take its part of the timeout, also if nothing
// answers at several addresses, and the fetch ends then.
func TestConnectBudget(t *testing.T) {
	const timeout = 3 * time.Second
	for _, addrs := range []string{"9.9.9.1", "9.9.9.1 9.9.9.2 9.9.9.3"} {
		w := newWorld(t, addressWorld(addrs, ""))
		w.silent = "9.9.9."
		f := w.fetcher(t, Config{Timeout: timeout, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			latest := time.Now().Add(timeout / budgetShare)
			if deadline, ok := ctx.Deadline(); !ok || deadline.After(latest) {
				t.Errorf("%s may be dialled until %v, after %v", addr, deadline, latest)
			}
			return w.dial(ctx, network, addr)
		}})
		want(t, fetch(t, f), StepTimeout, "connect: timed out")
	}
}

// TestManyAddresses: a name with a hundred addresses costs only a few
// connections.
func TestManyAddresses(t *testing.T) {
	var addrs []string
	for i := range 100 {
		addrs = append(addrs, fmt.Sprintf("9.9.9.%d", i+1))
	}
	all := strings.Join(addrs, " ")
	w := newWorld(t, addressWorld(all, all))
	want(t, fetch(t, w.fetcher(t, Config{})), StepConnect, "connection refused")
	if len(w.dialled) != maxAddrs {
		t.Errorf("%d addresses dialled, want %d", len(w.dialled), maxAddrs)
	}
}

// TestSilence: if no address answers, the fetch times out.
func TestSilence(t *testing.T) {
	for _, addrs := range []string{"9.9.9.1", "9.9.9.1 9.9.9.2 9.9.9.3"} {
		w := newWorld(t, addressWorld(addrs, ""))
		w.silent = "9.9.9."
		want(t, fetch(t, w.fetcher(t, Config{Timeout: time.Second})), StepTimeout, "connect: timed out")
	}
}

// TestRebinding: the address that was checked is the address that is dialled.
// There is one look-up, and the dialler never sees a name.
func TestRebinding(t *testing.T) {
	w := newWorld(t, addressWorld("9.9.9.1", ""))
	f := w.fetcher(t, Config{})
	want(t, fetch(t, f), "", "")
	if a, aaaa := w.Queries("mta-sts.example.com", "A"), w.Queries("mta-sts.example.com", "AAAA"); a != 1 || aaaa != 1 {
		t.Errorf("%d questions for A and %d for AAAA, want one each", a, aaaa)
	}
	if !slices.Equal(w.dialled, []string{"9.9.9.1"}) {
		t.Errorf("dialled %q, want the address", w.dialled)
	}
	if err := w.Update(addressWorld("127.0.0.1", "") + "-- policy/p --\n" + policyText); err != nil {
		t.Fatal(err)
	}
	want(t, fetch(t, f), StepBlocked, "127.0.0.1 is not a public address")
	if len(w.dialled) != 1 {
		t.Errorf("dialled %q", w.dialled)
	}
}

// TestAliases: a CNAME changes the address, and neither the name in the
// certificate nor the rules about addresses (RFC 8461, Section 8.2).
func TestAliases(t *testing.T) {
	const alias = "-- dns --\nmta-sts.example.com. CNAME host.prov.example.\nhost.prov.example. A %s\n-- https --\nmta-sts.example.com addr=%[1]s policy=p\n"
	w := newWorld(t, fmt.Sprintf(alias, "9.9.9.1"))
	want(t, fetch(t, w.fetcher(t, Config{})), "", "")
	w = newWorld(t, fmt.Sprintf(alias, "127.0.0.1"))
	want(t, fetch(t, w.fetcher(t, Config{})), StepBlocked, "127.0.0.1")
	w = newWorld(t, fmt.Sprintf(strings.Replace(alias, "policy=p", "policy=p cert=name=host.prov.example", 1), "9.9.9.1"))
	want(t, fetch(t, w.fetcher(t, Config{})), StepCert, `certificate is not valid for mta-sts.example.com, only for "host.prov.example"`)
}

// TestNames: the error if the policy host has no address.
func TestNames(t *testing.T) {
	for _, c := range []struct {
		dns  string
		step Step
		text string
	}{
		{"example.com. A 9.9.9.1", StepDNS, "mta-sts.example.com does not exist"},
		{`mta-sts.example.com. TXT "x"`, StepDNS, "mta-sts.example.com has no address"},
		{"!servfail mta-sts.example.com", StepDNS, "SERVFAIL"},
		{"!refused mta-sts.example.com", StepDNS, "REFUSED"},
		{"mta-sts.example.com. CNAME mta-sts.example.com.", StepDNS, "CNAME"},
	} {
		w := newWorld(t, "-- dns --\n"+c.dns+"\n")
		want(t, fetch(t, w.fetcher(t, Config{})), c.step, c.text)
		if len(w.dialled) > 0 {
			t.Errorf("%s: dialled %q", c.dns, w.dialled)
		}
	}
}
