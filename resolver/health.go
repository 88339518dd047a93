package resolver

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"sync"

	"github.com/miekg/dns"
)

// A Health is how one server answers, for diagnostics.
type Health struct {
	// Server is as in Error: address and port, or "tls://…#…".
	Server string
	// Err is why there was no answer, over UDP or TLS; an *Error, or nil.
	Err error
	// TCP is why there was none over TCP, which large answers need; an *Error, or nil. With TLS it is
	// that of Err.
	TCP error
	// EDNS is set if the server knows EDNS (RFC 6891); without it nothing larger than 512 octets comes
	// over UDP, and no answer is Secure.
	EDNS bool
	// Validates is set if the answer had the AD bit.
	Validates bool
	// Trusted is set if its AD bit counts (Config.TrustAD).
	Trusted bool
	// AnswersBogus is set if it answered a name with invalid DNSSEC signatures: it sets the AD bit and
	// does not validate.
	AnswersBogus bool
}

// Examine asks every server for the name servers of the root, over UDP and TCP, and for a name with
// invalid signatures; an empty bogus leaves that out. It asks all servers at the same time, and takes
// three times Config.Timeout at most.
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
	if m, err := r.tryOnce(ctx, ".", dns.TypeNS, s); err != nil {
		h.Err, h.TCP = err, err
		if s.conns != nil {
			return h
		}
	} else {
		h.Validates, h.EDNS = m.AuthenticatedData, m.IsEdns0() != nil
	}
	if s.conns == nil {
		h.TCP = r.examineTCP(ctx, s)
	}
	if bogus != "" && h.Validates {
		m, err := r.tryOnce(ctx, dns.Fqdn(bogus), dns.TypeA, s)
		h.AnswersBogus = err == nil && len(m.Answer) > 0
	}
	return h
}

// tryOnce asks one server with the timeout of a question.
func (r *Resolver) tryOnce(parent context.Context, name string, qtype uint16, s *server) (response, error) {
	ctx, cancel := context.WithTimeout(parent, r.timeout)
	defer cancel()
	m, err := r.try(ctx, name, qtype, s, true)
	if err != nil {
		return response{}, newError(parent, name, qtype, s, err)
	}
	return m, nil
}

// examineTCP asks over TCP at once.
func (r *Resolver) examineTCP(parent context.Context, s *server) error {
	ctx, cancel := context.WithTimeout(parent, r.timeout)
	defer cancel()
	_, err := complete(r.overTCP(ctx, s, newQuery(".", dns.TypeNS, true)))
	if code, ok := errors.AsType[*rcodeError](err); ok && code.rcode != dns.RcodeServerFailure {
		return nil // it has answered
	}
	if err != nil {
		return newError(parent, ".", dns.TypeNS, s, err)
	}
	return nil
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
