package stsfetch

import (
	"context"
	"net/netip"
)

// dialedKey is the key of the function that WithDialed puts into a context.
type dialedKey struct{}

// WithDialed returns a context for Policy and Visit that has dialed called with
// each address of a policy host just before a connection to it is attempted, in
// the way of net/http/httptrace. A caller thus learns whose hosts a fetch depends
// on while it is under way.
//
// Only addresses that may be dialed are passed: neither those that are not public
// nor, where a proxy is used, any, since its address says nothing about the owner
// of the domain. dialed is called in the way of the connection, so it must return
// quickly, and from several goroutines, but never after Policy or Visit returned.
// A nil dialed is not called, and of several calls of WithDialed the last counts.
func WithDialed(ctx context.Context, dialed func(netip.Addr)) context.Context {
	return context.WithValue(ctx, dialedKey{}, dialed)
}

// reportDialed calls the function of WithDialed, if ctx has one.
func reportDialed(ctx context.Context, addr netip.Addr) {
	if dialed, _ := ctx.Value(dialedKey{}).(func(netip.Addr)); dialed != nil {
		dialed(addr)
	}
}
