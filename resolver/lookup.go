package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// More CNAMEs than any honest chain has. A loop is not looked for: it is long.
	maxCNAMEs = 12

	// A denial without SOA is not to be remembered (RFC 2308, Section 5). This departs from it: to
	// ask once a minute does no harm, to ask for every message does.
	bareDenial = time.Minute
)

// A chain is how far the CNAMEs of a question were followed.
type chain struct {
	name   string // of the last of them, or the name asked for
	cnames int
	ttl    uint32 // the least
}

// lookup asks for one name and type, follows the CNAMEs, and tells how it ended. decode makes a record
// of its data, which is well-formed, or says that it is not to be used.
func lookup[T any](ctx context.Context, r *Resolver, name string, qtype uint16,
	decode func(m *message, rr record) (T, bool)) (Answer[T], error) {

	began := time.Now()
	a, err := find(ctx, r, name, qtype, decode)
	q := Question{Type: typeName(qtype), NXDomain: a.NXDomain, Empty: len(a.Records) == 0, Took: time.Since(began)}
	q.Err, _ = errors.AsType[*Error](err)
	r.observe(q)
	return a, err
}

// find is lookup without telling.
func find[T any](ctx context.Context, r *Resolver, name string, qtype uint16,
	decode func(m *message, rr record) (T, bool)) (Answer[T], error) {

	fqdn, err := checkName(name)
	if err != nil {
		return Answer[T]{}, &Error{Name: name, Type: typeName(qtype), Kind: Malformed, Err: err}
	}
	q := r.pool.Get().(*query)
	defer r.pool.Put(q)
	q.qtype = qtype

	c := chain{name: fqdn, ttl: maxTTL}
	a := Answer[T]{Secure: true}
	from, err := r.resolve(ctx, q, &c, &a.Secure)
	if err != nil {
		return Answer[T]{}, err
	}
	m := &q.reply
	a.Name = plain(c.name)
	a.NXDomain = m.rcode == dns.RcodeNameError
	unusable := false
	for _, rr := range m.answers {
		// What stands beside a denial is not believed: it may have been for another name of the chain.
		if a.NXDomain || rr.typ != qtype || !strings.EqualFold(rr.name, c.name) {
			continue
		}
		c.ttl = min(c.ttl, rr.ttl)
		if v, ok := decode(m, rr); ok {
			a.Records = append(a.Records, v)
		} else {
			unusable = true
		}
	}
	if unusable && len(a.Records) == 0 {
		return Answer[T]{}, failed(ctx, q, from, wireError("no record names a host"))
	}
	a.TTL = time.Duration(c.ttl) * time.Second
	if len(a.Records) == 0 {
		a.TTL = min(a.TTL, m.denialTTL(c.name))
	}
	return a, nil
}

// resolve asks for c.name until there is a response for the end of the chain, which it leaves in q.
// It returns the server that the response came from. secure is cleared if any response was not.
func (r *Resolver) resolve(ctx context.Context, q *query, c *chain, secure *bool) (*server, error) {
	deadline := r.deadline(ctx)
	for {
		q.name = c.name
		from, err := r.ask(ctx, q, deadline)
		if err != nil {
			return nil, err
		}
		*secure = *secure && q.reply.secure
		asked := c.name
		if !c.follow(&q.reply, q.qtype) {
			return nil, &Error{Name: plain(asked), Type: typeName(q.qtype), Server: from.text, Kind: CNAMELoop}
		}
		if c.name == asked || q.reply.final(c.name, q.qtype) {
			return from, nil
		}
	}
}

// deadline is when a question that begins now must have ended.
func (r *Resolver) deadline(ctx context.Context) time.Time {
	deadline := time.Now().Add(r.timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		return d
	}
	return deadline
}

// follow goes along the CNAMEs in m, in whatever order they are, and reports false if they are too
// many. A name that has records of the type has reached its end: CNAMEs beside them are a mistake.
func (c *chain) follow(m *message, qtype uint16) bool {
	for !m.has(c.name, qtype) {
		i := m.find(c.name, dns.TypeCNAME)
		if i < 0 {
			return true
		}
		if c.cnames++; c.cnames > maxCNAMEs {
			return false
		}
		c.name = m.nameAt(m.answers[i].off)
		c.ttl = min(c.ttl, m.answers[i].ttl)
	}
	return true
}

// find returns the index of the first answer for the name and type, or -1.
func (m *message) find(name string, typ uint16) int {
	for i, rr := range m.answers {
		if rr.typ == typ && strings.EqualFold(rr.name, name) {
			return i
		}
	}
	return -1
}

