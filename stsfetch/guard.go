package stsfetch

import (
	_ "embed"
	"net/netip"
	"slices"
	"strings"
)

// specialTable has the IANA special-purpose address registries.
//
//go:embed special.txt
var specialTable string

// A guard decides which addresses are globally reachable, in the sense of the IANA
// special-purpose address registries (RFC 6890). It is not changed after newGuard
// made it.
//
// The predicates of netip are not enough: IsPrivate knows RFC 1918 and unique local
// addresses, but neither shared (100.64.0.0/10) nor benchmarking nor documentation
// space.
type guard struct {
	special  []specialBlock
	unicast6 netip.Prefix // unicast6 has all IPv6 addresses that IANA allocates.
	sixToFour,
	wellKnownNAT64, localNAT64 netip.Prefix
	multicast4, thisNetwork netip.Prefix
}

// A specialBlock is a line of the registries.
type specialBlock struct {
	prefix    netip.Prefix
	reachable bool
}

func newGuard() *guard {
	g := &guard{
		unicast6:       netip.MustParsePrefix("2000::/3"),
		sixToFour:      netip.MustParsePrefix("2002::/16"),
		wellKnownNAT64: netip.MustParsePrefix("64:ff9b::/96"),
		localNAT64:     netip.MustParsePrefix("64:ff9b:1::/48"),
		multicast4:     netip.MustParsePrefix("224.0.0.0/4"),
		thisNetwork:    netip.MustParsePrefix("0.0.0.0/8"),
	}
	for line := range strings.Lines(specialTable) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] != "#" {
			g.special = append(g.special, specialBlock{netip.MustParsePrefix(fields[0]), fields[1] == "True"})
		}
	}
	slices.SortStableFunc(g.special, func(a, b specialBlock) int { return b.prefix.Bits() - a.prefix.Bits() })
	return g
}

// public reports whether addr is globally reachable. Multicast and unallocated
// addresses are not. An IPv6 address that carries an IPv4 address is if that is:
// one within a prefix of NAT64 or 6to4. IPv4-mapped addresses are never public.
//
// nat64 are the prefixes of NAT64 in this network (RFC 7050), beside 64:ff9b::/96.
func (g *guard) public(addr netip.Addr, nat64 []netip.Prefix) bool {
	if addr.Zone() != "" || addr.Is4In6() {
		return false
	}
	if addr.Is4() {
		return !g.multicast4.Contains(addr) && g.reachable(addr)
	}
	for _, p := range nat64 {
		if p.Contains(addr) {
			return g.public(embedded(addr, p.Bits()), nil)
		}
	}
	switch {
	case g.wellKnownNAT64.Contains(addr):
		return g.public(embedded(addr, 96), nil)
	case g.localNAT64.Contains(addr):
		return g.publicLocalNAT64(addr)
	case g.sixToFour.Contains(addr):
		b := addr.As16()
		return g.public(netip.AddrFrom4([4]byte(b[2:6])), nil)
	}
	return g.unicast6.Contains(addr) && g.reachable(addr)
}

// publicLocalNAT64 is public for an address in the prefix of RFC 8215 if it is not
// known how the network divides that. Every IPv4 address that it can carry has to be
// public, except those of "this network", which no translator reaches.
func (g *guard) publicLocalNAT64(addr netip.Addr) bool {
	public := false
	for _, bits := range []int{48, 56, 64, 96} {
		switch carried := embedded(addr, bits); {
		case g.thisNetwork.Contains(carried):
		case !g.public(carried, nil):
			return false
		default:
			public = true
		}
	}
	return public
}

// reachable reports what the registries say about addr. An address that they do not
// have is reachable.
func (g *guard) reachable(addr netip.Addr) bool {
	for _, block := range g.special { // the smallest first
		if block.prefix.Contains(addr) {
			return block.reachable
		}
	}
	return true
}

// allows reports whether the administrator opened a network that addr is in.
// The IPv4 form counts for IPv4-mapped addresses, too.
func (f *Fetcher) allows(addr netip.Addr) bool {
	return slices.ContainsFunc(f.allowed, func(p netip.Prefix) bool {
		return p.Contains(addr) || p.Contains(addr.Unmap())
	})
}
