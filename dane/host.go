package dane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"stsmap/resolver"
)

// maxName is the length of the longest name, without a trailing dot.
const maxName = 253

// A hostLookup finds the state of one host.
type hostLookup struct {
	resolver Resolver
	port     uint16
	host     *Host
	ttl      minTTL
	hasAddr  bool // an address was found
}

// run sets the state of the host, in the order of RFC 7672, Section 2.2.2: the
// addresses first, then TLSA records where they can be secure. Some servers
// answer all queries but those for TLSA records, and a host without DNSSEC must
// not suffer from that.
func (l *hostLookup) run(ctx context.Context) {
	h := l.host
	if isAddress(h.Name) {
		h.State = NoAddress
		return
	}
	a, err := l.resolver.Addr(ctx, h.Name)
	if err != nil {
		l.setFailed(err)
		if isUnresolvable(ctx, err) {
			h.State = Unresolved
		}
		return
	}
	l.ttl.add(a.TTL)
	l.hasAddr = len(a.Records) > 0
	switch alias := a.Name != h.Name; {
	case !l.hasAddr:
		h.State = NoAddress
	case a.Secure && alias:
		// The end of the CNAME chain, then its start; never a name between them
		// (RFC 7672, Section 2.2.3).
		l.queryTLSA(ctx, a.Name, h.Name)
	case a.Secure:
		l.queryTLSA(ctx, h.Name)
	case alias:
		l.queryAlias(ctx)
	}
}

// isUnresolvable reports whether Postfix can be expected to fail in the same way
// where a lookup of addresses failed with err: SERVFAIL, or no response within
// the time that the resolver allows. If ctx ended, the time may have been too
// short here alone.
func isUnresolvable(ctx context.Context, err error) bool {
	e, ok := errors.AsType[*resolver.Error](err)
	return ok && ctx.Err() == nil && (e.Kind == resolver.ServFail || e.Kind == resolver.Timeout)
}

// queryAlias handles a host with a CNAME and insecure addresses. They may be
// insecure because of the target, while the name itself is secure and has secure
// TLSA records (RFC 7672, Section 2.2.3).
func (l *hostLookup) queryAlias(ctx context.Context) {
	cname, err := l.resolver.Alias(ctx, l.host.Name)
	if err != nil {
		l.setFailed(err)
		return
	}
	l.ttl.add(cname.TTL)
	// If the CNAME was removed meanwhile, the name is still secure.
	if cname.Secure {
		l.queryTLSA(ctx, l.host.Name)
	}
}

// queryTLSA looks up TLSA records at the base domains in turn, and sets the state
// by the first that has secure ones. An error ends it: the records that count may
// be those that could not be looked up (RFC 7672, Section 2.2.1).
func (l *hostLookup) queryTLSA(ctx context.Context, bases ...string) {
	for _, base := range bases {
		name := fmt.Sprintf("_%d._tcp.%s", l.port, base)
		if len(name) > maxName {
			continue // such a name cannot exist
		}
		a, err := l.resolver.TLSA(ctx, name)
		if err != nil {
			l.setFailed(err)
			return
		}
		l.ttl.add(a.TTL)
		if a.Secure && len(a.Records) > 0 {
			l.host.Base = base
			l.host.State, l.host.Err = stateOf(a.Records)
			return
		}
	}
}

// setFailed sets the state where a lookup failed.
func (l *hostLookup) setFailed(err error) {
	l.host.State, l.host.Err = Failed, err
}

// isAddress reports whether an address stands where a host name belongs. So does
// a name whose last label is a number: no top-level domain is one (RFC 3696,
// Section 2), and clients read it as an IPv4 address.
func isAddress(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	return strings.Trim(last, "0123456789") == ""
}
