package dane

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
)

// maxName is the length of the longest name, without a trailing dot.
const maxName = 253

// A look at one host writes down what it finds.
type look struct {
	r    Resolver
	port uint16
	host *Host
	life *lifetime
}

// look finds the state of the host, in the order of RFC 7672, Section 2.2.2:
// addresses first, and only those that can have secure TLSA records are asked
// for them. There are servers that answer everything but TLSA questions, and
// those that have no DNSSEC must not suffer for it.
func (l *look) look(ctx context.Context) {
	h := l.host
	if isAddress(h.Name) {
		h.State = Absent
		return
	}
	a, err := l.r.Addr(ctx, h.Name)
	if err != nil {
		l.fail(err)
		return
	}
	l.life.learn(a.TTL)
	switch alias := a.Name != h.Name; {
	case len(a.Records) == 0:
		h.State = Absent
	case a.Secure && alias:
		// Where the aliases lead to, then where they begin; those between never
		// (RFC 7672, Section 2.2.3).
		l.tryBases(ctx, a.Name, h.Name)
	case a.Secure:
		l.tryBases(ctx, h.Name)
	case alias:
		l.tryAlias(ctx)
	}
}

// tryAlias looks at a host that is an alias, and has insecure addresses: that
// may be because of where the alias leads to, while the name itself is secure,
// and may have secure TLSA records (RFC 7672, Section 2.2.3).
func (l *look) tryAlias(ctx context.Context) {
	cname, err := l.r.Alias(ctx, l.host.Name)
	if err != nil {
		l.fail(err)
		return
	}
	l.life.learn(cname.TTL)
	// If the alias is gone since, the name still is secure.
	if cname.Secure {
		l.tryBases(ctx, l.host.Name)
	}
}

// tryBases looks for secure TLSA records at one base domain after the other, and
// judges by the first that has any. An error ends it: what could not be seen may
// be the records that count (RFC 7672, Section 2.2.1).
func (l *look) tryBases(ctx context.Context, bases ...string) {
	for _, base := range bases {
		name := fmt.Sprintf("_%d._tcp.%s", l.port, base)
		if len(name) > maxName {
			continue // nobody can have published that
		}
		a, err := l.r.TLSA(ctx, name)
		if err != nil {
			l.fail(err)
			return
		}
		l.life.learn(a.TTL)
		if a.Secure && len(a.Records) > 0 {
			l.host.Base = base
			l.host.State, l.host.Err = judge(a.Records)
			return
		}
	}
}

// fail writes down that the state could not be found out.
func (l *look) fail(err error) {
	l.host.State, l.host.Err = Failed, err
}

// isAddress tells whether an address is in the place of a host's name. A name
// whose last label is a number is one as well: no top-level domain is (RFC 3696,
// Section 2), and it is read as an IPv4 address by whoever connects.
func isAddress(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	return strings.Trim(last, "0123456789") == ""
}
