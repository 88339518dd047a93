package stsfetch

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// public reports whether addr is globally reachable in the sense of the IANA
// IPv4 and IPv6 special-purpose address registries (RFC 6890). Multicast and
// unallocated space are not, and neither is an address that carries an IPv4
// address which is not: IPv4-mapped (::ffff:0:0/96, never public by itself),
// NAT64 (64:ff9b::/96) and 6to4 (2002::/16).
//
// netip's own predicates are not enough: IsPrivate knows RFC 1918 and unique
// local addresses, but neither shared (100.64.0.0/10) nor benchmarking nor
// documentation space.
func public(addr netip.Addr) bool {
	if addr.Is4() {
		return public4(addr)
	}
	if addr.Zone() != "" || addr.Is4In6() {
		return false
	}
	b := addr.As16()
	switch {
	case prefix6("64:ff9b::/96").Contains(addr):
		return public4(netip.AddrFrom4([4]byte(b[12:])))
	case prefix6("2002::/16").Contains(addr):
		return public4(netip.AddrFrom4([4]byte(b[2:6])))
	}
	return prefix6("2000::/3").Contains(addr) && !special6(binary.BigEndian.Uint64(b[:8]), addr)
}

func prefix6(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// special6 knows the blocks within 2000::/3 that are not globally reachable.
// 2001::/23 as a whole is not, but some of its assignments are.
func special6(high uint64, addr netip.Addr) bool {
	if high>>(64-23) == 0x20010000>>(32-23) {
		for _, p := range []string{
			"2001:1::1/128", "2001:1::2/128", "2001:1::3/128",
			"2001:3::/32", "2001:4:112::/48", "2001:20::/28", "2001:30::/28",
		} {
			if prefix6(p).Contains(addr) {
				return false
			}
		}
		return true
	}
	return prefix6("2001:db8::/32").Contains(addr) || prefix6("3fff::/20").Contains(addr)
}

// public4 is public for IPv4.
func public4(addr netip.Addr) bool {
	b := addr.As4()
	switch b[0] {
	case 0, 10, 127: // this network, private, loopback
		return false
	case 100: // shared, RFC 6598
		return b[1]&0xc0 != 64
	case 169: // link-local
		return b[1] != 254
	case 172: // private
		return b[1]&0xf0 != 16
	case 192:
		return public192(b)
	case 198: // benchmarking, documentation
		return b[1]&0xfe != 18 && !(b[1] == 51 && b[2] == 100)
	case 203: // documentation
		return !(b[1] == 0 && b[2] == 113)
	}
	return b[0] < 224 // multicast, reserved, broadcast
}

// public192 is public4 for 192.0.0.0/8, where the registry is at its densest.
func public192(b [4]byte) bool {
	switch {
	case b[1] == 0 && b[2] == 0: // IETF protocol assignments, but for two anycast addresses
		return b[3] == 9 || b[3] == 10
	case b[1] == 0 && b[2] == 2: // documentation
		return false
	case b[1] == 88 && b[2] == 99: // the withdrawn 6to4 relay anycast
		return false
	}
	return b[1] != 168
}

// allows reports whether the administrator opened a network that addr is in.
// The IPv4 form counts for IPv4-mapped addresses, too.
func (f *Fetcher) allows(addr netip.Addr) bool {
	return slices.ContainsFunc(f.allowed, func(p netip.Prefix) bool {
		return p.Contains(addr) || p.Contains(addr.Unmap())
	})
}
