package stsfetch

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"stsmap/resolver"
)

const (
	// minPrefixAge and maxPrefixAge bound how long the NAT64 prefixes of the network
	// are cached, whatever the TTL. A failed lookup is repeated after minPrefixAge.
	minPrefixAge = time.Minute
	maxPrefixAge = time.Hour
)

// A prefixFinder finds the prefixes of NAT64 in this network, as RFC 7050 does:
// ipv4only.arpa has two IPv4 addresses and no others, so that IPv6 addresses of it
// are made by DNS64, with the prefix. It may be used concurrently.
//
// Such a prefix can be an ordinary one of the network's provider. An address in it
// looks public, and the translator would connect to the IPv4 address that it
// carries, in the local network too.
type prefixFinder struct {
	resolver *resolver.Resolver

	mu       sync.Mutex
	prefixes []netip.Prefix // the last that were found
	until    time.Time      // when they are to be looked up again
	inflight chan struct{}  // closed at the end of a lookup; nil if there is none
}

// find returns the prefixes. If they cannot be found, it returns the last ones.
func (n *prefixFinder) find(ctx context.Context) []netip.Prefix {
	for {
		n.mu.Lock()
		prefixes, inflight := n.prefixes, n.inflight
		switch {
		case time.Now().Before(n.until) || ctx.Err() != nil:
			n.mu.Unlock()
			return prefixes
		case inflight == nil:
			n.inflight = make(chan struct{})
			n.mu.Unlock()
			n.lookup(ctx)
			continue
		}
		n.mu.Unlock()
		select {
		case <-inflight:
		case <-ctx.Done():
		}
	}
}

// lookup looks the prefixes up and ends n.inflight.
func (n *prefixFinder) lookup(ctx context.Context) {
	answer, err := n.resolver.Addr(ctx, "ipv4only.arpa")
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.inflight)
	n.inflight = nil
	switch {
	case err == nil:
		n.prefixes = nat64Prefixes(answer.Records)
		n.until = time.Now().Add(min(max(answer.TTL, minPrefixAge), maxPrefixAge))
	case ctx.Err() == nil:
		n.until = time.Now().Add(minPrefixAge)
	}
}

// nat64Prefixes returns the prefixes with which addrs, those of ipv4only.arpa, were
// made (RFC 7050, Section 3).
func nat64Prefixes(addrs []netip.Addr) (prefixes []netip.Prefix) {
	wellKnown := []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 0, 170}), netip.AddrFrom4([4]byte{192, 0, 0, 171})}
	for _, addr := range addrs {
		if !addr.Is6() || addr.Is4In6() || addr.Zone() != "" {
			continue
		}
		for _, bits := range []int{96, 64, 56, 48, 40, 32} {
			if !slices.Contains(wellKnown, embedded(addr, bits)) {
				continue
			}
			if p, err := addr.Prefix(bits); err == nil && translates(p) && !slices.Contains(prefixes, p) {
				prefixes = append(prefixes, p)
			}
			break
		}
	}
	return prefixes
}

// translates reports whether p can be a prefix of NAT64: a global, unique local or
// NAT64 one. Others, such as ::/96, would make addresses of this host public.
func translates(p netip.Prefix) bool {
	for _, within := range []string{"2000::/3", "fc00::/7", "64:ff9b::/96", "64:ff9b:1::/48"} {
		if w := netip.MustParsePrefix(within); w.Bits() <= p.Bits() && w.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

// embedded returns the IPv4 address in addr behind a prefix of so many bits, one of
// 32, 40, 48, 56, 64 and 96 (RFC 6052, Section 2.2).
func embedded(addr netip.Addr, bits int) netip.Addr {
	b := addr.As16()
	if bits == 96 {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	var four [4]byte
	at := bits / 8
	for i := range four {
		if at == 8 {
			at++ // bits 64 to 71 are reserved
		}
		four[i] = b[at]
		at++
	}
	return netip.AddrFrom4(four)
}
