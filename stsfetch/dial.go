package stsfetch

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"stsmap/resolver"
)

const (
	// attemptDelay is how long one address may take to answer before the next
	// one is tried in parallel (RFC 8305, Section 5).
	attemptDelay = 250 * time.Millisecond
	// maxAddrs limits the connections that one fetch can cause.
	maxAddrs = 8
)

// connect opens a connection to port 443 of host, directly or through the
// proxy.
func (f *Fetcher) connect(ctx context.Context, host string) (net.Conn, error) {
	proxy, err := f.proxyFor(host)
	if err != nil {
		return nil, err
	}
	if proxy != nil {
		return f.connectProxy(ctx, proxy, host)
	}
	answer, err := f.addresses(ctx, host)
	if err != nil {
		return nil, err
	}
	addrs := interleave(answer.Records)
	return f.race(ctx, addrs[:min(len(addrs), maxAddrs)])
}

// addresses returns the addresses of host, at least one.
func (f *Fetcher) addresses(ctx context.Context, host string) (answer resolver.Answer[netip.Addr], err error) {
	answer, err = f.resolver.Addr(ctx, host)
	switch {
	case err != nil:
		return answer, stepErr(StepDNS, err)
	case len(answer.Records) > 0:
		return answer, nil
	case answer.NXDomain:
		return answer, stepErrf(StepDNS, "%s does not exist", host)
	}
	return answer, stepErrf(StepDNS, "%s has no address", host)
}

// interleave orders addresses as RFC 8305, Section 4 does: the families
// alternate, IPv6 first.
func interleave(addrs []netip.Addr) []netip.Addr {
	var six, four []netip.Addr
	for _, a := range addrs {
		if a.Is4() {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	out := make([]netip.Addr, 0, len(addrs))
	for i := range max(len(six), len(four)) {
		if i < len(six) {
			out = append(out, six[i])
		}
		if i < len(four) {
			out = append(out, four[i])
		}
	}
	return out
}

// dialAddr connects to port 443 of addr, and is the only function that dials a
// policy host. The address that is checked is the one that is dialed, without a
// lookup in between, so DNS rebinding has no effect.
func (f *Fetcher) dialAddr(ctx context.Context, addr netip.Addr) (net.Conn, error) {
	if !f.mayDial(ctx, addr) {
		return nil, stepErrf(StepBlocked, "%s is not a public address; fetch.allow_private can allow it", addr)
	}
	reportDialed(ctx, addr)
	conn, err := f.dial(ctx, "tcp", netip.AddrPortFrom(addr, 443).String())
	if err != nil {
		return nil, stepErr(StepConnect, err)
	}
	return conn, nil
}

// dial connects to addr, a policy host or a proxy.
func (f *Fetcher) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := f.dialer(ctx, network, addr)
	if c, ok := conn.(interface{ SetReadBuffer(bytes int) error }); ok && err == nil {
		_ = c.SetReadBuffer(receiveBuffer) // if it fails, the host costs more traffic
	}
	return conn, err
}

// mayDial reports whether addr is public, or allowed by the administrator.
func (f *Fetcher) mayDial(ctx context.Context, addr netip.Addr) bool {
	if f.allows(addr) {
		return true
	}
	var nat64 []netip.Prefix
	if addr.Is6() && !addr.Is4In6() {
		nat64 = f.nat64.find(ctx)
	}
	return f.guard.public(addr, nat64)
}

// race dials addrs in order, each when the one before failed or did not answer
// for attemptDelay, and returns the first connection. All dials together take no
// longer than their part of the timeout. The other dials close what they open, and
// race waits for that: a cancelled dial returns at once.
func (f *Fetcher) race(ctx context.Context, addrs []netip.Addr) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout/budgetShare)
	defer cancel()
	if len(addrs) == 1 {
		return f.dialAddr(ctx, addrs[0])
	}
	var dials sync.WaitGroup
	defer dials.Wait()
	defer cancel() // before the wait
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result)
	start := func(addr netip.Addr) {
		conn, err := f.dialAddr(ctx, addr)
		select {
		case results <- result{conn, err}:
		case <-ctx.Done():
			if conn != nil {
				conn.Close()
			}
		}
	}
	var failure error
	next, running := 0, 0
	timer := time.NewTimer(0)
	defer timer.Stop()
	for next < len(addrs) || running > 0 {
		select {
		case <-timer.C:
			if next < len(addrs) {
				addr := addrs[next]
				dials.Go(func() { start(addr) })
				next, running = next+1, running+1
				timer.Reset(attemptDelay)
			}
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			running--
			failure = preferError(failure, r.err)
			timer.Reset(0)
		case <-ctx.Done():
			return nil, stepErr(StepConnect, ctx.Err())
		}
	}
	return nil, failure
}

// preferError returns err, but keeps an earlier connection error over "blocked": it
// says more about a host than that one of its addresses is private.
func preferError(old, err error) error {
	if s, ok := errors.AsType[*stepError](err); old != nil && ok && s.step == StepBlocked {
		return old
	}
	return err
}
