package resolver

import (
	"context"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxCNAMEs limits the length of a CNAME chain, and so ends loops.
	maxCNAMEs = 12

	// defaultNegativeTTL is the TTL of a negative answer without SOA. RFC 2308, Section 5 says that
	// such an answer is not to be cached. This departs from it: one query a minute does no harm, one
	// for every message does.
	defaultNegativeTTL = time.Minute
)

// A chain is how far the CNAMEs of a question were followed.
type chain struct {
	name    string // of the last of them, or the name asked for
	cnames  int
	ttl     uint32 // the least
	secure  bool   // every response was
	unknown *Error // Answer.Unknown
}

// lookup asks for one name and type, follows the CNAMEs, and calls Observe. decode returns the record
// of an RR of the type, or false if it is not to be used.
func lookup[T any](ctx context.Context, r *Resolver, name string, qtype uint16, decode func(dns.RR) (T, bool)) (Answer[T], error) {
	began := time.Now()
	a, err := doLookup(ctx, r, name, qtype, decode)
	q := QueryResult{Type: typeName(qtype), NXDomain: a.NXDomain, Empty: len(a.Records) == 0, Took: time.Since(began)}
	q.Err, _ = errors.AsType[*Error](err)
	r.observe(q)
	return a, err
}

// doLookup is lookup without the call of Observe.
func doLookup[T any](ctx context.Context, r *Resolver, name string, qtype uint16, decode func(dns.RR) (T, bool)) (Answer[T], error) {
	fqdn, err := checkName(name)
	if err != nil {
		return Answer[T]{}, &Error{Name: name, Type: typeName(qtype), Kind: Malformed, Err: err}
	}
	c := chain{name: fqdn, ttl: maxTTL, secure: true}
	m, err := r.resolve(ctx, qtype, &c)
	if err != nil {
		return Answer[T]{}, err
	}
	a := Answer[T]{Name: plain(c.name), NXDomain: m.Rcode == dns.RcodeNameError, Secure: c.secure, Unknown: c.unknown}
	unusable := false
	for _, rr := range m.Answer {
		// Ignore answer records in an NXDOMAIN response: they may belong to an earlier CNAME.
		if a.NXDomain || rr.Header().Rrtype != qtype || !owns(rr, c.name) {
			continue
		}
		c.ttl = min(c.ttl, rr.Header().Ttl)
		if v, ok := decode(rr); ok {
			a.Records = append(a.Records, v)
		} else {
			unusable = true
		}
	}
	if unusable && len(a.Records) == 0 {
		return Answer[T]{}, newError(ctx, c.name, qtype, m.from, wireError("no record names a host"))
	}
	a.TTL = time.Duration(c.ttl) * time.Second
	if len(a.Records) == 0 {
		a.TTL = min(a.TTL, denialTTL(m.Msg, c.name))
	}
	return a, nil
}

// resolve asks for c.name until there is a response for the end of the chain, and returns that.
func (r *Resolver) resolve(ctx context.Context, qtype uint16, c *chain) (response, error) {
	deadline := time.Now().Add(r.timeout)
	for {
		m, err := r.ask(ctx, c.name, qtype, deadline)
		if err != nil {
			return response{}, err
		}
		asked := c.name
		c.secure = c.secure && m.secure
		if m.unknown && c.unknown == nil {
			c.unknown = &Error{Name: displayName(asked), Type: typeName(qtype), Server: m.from.text, Kind: Untrusted}
		}
		if !c.follow(m.Msg, qtype) {
			return response{}, &Error{Name: displayName(asked), Type: typeName(qtype), Server: m.from.text, Kind: CNAMELoop}
		}
		if c.name == asked || final(m.Msg, c.name, qtype) {
			return m, nil
		}
	}
}

// follow goes along the CNAMEs in m, in whatever order they are, and returns false if they are too
// many. A name that has records of the type is the end of the chain: CNAMEs beside them are a mistake.
func (c *chain) follow(m *dns.Msg, qtype uint16) bool {
	for find(m.Answer, c.name, qtype) == nil {
		cname, ok := find(m.Answer, c.name, dns.TypeCNAME).(*dns.CNAME)
		if !ok {
			return true
		}
		if c.cnames++; c.cnames > maxCNAMEs {
			return false
		}
		c.name = cname.Target
		c.ttl = min(c.ttl, cname.Hdr.Ttl)
	}
	return true
}

