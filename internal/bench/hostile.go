package main

import (
	"fmt"
	"strings"
)

// The domains of attackers, whose lookups hang: in DNS for the record, in TCP, TLS or the body at the policy host, or in
// DNS for DANE. Their policy hosts are in one network of 256 addresses.
const (
	hostileOne   = "n%d.evil.example" // of one owner
	hostileMany  = "n%d.o%o.example"  // of 100 owners
	hostileCount = 1000               // of either
	// neighbour is honest, with a policy host in the network of the attackers, and delays like policySlow.
	neighbour = "c%d.close.example"
)

// hostileOwners is how many owners %o in a pattern tells apart.
const hostileOwners = 100

// A hostileKind is where the lookups of a domain hang.
type hostileKind int

const (
	hangsDNS hostileKind = iota
	hangsTCP
	hangsTLS
	hangsBody
	hangsDANE
	hostileKinds
)

// hostileWorld returns the lines of the hostile domains in the sections dns and https.
func hostileWorld() (dns, https string) {
	var d, h strings.Builder
	for _, pattern := range []string{hostileOne, hostileMany} {
		keys := series{pattern, 0, hostileCount}
		for i := range keys.N {
			name := keys.domain(i)
			kind := hostileKind((i + i/hostileOwners) % int(hostileKinds)) // an owner has all kinds
			if kind == hangsDNS {
				fmt.Fprintf(&d, "!silent _mta-sts.%s\n", name)
				continue
			}
			fmt.Fprintf(&d, "_mta-sts.%s. TXT \"v=STSv1; id=1;\"\nmta-sts.%s. A 127.0.9.%d\n", name, name, kind)
			switch kind {
			case hangsTLS:
				fmt.Fprintf(&h, "mta-sts.%s addr=127.0.9.%d stall=tls\n", name, kind)
			case hangsBody:
				fmt.Fprintf(&h, "mta-sts.%s addr=127.0.9.%d policy=hostile stall=body\n", name, kind)
			case hangsDANE:
				fmt.Fprintf(&d, "!silent %s MX\n", name)
				fmt.Fprintf(&h, "mta-sts.%s addr=127.0.9.%d policy=hostile\n", name, kind)
			}
		}
	}
	fmt.Fprintf(&h, "mta-sts.tcp.evil.example addr=127.0.9.%d stall=accept\n", hangsTCP)
	return d.String(), h.String()
}

// hostilePolicy is the section with the policy of the hostile domains.
const hostilePolicy = "-- policy-crlf/hostile --\nversion: STSv1\nmode: enforce\nmx: mx.evil.example\nmax_age: 604800\n"
