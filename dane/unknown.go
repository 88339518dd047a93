package dane

import (
	"context"
	"net/netip"

	"stsmap/resolver"
)

// A strict Resolver returns an error in place of an answer for which it is unknown whether it is secure
// (resolver.Answer.Unknown): to take it for insecure would let DANE be bypassed by whatever makes the
// trusted resolver fail (RFC 7672, Section 2.1.1).
type strict struct{ r Resolver }

func (s strict) MX(ctx context.Context, name string) (resolver.Answer[resolver.MX], error) {
	return known(s.r.MX(ctx, name))
}

func (s strict) Addr(ctx context.Context, name string) (resolver.Answer[netip.Addr], error) {
	return known(s.r.Addr(ctx, name))
}

func (s strict) Alias(ctx context.Context, name string) (resolver.Answer[string], error) {
	return known(s.r.Alias(ctx, name))
}

func (s strict) TLSA(ctx context.Context, name string) (resolver.Answer[resolver.TLSA], error) {
	return known(s.r.TLSA(ctx, name))
}

func known[T any](a resolver.Answer[T], err error) (resolver.Answer[T], error) {
	if err == nil && a.Unknown != nil {
		return resolver.Answer[T]{}, a.Unknown
	}
	return a, err
}