// find returns the first record of a name and type, or nil.
func find(rrs []dns.RR, name string, qtype uint16) dns.RR {
	for _, rr := range rrs {
		if rr.Header().Rrtype == qtype && owns(rr, name) {
			return rr
		}
	}
	return nil
}

// final reports whether m says all about the name at the end of a CNAME chain: its records, that it
// does not exist (RFC 6604, Section 3), or that it has no such record (RFC 2308, Section 2.2). If not,
// the server left it to us to ask.
func final(m *dns.Msg, name string, qtype uint16) bool {
	return m.Rcode == dns.RcodeNameError || find(m.Answer, name, qtype) != nil || denial(m, name) != nil
}

// denial returns the first SOA record of the authority section if name is in its zone, or nil.
func denial(m *dns.Msg, name string) *dns.SOA {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok && soa.Hdr.Class == dns.ClassINET {
			if dns.IsSubDomain(soa.Hdr.Name, name) {
				return soa
			}
			return nil
		}
	}
	return nil
}

// denialTTL is how long the absence of records of name may be cached (RFC 2308, Section 5).
func denialTTL(m *dns.Msg, name string) time.Duration {
	soa := denial(m, name)
	if soa == nil {
		return defaultNegativeTTL
	}
	minimum := soa.Minttl
	if minimum > maxTTL {
		minimum = 0
	}
	return time.Duration(min(soa.Hdr.Ttl, minimum)) * time.Second
}

// checkName returns a name in the form that is asked for: lower case, with the final dot. It refuses
// octets beyond printable ASCII, and backslashes: names here come from configuration or from an
// address, and one with such octets is an unconverted U-label, or worse.
func checkName(name string) (string, error) {
	s := strings.TrimSuffix(name, ".")
	if s == "" {
		return "", errors.New("empty")
	}
	if len(s) > 253 {
		return "", errors.New("longer than 253 octets")
	}
	for label := range strings.SplitSeq(s, ".") {
		switch {
		case label == "":
			return "", errors.New("empty label")
		case len(label) > 63:
			return "", errors.New("label longer than 63 octets")
		case hyphenated(label):
			return "", errors.New("label begins or ends with a hyphen")
		}
		for _, c := range []byte(label) {
			if c <= ' ' || c > '~' || c == '\\' {
				return "", errors.New("octet that no name here has")
			}
		}
	}
	return strings.ToLower(s) + ".", nil
}

func decodeTXT(rr dns.RR) (string, bool) {
	txt, ok := rr.(*dns.TXT)
	if !ok {
		return "", false
	}
	return unescape(strings.Join(txt.Txt, "")), true
}

func decodeMX(rr dns.RR) (MX, bool) {
	mx, ok := rr.(*dns.MX)
	if !ok {
		return MX{}, false
	}
	host := plain(mx.Mx)
	return MX{Host: host, Pref: mx.Preference}, host == "" || validHost(host)
}

func decodeAlias(rr dns.RR) (string, bool) {
	switch rr := rr.(type) {
	case *dns.CNAME:
		return plain(rr.Target), true
	case *dns.NS:
		return plain(rr.Ns), true
	}
	return "", false
}

func decodeTLSA(rr dns.RR) (TLSA, bool) {
	t, ok := rr.(*dns.TLSA)
	if !ok {
		return TLSA{}, false
	}
	data, err := hex.DecodeString(t.Certificate)
	return TLSA{Usage: t.Usage, Selector: t.Selector, Matching: t.MatchingType, Data: data}, err == nil
}

func decodeAddr(rr dns.RR) (netip.Addr, bool) {
	switch rr := rr.(type) {
	case *dns.A:
		return netip.AddrFromSlice(rr.A)
	case *dns.AAAA:
		return netip.AddrFromSlice(rr.AAAA)
	}
	return netip.Addr{}, false
}
