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
	// More hosts than this are not looked at. Postfix tries the first few
	// addresses (smtp_mx_address_limit, 5 by default); a domain that lists
	// hundreds wants us to send hundreds of questions.
	mostHosts = 32

	// So many hosts are looked at at the same time.
	atOnce = 8
)

// A Resolver asks the questions; *resolver.Resolver is one. Its methods must be
// safe for concurrent use, and their errors each wrap a *resolver.Error.
type Resolver interface {
	MX(ctx context.Context, name string) (resolver.Answer[resolver.MX], error)
	Addr(ctx context.Context, name string) (resolver.Answer[netip.Addr], error)
	Alias(ctx context.Context, name string) (resolver.Answer[string], error)
	TLSA(ctx context.Context, name string) (resolver.Answer[resolver.TLSA], error)
}

// Check finds out what DNS says about the hosts of a next-hop. An error means
// that the hosts themselves could not be found out, and mail must wait (RFC
// 7672, Section 2.1.2); it wraps a *resolver.Error. What goes wrong with a host
// is said there, and leaves the others as they are (RFC 7672, Section 2.1.2).
//
// The hosts are looked at even if it is not authentic that mail goes to them:
// that is for the caller to weigh (RFC 7672, Section 2.2.1).
//
// Check returns when ctx ends, at the latest; hosts that are not done with then
// are Failed. It may be called concurrently.
func Check(ctx context.Context, r Resolver, hop NextHop) (Result, error) {
	r = strict{r}
	res := Result{MXSecure: true}
	names := []string{hop.Domain}
	var mxTTL lifetime
	if !hop.NoMX {
		mx, err := r.MX(ctx, hop.Domain)
		if err != nil {
			return Result{}, err
		}
		mxTTL.learn(mx.TTL)
		res.MXSecure = mx.Secure
		if len(mx.Records) > 0 {
			names = exchangers(mx.Records)
		}
		// Without MX records the domain is its own host (RFC 5321, Section 5.1),
		// if there is such a domain.
		if mx.NXDomain || len(names) == 0 {
			res.NoMail, res.TTL = true, mx.TTL
			return res, nil
		}
	}
	var life lifetime
	res.Hosts, life = lookAtAll(ctx, r, names, hop.port())
	res.TTL = mxTTL.and(life).ttl
	return res, nil
}

// exchangers are the names of mx, each once, the preferred ones first. A null
// MX record is none, alone or beside others (RFC 7505, Section 3).
func exchangers(mx []resolver.MX) []string {
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

// lookAtAll looks at the hosts, several at a time.
func lookAtAll(ctx context.Context, r Resolver, names []string, port uint16) ([]Host, lifetime) {
	hosts := make([]Host, min(len(names), mostHosts+1))
	for i := range hosts {
		hosts[i].Name = names[i]
	}
	asked := hosts[:min(len(hosts), mostHosts)]
	lives := make([]lifetime, len(asked))
	var (
		wg   sync.WaitGroup
		next atomic.Int64
	)
	for range min(atOnce, len(asked)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(asked)); i = next.Add(1) - 1 {
				// When ctx has ended this goes on: a question is then an error
				// that says so, without I/O.
				l := look{r: r, port: port, host: &asked[i], life: &lives[i]}
				l.look(ctx)
			}
		})
	}
	wg.Wait()
	var all lifetime
	for _, l := range lives {
		all = all.and(l)
	}
	return hosts, all
}
