package resolver

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"sync"

	"github.com/miekg/dns"
)

// A Health is how one server answers, for people who look for what is wrong.
type Health struct {
	// Server is as it is called in errors: address and port, or "tls://…#…".
	Server string
	// Err is why there was no answer, over UDP or TLS; an *Error, or nil.
	Err error
	// TCP is why there was none over TCP, which large answers need; an *Error, or nil. With TLS it is
	// that of Err.
	TCP error
	// EDNS says that the server knows EDNS (RFC 6891); without it nothing larger than 512 octets comes
	// over UDP, and no answer is Secure.
	EDNS bool
	// Validates says that the answer had the AD bit.
	Validates bool
	// Trusted says that its AD bit counts (Config.TrustAD).
	Trusted bool
	// Bogus says that it gave an answer for a name whose signatures are known to be wrong: it sets the
	// AD bit and does not validate.
	Bogus bool
}

// Examine asks every server for the name servers of the root, over UDP and TCP, and for a name whose
// signatures are known to be wrong; an empty bogus leaves that out. It asks all at the same time, and takes no
// longer than three times Config.Timeout.
func (r *Resolver) Examine(ctx context.Context, bogus string) []Health {
	servers := r.servers().servers
	all := make([]Health, len(servers))
	var asking sync.WaitGroup
	for i, s := range servers {
		asking.Go(func() { all[i] = r.examine(ctx, s, bogus) })
	}
	asking.Wait()
	return all
}

// examine asks one server.
func (r *Resolver) examine(ctx context.Context, s *server, bogus string) Health {
	h := Health{Server: s.text, Trusted: s.trusted}
	q := newQuery()
	q.name, q.qtype = ".", dns.TypeNS
	if err := r.try(ctx, q, s, r.deadline(ctx)); err != nil {
		h.Err, h.TCP = err, err
		if s.tls != nil {
			return h
		}
	} else {
		h.Validates, h.EDNS = q.reply.ad, q.reply.edns
	}
	if s.tls == nil {
		h.TCP = r.overTCP(ctx, q, s)
	}
	if bogus != "" && h.Validates {
		q.name, q.qtype = dns.Fqdn(bogus), dns.TypeA
		h.Bogus = r.try(ctx, q, s, r.deadline(ctx)) == nil && len(q.reply.answers) > 0
	}
	return h
}

// overTCP asks over TCP at once.
func (r *Resolver) overTCP(ctx context.Context, q *query, s *server) error {
	err := q.pack(true)
	if err == nil {
		err = r.overStream(ctx, q, s, r.deadline(ctx))
	}
	if code, ok := errors.AsType[*rcodeError](err); ok && code.rcode != dns.RcodeServerFailure {
		err = nil // it has answered
	}
	if err == nil {
		return nil
	}
	return failed(ctx, q, s, err)
}

// Nameservers returns the addresses in the nameserver lines of a file like resolv.conf, three at most, as the
// C library reads them.
func Nameservers(path string) ([]netip.Addr, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, s := range readConf(path, trustNone).servers {
		addrs = append(addrs, s.addr.Addr())
	}
	return addrs, nil
}
