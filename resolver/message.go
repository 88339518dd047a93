package resolver

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

const (
	// What is announced for UDP: it fits into the smallest packet that IPv6 promises to carry
	// (RFC 8200, Section 5), so that no answer comes in fragments.
	udpSize = 1232

	headerLen = 12
	rrLen     = 10 // of a record, what stands between its name and its data

	// Bits of the third and fourth octet of the header (RFC 1035, Section 4.1.1; RFC 6840, Section 5.7).
	bitQR, bitTC, bitRD = 0x80, 0x02, 0x01
	bitAD               = 0x20
	maskOpcode          = 0x78
	maskRcode           = 0x0f

	maxTTL = 1<<31 - 1
)

// A query is a question and, once it was asked, the response. Its buffers are used again.
type query struct {
	name  string // with the final dot, presented as miekg/dns does
	qtype uint16

	sent  []byte // the question, after the two octets of length that a stream wants (RFC 1035, Section 4.2.2)
	recv  []byte // where responses are read to
	heard bool   // there was a response, whatever became of it
	reply message
}

// A message is a response to a query. It lives in the query's buffer.
type message struct {
	data      []byte
	rcode     int
	truncated bool
	ad        bool // as received
	secure    bool // ad, and from a server that is trusted with it
	edns      bool // it has an OPT record
	answers   []record
	denial    record // the first SOA of the authority section
	extended  string // what the server says about a failure
	bogus     bool   // it says that signatures are what is wrong
}

// A record is where in a message a record's data stands, from off to end. For the types that anyone
// here asks for, the data is known to be well-formed.
type record struct {
	name     string
	typ      uint16
	ttl      uint32
	off, end int
}

func newQuery() *query {
	return &query{
		sent: make([]byte, 0, 2+headerLen+255+4+11),
		// Some servers send more than they were asked to.
		recv: make([]byte, dns.DefaultMsgSize),
	}
}

// plain is the name for people. Nobody would see that the root is meant if it had no dot.
func (q *query) plain() string {
	if q.name == "." {
		return q.name
	}
	return plain(q.name)
}

