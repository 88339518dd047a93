package main

import (
	"strings"
	"testing"
	"time"
)

// The share of collections is theirs alone: neither the lines around them nor processors that were idle count.
func TestReadCollections(t *testing.T) {
	const log = `level=INFO msg=serving
gc 7 @1.500s 2%: 0.10+1.2+0.30 ms clock, 0.20+0.10/1.0/0.50+0.60 ms cpu, 7->8->4 MB, 9 MB goal, 0 MB stacks, 0 MB globals, 2 P
gc 8 @2.000s 2%: 1.0+1.2+0.30 ms clock, 2+0/3/100+5 ms cpu, 7->8->6 MB, 9 MB goal, 0 MB stacks, 0 MB globals, 2 P (forced)
`
	cycles, err := readCollections(log)
	if err != nil || len(cycles) != 2 {
		t.Fatalf("%d collections, %v", len(cycles), err)
	}
	if got := cycles.cpu(time.Second, 2*time.Second); got != 1900*time.Microsecond {
		t.Errorf("the first took %v, not 1.9 ms", got)
	}
	if got := cycles.cpu(0, time.Minute); got != 11900*time.Microsecond {
		t.Errorf("both took %v, not 11.9 ms", got)
	}
	if cycles[1].live != 6<<20 {
		t.Errorf("live heap %v, not 6 MB", cycles[1].live)
	}
}

// Of 100 owners each has 10 names, of every kind that hangs.
func TestHostileOwners(t *testing.T) {
	keys := series{hostileMany, 0, hostileCount}
	names := make(map[string]int)
	for i := range keys.N {
		_, owner, _ := strings.Cut(keys.domain(i), ".")
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
	dns, https := hostileWorld()
	for _, name := range []string{"!silent _mta-sts.n0.o0.example\n", "!silent n4.o4.example MX\n"} {
		if !strings.Contains(dns, name) {
			t.Errorf("section dns lacks %q", name)
		}
	}
	for _, stall := range []string{"n2.o2.example addr=127.0.9.2 stall=tls", "n3.o3.example addr=127.0.9.3 policy=hostile stall=body"} {
		if !strings.Contains(https, stall) {
			t.Errorf("section https lacks %q", stall)
		}
	}
}
