package stsfetch

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestNAT64Prefixes: the prefix is found at every length of RFC 6052, Section 2.2,
// and nothing else is taken for one.
func TestNAT64Prefixes(t *testing.T) {
	for addrs, want := range map[string]string{
		"192.0.0.170 192.0.0.171":                       "",
		"64:ff9b::192.0.0.170 64:ff9b::192.0.0.171":     "64:ff9b::/96",
		"2a00:64::192.0.0.170 192.0.0.170":              "2a00:64::/96",
		"2001:db8:c000:aa::":                            "2001:db8::/32",
		"2001:db8:1c0:0:aa::":                           "2001:db8:100::/40",
		"2001:db8:122:c000:0:aa00::":                    "2001:db8:122::/48",
		"2001:db8:122:3c0:0:aa::":                       "2001:db8:122:300::/56",
		"2001:db8:122:344:c0:0:aa00:0":                  "2001:db8:122:344::/64",
		"fd00:64::192.0.0.171 64:ff9b:1::192.0.0.170":   "fd00:64::/96 64:ff9b:1::/96",
		"2a00:64::192.0.0.172 2a00::1":                  "",
		"::192.0.0.170 ::ffff:192.0.0.170":              "",
		"fe80::192.0.0.170 ff02::192.0.0.170":           "",
		"2a00:64::192.0.0.170%eth0 ::ffff:0:192.0.0.17": "",
	} {
		var all []netip.Addr
		for addr := range strings.FieldsSeq(addrs) {
			all = append(all, netip.MustParseAddr(addr))
		}
		got := strings.Trim(fmt.Sprint(nat64Prefixes(all)), "[]")
		if got != want {
			t.Errorf("%s: %s, want %s", addrs, got, want)
		}
	}
}

// TestNAT64: an address in the prefix of this network is dialled if the IPv4 address
// that it carries is public, and not otherwise.
func TestNAT64(t *testing.T) {
	for _, c := range []struct{ prefix, addr, step string }{
		{"2a00:64::192.0.0.170", "2a00:64::9.9.9.1", ""},
		{"2a00:64::192.0.0.170", "2a00:64::10.0.0.1", "blocked"},
		{"2a00:64::192.0.0.170", "2a00:64::127.0.0.1", "blocked"},
		{"2a00:64::192.0.0.170", "2a00:65::10.0.0.1", ""}, // another network
		{"", "2a00:64::10.0.0.1", ""},                     // no NAT64 here
		{"fd00:64::192.0.0.170", "fd00:64::9.9.9.1", ""},
		{"fd00:64::192.0.0.170", "fd00:64::192.168.0.1", "blocked"},
		{"fd00:64::192.0.0.170", "fd00:65::9.9.9.1", "blocked"},
		{"64:ff9b:1:a00::192.0.0.170", "64:ff9b:1:a00::9.9.9.1", ""}, // a known length is not guessed
		{"64:ff9b:1:a00::192.0.0.170", "64:ff9b:1:a00::10.0.0.1", "blocked"},
		{"", "64:ff9b::9.9.9.1", ""},
		{"", "64:ff9b::10.0.0.1", "blocked"},
	} {
		t.Run(c.prefix+" "+c.addr, func(t *testing.T) {
			t.Parallel()
			text := addressWorld(netip.MustParseAddr(c.addr).String(), "")
			if c.prefix != "" {
				text = strings.Replace(text, "-- dns --\n", "-- dns --\nipv4only.arpa. AAAA "+netip.MustParseAddr(c.prefix).String()+"\nipv4only.arpa. A 192.0.0.170\n", 1)
			}
			w := newWorld(t, text)
			f := w.fetcher(t, Config{})
			for range 2 {
				want(t, fetch(t, f), Step(c.step), map[bool]string{true: "is not a public address"}[c.step != ""])
			}
			if n := w.Queries("ipv4only.arpa", "AAAA"); n != 1 {
				t.Errorf("%d questions about ipv4only.arpa, want 1: the answer is cached", n)
			}
		})
	}
}

// TestNAT64Asked: a fetch from IPv4 addresses needs no prefix.
func TestNAT64Asked(t *testing.T) {
	w := newWorld(t, addressWorld("9.9.9.1", ""))
	want(t, fetch(t, w.fetcher(t, Config{})), "", "")
	if n := w.Queries("ipv4only.arpa", ""); n != 0 {
		t.Errorf("%d questions about ipv4only.arpa", n)
	}
}

// TestNAT64Failure: if the lookup fails, the last prefixes stay, and it is repeated
// later; many fetches at once make one lookup.
func TestNAT64Failure(t *testing.T) {
	const prefix = "-- dns --\nipv4only.arpa. AAAA 2a00:64::c000:aa\n"
	w := newWorld(t, prefix)
	n := w.fetcher(t, Config{}).nat64
	want := []netip.Prefix{netip.MustParsePrefix("2a00:64::/96")}
	var finds sync.WaitGroup
	for range 20 {
		finds.Go(func() {
			if got := n.find(t.Context()); !slices.Equal(got, want) {
				t.Errorf("found %v, want %v", got, want)
			}
		})
	}
	finds.Wait()
	if asked := w.Queries("ipv4only.arpa", "AAAA"); asked != 1 {
		t.Errorf("%d questions, want 1", asked)
	}
	if err := w.Update("-- dns --\n!servfail ipv4only.arpa\n"); err != nil {
		t.Fatal(err)
	}
	n.until = time.Time{}
	if got := n.find(t.Context()); !slices.Equal(got, want) {
		t.Errorf("after a failure %v, want %v", got, want)
	}
	if wait := time.Until(n.until); wait <= 0 || wait > minPrefixAge {
		t.Errorf("the lookup is repeated after %v, want at most %v", wait, minPrefixAge)
	}
}

// TestSpecialTable: the table of IANA has a date, and every line is one of it.
func TestSpecialTable(t *testing.T) {
	if !regexp.MustCompile(`as published on 20\d\d-\d\d-\d\d:`).MatchString(specialTable) || strings.Count(specialTable, "https://www.iana.org/") != 2 {
		t.Error("the table does not say of when it is, and where from")
	}
	blocks, line := 0, regexp.MustCompile(`^\S+/\d+ +(True|False|N/A|-) +\S.*$`)
	for text := range strings.Lines(specialTable) {
		if text = strings.TrimSuffix(text, "\n"); text == "" || text[0] == '#' {
			continue
		}
		blocks++
		if p, err := netip.ParsePrefix(strings.Fields(text)[0]); !line.MatchString(text) || err != nil || p != p.Masked() {
			t.Errorf("bad line %q: %v", text, err)
		}
	}
	if g := newGuard(); blocks < 50 || len(g.special) != blocks {
		t.Errorf("%d blocks in the table, %d in the guard", blocks, len(g.special))
	}
}
