package bench

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const (
	dnsAddr = "127.0.0.1:53"
	// delay is that of each answer of the slow servers.
	delay = 20 * time.Millisecond
)

// The kinds of domains there are. Numbers have six digits, so that replies have one size.
const (
	policyNow    = "p%d.now.example"    // a policy, without any delay
	policySlow   = "s%d.slow.example"   // a policy, each answer delayed
	policySilent = "d%d.silent.example" // a record, and a policy host that never answers
	noneNow      = "n%d.none.example"   // no record, without any delay
	noneSlow     = "o%d.late.example"   // no record, the answer delayed
	daneSlow     = "t%d.dane.example"   // like policySlow, with DANE, which takes longer than the policy
	daneHeavy    = "h%d.heavy.example"  // likewise, but the policy takes longer
	neighbour    = "c%d.close.example"  // like policySlow, with a policy host in the network of the attackers
)

// The domains of attackers, whose lookups hang: in DNS for the record, in TCP, TLS or the body at the policy host, or in
// DNS for DANE. Their policy hosts are in one network of 256 addresses.
const (
	hostileOne    = "n%d.evil.example" // of one owner
	hostileMany   = "n%d.o%o.example"  // of hostileOwners
	hostileCount  = 1000               // of either
	hostileOwners = 100
)

// daneHost is the MX host of the domains with DANE.
const daneHost = "mx.signed.example"

// world is the description for package fakenet.
func world() string {
	var dns, https strings.Builder
	fmt.Fprintf(&dns, "-- dns --\n!ad *\n!delay %v %s\n!delay %v _25._tcp.%s\n", delay, daneHost, delay, daneHost)
	fmt.Fprintf(&dns, "%s. A 127.0.0.11\n_25._tcp.%s. TLSA 3 1 1 %064d\n", daneHost, daneHost, 0)
	fmt.Fprint(&https, "-- https --\nmta-sts.silent.example addr=127.0.0.3 stall=accept\n")
	fmt.Fprint(&https, "mta-sts.tcp.evil.example addr=127.0.9.1 stall=accept\n")
	for _, pattern := range []string{hostileOne, hostileMany} {
		for i := range hostileCount {
			name := Series{Pattern: pattern}.domain(i)
			kind := (i + i/hostileOwners) % 5 // each owner has all kinds
			if kind == 0 {
				fmt.Fprintf(&dns, "!silent _mta-sts.%s\n", name)
				continue
			}
			fmt.Fprintf(&dns, "_mta-sts.%s. TXT \"v=STSv1; id=1;\"\nmta-sts.%s. A 127.0.9.%d\n", name, name, kind)
			if kind == 4 {
				fmt.Fprintf(&dns, "!silent %s MX\n", name)
			}
			if kind > 1 {
				stall := []string{2: "stall=tls", 3: "policy=hostile stall=body", 4: "policy=hostile"}[kind]
				fmt.Fprintf(&https, "mta-sts.%s addr=127.0.9.%d %s\n", name, kind, stall)
			}
		}
	}
	const bulk = `-- policy-crlf/hostile --
version: STSv1
mode: enforce
mx: mx.evil.example
max_age: 604800
-- bulk --
policy NEIGHBOUR NUMBERS addr=127.0.9.100 mx=mx%d.mail.example SLOW
policy POLICYNOW NUMBERS addr=127.0.0.2 mx=mx%d.mail.example
policy POLICYSLOW NUMBERS addr=127.0.0.2 mx=mx%d.mail.example SLOW
policy POLICYSILENT NUMBERS addr=127.0.0.3 mx=mx%d.mail.example
none NONENOW NUMBERS
none NONESLOW NUMBERS dnsdelay=DELAY
policy DANESLOW NUMBERS addr=127.0.0.2 mx=DANEHOST SLOW
policy DANEHEAVY NUMBERS addr=127.0.0.2 mx=DANEHOST dnsdelay=DELAY httpdelay=HEAVY
`
	slow := fmt.Sprintf("dnsdelay=%v httpdelay=%v", delay, delay)
	replacer := strings.NewReplacer("NUMBERS", "100000..999999", "SLOW", slow, "DELAY", delay.String(), "HEAVY", (5 * delay).String(),
		"NEIGHBOUR", neighbour, "POLICYNOW", policyNow, "POLICYSLOW", policySlow, "POLICYSILENT", policySilent,
		"NONENOW", noneNow, "NONESLOW", noneSlow, "DANESLOW", daneSlow, "DANEHEAVY", daneHeavy, "DANEHOST", daneHost)
	return dns.String() + https.String() + replacer.Replace(bulk)
}

// Of 100 owners each has 10 names, of every kind that hangs; and fakenet understands the world.
func TestHostileOwners(t *testing.T) {
	names := make(map[string]int)
	for i := range hostileCount {
		_, owner, _ := strings.Cut(Series{Pattern: hostileMany}.domain(i), ".")
		names[owner]++
	}
	if len(names) != hostileOwners {
		t.Errorf("%d owners", len(names))
	}
	for owner, n := range names {
		if n != hostileCount/hostileOwners {
			t.Errorf("%s has %d names", owner, n)
		}
	}
	text := world()
	for _, line := range []string{
		"!silent _mta-sts.n0.o0.example\n", "!silent n4.o4.example MX\n", "mta-sts.n1.o1.example. A 127.0.9.1\n",
		"mta-sts.n2.o2.example addr=127.0.9.2 stall=tls\n", "mta-sts.n3.o3.example addr=127.0.9.3 policy=hostile stall=body\n",
		"policy h%d.heavy.example 100000..999999 addr=127.0.0.2 mx=mx.signed.example dnsdelay=20ms httpdelay=100ms\n",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("the world lacks %q", line)
		}
	}
}
