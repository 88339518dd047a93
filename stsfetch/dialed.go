package stsfetch

import (
	"context"
	"net/netip"
)

// dialedKey is the key of the function that WithDialed puts into a context.
type dialedKey struct{}

// WithDialed returns a context for Policy and Probe. They call dialed with each
// address of a policy host just before they attempt a connection to it, as package
// net/http/httptrace does. The caller thus knows the network of the policy host
// during the fetch.
//
// Addresses that may not be dialed are not passed. Through a proxy none are passed:
// its address says nothing about the owner of the domain. The connection waits for
// dialed, so it must return quickly. It is called from several goroutines, but never
// after Policy or Probe returned. A nil dialed is not called. Of several calls of
// WithDialed the last one counts.
func WithDialed(ctx context.Context, dialed func(netip.Addr)) context.Context {
	return context.WithValue(ctx, dialedKey{}, dialed)
}

// reportDialed calls the function of WithDialed, if ctx has one.
func reportDialed(ctx context.Context, addr netip.Addr) {
	if dialed, _ := ctx.Value(dialedKey{}).(func(netip.Addr)); dialed != nil {
		dialed(addr)
	}
}
