package dane

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"stsmap/resolver"
)

const (
	// maxHosts limits the DNS queries that one domain can cause. Postfix tries
	// only a few addresses (smtp_mx_address_limit, 5 by default).
	maxHosts = 32

	// maxConcurrent limits how many hosts are looked up at the same time.
	maxConcurrent = 8
)

// A Resolver sends the DNS queries of Check; *resolver.Resolver is one. Its
// methods must be safe for concurrent use, and their errors must each wrap a
// *resolver.Error.
type Resolver interface {
	MX(ctx context.Context, name string) (resolver.Answer[resolver.MX], error)
	Addr(ctx context.Context, name string) (resolver.Answer[netip.Addr], error)
	Alias(ctx context.Context, name string) (resolver.Answer[string], error)
	TLSA(ctx context.Context, name string) (resolver.Answer[resolver.TLSA], error)
}

// Check looks up the MX hosts of a next-hop and their TLSA records. An error
// means that the MX records could not be looked up, and mail must be deferred
// (RFC 7672, Section 2.1.2); it wraps a *resolver.Error. The failure of one host
// is in its Host, and does not affect the others (RFC 7672, Section 2.1.2).
//
// The hosts are looked up even if the MX records are insecure: the caller decides
// what that means (RFC 7672, Section 2.2.1).
//
// Check returns at the latest when ctx ends; the hosts that remain are Failed. It
// may be called concurrently.
func Check(ctx context.Context, r Resolver, hop NextHop) (Result, error) {
	r = strict{r}
	res := Result{MXSecure: true}
	names := []string{hop.Domain}
	var ttl minTTL
	if !hop.NoMX {
		mx, err := r.MX(ctx, hop.Domain)
		if err != nil {
			return Result{}, err
		}
		ttl.add(mx.TTL)
		res.MXSecure = mx.Secure
		if len(mx.Records) > 0 {
			names = mxHosts(mx.Records)
		}
		// Without MX records the domain is its own host (RFC 5321, Section 5.1),
		// provided that it exists.
		if mx.NXDomain || len(names) == 0 {
			res.NoMail, res.TTL = true, mx.TTL
			return res, nil
		}
	}
	hosts, hostsTTL := lookupHosts(ctx, r, names, hop.port())
	ttl.merge(hostsTTL)
	res.Hosts, res.TTL = hosts, ttl.ttl
	return res, nil
}

// mxHosts returns the host names of mx, each once, in order of preference. A null
// MX record is left out, also beside others (RFC 7505, Section 3).
func mxHosts(mx []resolver.MX) []string {
	sorted := slices.SortedFunc(slices.Values(mx), func(a, b resolver.MX) int {
		return cmp.Or(cmp.Compare(a.Pref, b.Pref), cmp.Compare(a.Host, b.Host))
	})
	seen := map[string]bool{"": true}
	var names []string
	for _, x := range sorted {
		if !seen[x.Host] {
			seen[x.Host] = true
			names = append(names, x.Host)
		}
	}
	return names
}

// lookupHosts looks up the hosts, several at the same time.
func lookupHosts(ctx context.Context, r Resolver, names []string, port uint16) ([]Host, minTTL) {
	hosts := make([]Host, min(len(names), maxHosts+1))
	for i := range hosts {
		hosts[i].Name = names[i]
	}
	lookups := make([]hostLookup, min(len(hosts), maxHosts))
	for i := range lookups {
		lookups[i] = hostLookup{resolver: r, port: port, host: &hosts[i]}
	}
	var (
		wg   sync.WaitGroup
		next atomic.Int64
	)
	for range min(maxConcurrent, len(lookups)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(lookups)); i = next.Add(1) - 1 {
				// After ctx has ended this goes on: a query then returns an error
				// for that reason, without I/O.
				lookups[i].run(ctx)
			}
		})
	}
	wg.Wait()
	var ttl minTTL
	reachable := false
	for i := range lookups {
		ttl.merge(lookups[i].ttl)
		reachable = reachable || lookups[i].hasAddr
	}
	if !reachable {
		failUnresolved(hosts, func(Host) bool { return true })
	}
	return hosts, ttl
}
