package stsfetch

import (
	"net/netip"
	"os"
	"strings"
	"testing"
)

// TestPublic runs testdata/addresses.txt.
func TestPublic(t *testing.T) {
	data, err := os.ReadFile("testdata/addresses.txt")
	if err != nil {
		t.Fatal(err)
	}
	cases, g := 0, newGuard()
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0][0] == '#' {
			continue
		}
		if len(words) < 2 || words[1] != "yes" && words[1] != "no" {
			t.Fatalf("bad line %q", line)
		}
		addr, err := netip.ParseAddr(words[0])
		if err != nil {
			t.Fatal(err)
		}
		cases++
		if got, want := g.public(addr, nil), words[1] == "yes"; got != want {
			t.Errorf("%s: %t, want %t (%s)", addr, got, want, strings.Join(words[2:], " "))
		}
	}
	if cases == 0 {
		t.Fatal("no cases")
	}
}

// TestAllows: an IPv4 network opens its IPv4-mapped addresses, and nothing
// else.
func TestAllows(t *testing.T) {
	f := &Fetcher{allowed: []netip.Prefix{
		netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/32"), netip.MustParsePrefix("192.168.7.7/32"),
	}}
	for addr, want := range map[string]bool{
		"10.1.2.3": true, "10.2.0.0": false, "10.0.255.255": false, "::ffff:10.1.2.3": true, "::ffff:10.2.0.1": false,
		"64:ff9b::10.1.2.3": false, "2002:a01:203::1": false,
		"fd00:1::1": true, "fd00:2::1": false, "192.168.7.7": true, "192.168.7.8": false, "127.0.0.1": false, "::1": false,
	} {
		if got := f.allows(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %t, want %t", addr, got, want)
		}
	}
	if new(Fetcher).allows(netip.MustParseAddr("127.0.0.1")) {
		t.Error("without networks 127.0.0.1 is allowed")
	}
}
