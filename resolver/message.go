package resolver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

const (
	// udpSize is announced for UDP. It fits into the smallest packet that IPv6 promises to carry
	// (RFC 8200, Section 5), so no response comes in fragments.
	udpSize = 1232

	// headerLen is the length of a message without any section.
	headerLen = 12

	// maxExtended limits how many extended errors of one response are reported.
	maxExtended = 5

	maxTTL = 1<<31 - 1
)

// errMismatch is returned for a message that is no response to the query.
var errMismatch = errors.New("not a response to the query")

// newQuery returns a query with a random id; name ends with a dot.
//
// It requests the AD bit by setting it, and never sets DO. That suffices for every resolver that
// follows RFC 6840, Section 5.8, and avoids the signatures, which are not used here and are what makes
// responses too large for UDP. An older resolver leaves AD clear: DANE is then not used, but nothing
// insecure is taken for secure.
func newQuery(name string, qtype uint16, edns bool) *dns.Msg {
	q := &dns.Msg{Question: []dns.Question{{Name: name, Qtype: qtype, Qclass: dns.ClassINET}}}
	q.Id = dns.Id()
	q.RecursionDesired, q.AuthenticatedData = true, true
	if edns {
		q.SetEdns0(udpSize, false)
	}
	return q
}

// receive reads data as the response to q. If it is none, the error is errMismatch, and more data may
// follow. Otherwise the error is a wireError or an *rcodeError. A response that is truncated is
// returned as it is, incomplete.
func receive(q *dns.Msg, data []byte) (*dns.Msg, error) {
	m := new(dns.Msg)
	err := m.Unpack(data)
	if !matches(q, m, data) {
		return nil, errMismatch
	}
	if m.Truncated {
		return m, nil
	}
	if err != nil {
		err = wireError(strings.TrimPrefix(err.Error(), "dns: "))
	} else {
		err = checkResponse(q, m, data)
	}
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return nil, newRcodeError(m) // also if the sections are malformed
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// matches reports whether m, read from data, is a response to q: the id and the question must be those
// sent (RFC 5452, Section 9.1). Some servers leave the question out of a refusal. Those responses count
// if they are nothing but a refusal: all that a forger gains is that the next server is asked.
func matches(q, m *dns.Msg, data []byte) bool {
	if len(data) < headerLen || m.Id != q.Id || !m.Response || m.Opcode != dns.OpcodeQuery {
		return false
	}
	switch binary.BigEndian.Uint16(data[4:]) {
	case 0:
		rcode := int(data[3] & 0x0f) // without the upper part, which is in the OPT record
		return rcode != dns.RcodeSuccess && rcode != dns.RcodeNameError
	case 1:
		if len(m.Question) != 1 {
			return false
		}
		got, want := m.Question[0], q.Question[0]
		return got.Qtype == want.Qtype && got.Qclass == want.Qclass && strings.EqualFold(got.Name, want.Name)
	}
	return false
}

// checkResponse returns a wireError if m, which could be unpacked from data, must not be taken for an
// answer. A response whose OPT record is in a wrong section, or whose answers are about another name,
// was mangled on the way, and "no record" is not what it says.
func checkResponse(q, m *dns.Msg, data []byte) error {
	begins := false
	for i, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		// Unpack takes a message that ends early for one with fewer records.
		if len(section) != int(binary.BigEndian.Uint16(data[6+2*i:])) {
			return wireError("records missing")
		}
		opts := 0
		for _, rr := range section {
			h := rr.Header()
			switch {
			case h.Rrtype == dns.TypeOPT:
				if opts++; i != 2 || opts > 1 {
					return wireError("OPT record in the wrong place")
				}
			case int(h.Rdlength) < minRdlength(h.Rrtype):
				return wireError("data of " + typeName(h.Rrtype) + " record")
			case h.Ttl > maxTTL:
				h.Ttl = 0 // RFC 2181, Section 8
			}
			begins = begins || i == 0 && owns(rr, q.Question[0].Name)
		}
	}
	if len(m.Answer) > 0 && !begins {
		return wireError("answers for another name")
	}
	return nil
}

// minRdlength returns the least length of the data of a record. Unpack accepts shorter data of some
// types, and leaves fields empty.
func minRdlength(rrtype uint16) int {
	switch rrtype {
	case dns.TypeA:
		return 4
	case dns.TypeAAAA:
		return 16
	case dns.TypeMX, dns.TypeTLSA:
		return 3
	case dns.TypeSOA:
		return 22
	case dns.TypeTXT, dns.TypeCNAME, dns.TypeNS:
		return 1
	}
	return 0
}

// owns reports whether rr is a record of name. Both are in the form of package dns, which is ASCII.
func owns(rr dns.RR, name string) bool {
	h := rr.Header()
	return h.Class == dns.ClassINET && strings.EqualFold(h.Name, name)
}

// displayName returns name in lower case and without the trailing dot; the root is ".".
func displayName(name string) string {
	if name == "." {
		return name
	}
	return plain(name)
}

// plain returns name in lower case and without the trailing dot; the root, which as a host is the null
// MX (RFC 7505, Section 3), is "".
func plain(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") }

// unescape undoes the escapes of package dns in a string that it unpacked.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '\\':
			b.WriteByte(s[i])
		case s[i+1] >= '0' && s[i+1] <= '9':
			b.WriteByte((s[i+1]-'0')*100 + (s[i+2]-'0')*10 + s[i+3] - '0')
			i += 3
		default:
			b.WriteByte(s[i+1])
			i++
		}
	}
	return b.String()
}

// newRcodeError returns the error for a response whose code is no answer, with all extended errors in
// it (RFC 8914, Section 2).
func newRcodeError(m *dns.Msg) *rcodeError {
	e := &rcodeError{rcode: m.Rcode}
	opt := m.IsEdns0()
	if opt == nil {
		return e
	}
	for _, o := range opt.Option {
		ede, ok := o.(*dns.EDNS0_EDE)
		if !ok {
			continue
		}
		e.bogus = e.bogus || dns.ExtendedErrorCodeDNSBogus <= ede.InfoCode && ede.InfoCode <= dns.ExtendedErrorCodeNSECMissing
		if len(e.extended) < maxExtended {
			e.extended = append(e.extended, extendedText(ede))
		}
	}
	return e
}

// extendedText returns an extended error as text. Its own text can have any content, so it is quoted.
func extendedText(e *dns.EDNS0_EDE) string {
	s, ok := dns.ExtendedErrorCodeToString[e.InfoCode]
	if !ok {
		s = fmt.Sprintf("extended error %d", e.InfoCode)
	}
	if e.ExtraText != "" {
		s += " " + strconv.QuoteToASCII(e.ExtraText[:min(len(e.ExtraText), 200)])
	}
	return s
}

func typeName(t uint16) string {
	if s, ok := dns.TypeToString[t]; ok {
		return s
	}
	return fmt.Sprintf("TYPE%d", t)
}