func plain(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") }

// pack writes the question, with a new random id.
//
// It asks for the AD bit by setting it, and never sets DO. That suffices for every resolver that
// follows RFC 6840, Section 5.8, and saves the signatures, which nobody here would look at, and which
// are what makes answers too large for UDP. An older resolver leaves AD clear: DANE is then not used,
// but nothing insecure is taken for secure.
func (q *query) pack(edns bool) error {
	b := q.sent[:cap(q.sent)]
	m := b[2:]
	rand.Read(m[:2])
	m[2], m[3] = bitRD, bitAD
	clear(m[4:headerLen])
	m[5] = 1
	off, err := dns.PackDomainName(q.name, m, headerLen, nil, false)
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint16(m[off:], q.qtype)
	binary.BigEndian.PutUint16(m[off+2:], dns.ClassINET)
	off += 4
	if edns {
		m[11] = 1
		opt := m[off : off+11] // RFC 6891, Section 6.1.2
		clear(opt)
		opt[2] = byte(dns.TypeOPT)
		binary.BigEndian.PutUint16(opt[3:], udpSize)
		off += len(opt)
	}
	binary.BigEndian.PutUint16(b, uint16(off))
	q.sent = b[:2+off]
	return nil
}

// question is the question section as it was sent.
func (q *query) question() []byte {
	m := q.sent[2:]
	if m[11] == 1 {
		return m[headerLen : len(m)-11]
	}
	return m[headerLen:]
}

// matches tells whether data is a response to q: the id and the question must be those sent
// (RFC 5452, Section 9.1). Some servers leave the question out of a refusal; those responses count if
// they are nothing but a refusal, since all that a forger gains is that the next server is asked.
func (q *query) matches(data []byte) bool {
	if len(data) < headerLen || data[0] != q.sent[2] || data[1] != q.sent[3] ||
		data[2]&bitQR == 0 || data[2]&maskOpcode != 0 {
		return false
	}
	switch binary.BigEndian.Uint16(data[4:]) {
	case 0:
		rcode := int(data[3] & maskRcode)
		return rcode != dns.RcodeSuccess && rcode != dns.RcodeNameError
	case 1:
		want := q.question()
		return len(data) >= headerLen+len(want) && equalFold(data[headerLen:][:len(want)], want)
	}
	return false
}

// equalFold compares the question sections without regard to case. The octets of length in a name,
// which are below 64, and those of type and class that are asked for, are not letters.
func equalFold(a, b []byte) bool {
	for i, c := range a {
		if lower(c) != lower(b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}

// accept takes data, which matches, for the response. The error is a wireError, or an *rcodeError.
//
// The records are read here and not by dns.Msg: that escapes the octets of a TXT record, which then
// had to be unescaped again, and allocates for every record of every section.
func (q *query) accept(data []byte) error {
	q.heard = true
	m := &q.reply
	*m = message{
		data:      data,
		rcode:     int(data[3] & maskRcode),
		truncated: data[2]&bitTC != 0,
		ad:        data[3]&bitAD != 0,
		answers:   m.answers[:0],
	}
	if m.truncated {
		return nil // and incomplete: whoever sees it asks again over TCP
	}
	off := headerLen
	if data[5] == 1 {
		off += len(q.question())
	}
	err := m.sections(q.name, off)
	if m.rcode != dns.RcodeSuccess && m.rcode != dns.RcodeNameError {
		return &rcodeError{rcode: m.rcode, extended: m.extended, bogus: m.bogus} // whatever was wrong behind it
	}
	return err
}

// sections reads the records behind the question.
func (m *message) sections(qname string, off int) error {
	for section := range 3 {
		n := binary.BigEndian.Uint16(m.data[6+2*section:])
		for range n {
			rr, class, err := m.record(qname, off)
			if err != nil {
				return err
			}
			off = rr.end
			switch {
			case section == 0 && class == dns.ClassINET:
				if err := m.check(rr); err != nil {
					return err
				}
				m.answers = append(m.answers, rr)
			case section == 1 && class == dns.ClassINET && rr.typ == dns.TypeSOA && m.denial.name == "":
				if err := m.check(rr); err != nil {
					return err
				}
				m.denial = rr
			case section == 2 && rr.typ == dns.TypeOPT:
				m.options(rr)
			}
		}
	}
	return nil
}

// record reads one record that begins at off, without looking at its data.
func (m *message) record(qname string, off int) (rr record, class uint16, err error) {
	d := m.data
	if off+2 <= len(d) && d[off] == 0xc0 && d[off+1] == headerLen {
		rr.name = qname // as nearly all servers write it; so it costs no allocation
		off += 2
	} else if rr.name, off, err = dns.UnpackDomainName(d, off); err != nil {
		return record{}, 0, wireError("name of a record: " + err.Error())
	}
	if off+rrLen > len(d) {
		return record{}, 0, wireError("record cut short")
	}
	rr.typ = binary.BigEndian.Uint16(d[off:])
	class = binary.BigEndian.Uint16(d[off+2:])
	rr.ttl = binary.BigEndian.Uint32(d[off+4:])
	if rr.typ != dns.TypeOPT && rr.ttl > maxTTL {
		rr.ttl = 0 // RFC 2181, Section 8
	}
	rr.off = off + rrLen
	rr.end = rr.off + int(binary.BigEndian.Uint16(d[off+8:]))
	if rr.end > len(d) {
		return record{}, 0, wireError("data of a record cut short")
	}
	return rr, class, nil
}

// check holds the data of a record against its type, so that decoding it later cannot fail.
func (m *message) check(rr record) error {
	n := rr.end - rr.off
	ok := true
	switch rr.typ {
	case dns.TypeA:
		ok = n == 4
	case dns.TypeAAAA:
		ok = n == 16
	case dns.TypeTXT:
		off := rr.off
		for off < rr.end {
			off += 1 + int(m.data[off])
		}
		ok = off == rr.end
	case dns.TypeTLSA:
		ok = n >= 3
	case dns.TypeCNAME, dns.TypeNS:
		ok = m.nameEnd(rr.off) == rr.end
	case dns.TypeMX:
		ok = n > 2 && m.nameEnd(rr.off+2) == rr.end
	case dns.TypeSOA:
		ok = m.nameEnd(m.nameEnd(rr.off))+20 == rr.end
	}
	if !ok {
		return wireError("data of " + typeName(rr.typ) + " record")
	}
	return nil
}

// nameEnd returns where the name at off ends, or a place beyond the message if it is none.
func (m *message) nameEnd(off int) int {
	_, end, err := dns.UnpackDomainName(m.data, off)
	if err != nil {
		return len(m.data) + 1
	}
	return end
}

// nameAt returns the name at off, with the final dot, of a record that was checked.
func (m *message) nameAt(off int) string {
	name, _, _ := dns.UnpackDomainName(m.data, off)
	return name
}

// options reads the OPT record: the upper part of the response code (RFC 6891, Section 6.1.3), without
// which BADVERS would be an answer without records, and the reason of a failure (RFC 8914, Section 2).
func (m *message) options(rr record) {
	m.edns = true
	m.rcode |= int(rr.ttl>>24) << 4
	if m.rcode == dns.RcodeSuccess {
		return
	}
	for d := m.data[rr.off:rr.end]; len(d) >= 4; {
		code, n := binary.BigEndian.Uint16(d), int(binary.BigEndian.Uint16(d[2:]))
		d = d[4:]
		if n > len(d) {
			return
		}
		if code == dns.EDNS0EDE && n >= 2 && m.extended == "" {
			why := binary.BigEndian.Uint16(d)
			m.extended = extendedText(why, d[2:n])
			m.bogus = dns.ExtendedErrorCodeDNSBogus <= why && why <= dns.ExtendedErrorCodeNSECMissing
		}
		d = d[n:]
	}
}

// extendedText makes words of an extended error. The text comes from anywhere, so it is quoted.
func extendedText(code uint16, text []byte) string {
	s, ok := dns.ExtendedErrorCodeToString[code]
	if !ok {
		s = fmt.Sprintf("extended error %d", code)
	}
	if len(text) > 0 {
		s += " " + strconv.QuoteToASCII(string(text[:min(len(text), 200)]))
	}
	return s
}

func typeName(t uint16) string {
	if s, ok := dns.TypeToString[t]; ok {
		return s
	}
	return fmt.Sprintf("TYPE%d", t)
}