func (m *message) has(name string, typ uint16) bool { return m.find(name, typ) >= 0 }

// final tells whether m says all about the name at the end of a chain of CNAMEs: its records, that it
// does not exist (RFC 6604, Section 3), or that it has no such record (RFC 2308, Section 2.2). If not,
// the server left it to us to ask.
func (m *message) final(name string, qtype uint16) bool {
	return m.rcode == dns.RcodeNameError || m.has(name, qtype) || m.deniedBy(name)
}

// deniedBy tells whether the SOA in the authority section, if any, is one of a zone that name is in.
func (m *message) deniedBy(name string) bool {
	return m.denial.name != "" && dns.IsSubDomain(m.denial.name, name)
}

// denialTTL is how long it may be remembered that name has no records.
func (m *message) denialTTL(name string) time.Duration {
	if !m.deniedBy(name) {
		return bareDenial
	}
	minimum := binary.BigEndian.Uint32(m.data[m.denial.end-4:])
	if minimum > maxTTL {
		minimum = 0
	}
	return time.Duration(min(m.denial.ttl, minimum)) * time.Second
}

// checkName returns a name in the form that is asked for: lower case, with the final dot. Octets
// beyond printable ASCII, and backslashes, are refused: here a name is what stands in the
// configuration or in an address, and one with such octets is a U-label that somebody forgot to
// convert, or worse.
func checkName(name string) (string, error) {
	s := strings.TrimSuffix(name, ".")
	if s == "" {
		return "", errors.New("empty")
	}
	if len(s) > 253 {
		return "", errors.New("longer than 253 octets")
	}
	label := 0
	for _, c := range []byte(s + ".") {
		switch {
		case c == '.' && label == 0:
			return "", errors.New("empty label")
		case c == '.':
			label = 0
			continue
		case c <= ' ' || c > '~' || c == '\\':
			return "", errors.New("octet that no name here has")
		}
		if label++; label > 63 {
			return "", errors.New("label longer than 63 octets")
		}
	}
	return strings.ToLower(s) + ".", nil
}

func decodeTXT(m *message, rr record) (string, bool) {
	d := m.data[rr.off:rr.end]
	if len(d) > 0 && int(d[0]) == len(d)-1 {
		return string(d[1:]), true
	}
	var b strings.Builder
	b.Grow(len(d))
	for len(d) > 0 {
		n := 1 + int(d[0])
		b.Write(d[1:n])
		d = d[n:]
	}
	return b.String(), true
}

func decodeMX(m *message, rr record) (MX, bool) {
	host := plain(m.nameAt(rr.off + 2))
	return MX{Host: host, Pref: binary.BigEndian.Uint16(m.data[rr.off:])}, host == "" || validHost(host)
}

func decodeAlias(m *message, rr record) (string, bool) { return plain(m.nameAt(rr.off)), true }

func decodeTLSA(m *message, rr record) (TLSA, bool) {
	d := m.data[rr.off:rr.end]
	return TLSA{Usage: d[0], Selector: d[1], Matching: d[2], Data: append([]byte(nil), d[3:]...)}, true
}

func decodeAddr(m *message, rr record) (netip.Addr, bool) {
	return netip.AddrFromSlice(m.data[rr.off:rr.end])
}

// merge makes one answer of those about A and AAAA.
func merge(four Answer[netip.Addr], err4 error, six Answer[netip.Addr], err6 error) (Answer[netip.Addr], error) {
	alone := func(a Answer[netip.Addr]) bool { return a.NXDomain || len(a.Records) > 0 }
	switch {
	case err4 != nil && err6 != nil:
		e4, ok4 := errors.AsType[*Error](err4)
		e6, ok6 := errors.AsType[*Error](err6)
		if ok4 && ok6 && e6.Kind < e4.Kind {
			return Answer[netip.Addr]{}, err6
		}
		return Answer[netip.Addr]{}, err4
	case err4 != nil && alone(six):
		return six, nil
	case err4 != nil:
		return Answer[netip.Addr]{}, err4
	case err6 != nil && alone(four):
		return four, nil
	case err6 != nil:
		return Answer[netip.Addr]{}, err6
	}
	both := four
	if len(four.Records) == 0 && len(six.Records) > 0 {
		both.Name, both.TTL, both.Secure = six.Name, six.TTL, six.Secure
	}
	if len(four.Records) == 0 == (len(six.Records) == 0) {
		both.TTL = min(four.TTL, six.TTL)
		both.Secure = four.Secure && six.Secure
	}
	both.NXDomain = four.NXDomain && six.NXDomain
	both.Records = append(both.Records, six.Records...)
	return both, nil
}
