package fakenet

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// zone is all that the name server knows. Names are canonical: lower case, with the final dot. A name
// that exists without records, because something exists below it, has an empty entry.
type zone struct {
	nodes  map[string][]dns.RR
	bulks  []*bulk
	faults faultList
}

// maxChain is how many CNAMEs are followed within one answer.
const maxChain = 16

// newZone returns a zone with what a root server cannot do without.
func newZone() *zone {
	z := &zone{nodes: make(map[string][]dns.RR)}
	z.nodes["."] = nil
	return z
}

// add enters a record, and all the names above it.
func (z *zone) add(rr dns.RR) {
	name := dns.CanonicalName(rr.Header().Name)
	z.enter(name)
	z.nodes[name] = append(z.nodes[name], rr)
}

// enter makes a name exist, and all the names above it (RFC 8020, Section 2).
func (z *zone) enter(name string) {
	for {
		if _, there := z.nodes[name]; there {
			return
		}
		z.nodes[name] = nil
		name = parent(name)
	}
}

// parent of the last label is the root, and so is the root's.
func parent(name string) string {
	if next, end := dns.NextLabel(name, 0); !end {
		return name[next:]
	}
	return "."
}

// complete adds the records of the root that the description left out. A resolver that starts here
// must find them.
func (z *zone) complete(server netip.Addr) {
	const host = "a.root-servers.fakenet."
	header := func(name string, t uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: 60}
	}
	if z.find(".", dns.TypeSOA) == nil {
		z.add(&dns.SOA{
			Hdr: header(".", dns.TypeSOA), Ns: host, Mbox: "hostmaster.fakenet.",
			Serial: 1, Refresh: 1800, Retry: 900, Expire: 604800, Minttl: 60,
		})
	}
	if z.find(".", dns.TypeNS) != nil {
		return
	}
	z.add(&dns.NS{Hdr: header(".", dns.TypeNS), Ns: host})
	if server.Is4() {
		z.add(&dns.A{Hdr: header(host, dns.TypeA), A: server.AsSlice()})
	} else {
		z.add(&dns.AAAA{Hdr: header(host, dns.TypeAAAA), AAAA: server.AsSlice()})
	}
}

// find returns the first record of a type that is really there.
func (z *zone) find(name string, t uint16) dns.RR {
	for _, rr := range z.nodes[name] {
		if rr.Header().Rrtype == t {
			return rr
		}
	}
	return nil
}

// node returns the records at a name, of which there may be none, and whether the name exists. Where it
// does not, the wildcard next to the closest name above it is taken (RFC 4592, Section 3.3.1).
func (z *zone) node(name string) ([]dns.RR, bool) {
	if rrs, there := z.exact(name); there {
		return rrs, true
	}
	for up := parent(name); ; up = parent(up) {
		if _, there := z.exact(up); there {
			if up == "." {
				up = ""
			}
			rrs, there := z.nodes["*."+up]
			return rrs, there
		}
	}
}

func (z *zone) exact(name string) ([]dns.RR, bool) {
	if rrs, there := z.nodes[name]; there {
		return rrs, true
	}
	for _, b := range z.bulks {
		if rrs, there := b.node(name); there {
			return rrs, true
		}
	}
	return nil, false
}

// soa returns the SOA record nearest above name, with the TTL that the zone gives it: a client that
// wants the time to live of the denial must compare it with the minimum (RFC 2308, Section 5).
func (z *zone) soa(name string) []dns.RR {
	for ; ; name = parent(name) {
		if rr := z.find(name, dns.TypeSOA); rr != nil {
			return []dns.RR{rr}
		}
		if name == "." {
			return nil
		}
	}
}

// answer fills in a reply to q, following CNAMEs unless bare is set.
func (z *zone) answer(q dns.Question, bare bool, reply *dns.Msg) {
	owner := q.Name // as the client wrote it, so that its use of upper case comes back
	for range maxChain {
		name := dns.CanonicalName(owner)
		rrs, there := z.node(name)
		if !there {
			reply.Rcode = dns.RcodeNameError
			reply.Ns = z.soa(name)
			return
		}
		var alias *dns.CNAME
		found := false
		for _, rr := range rrs {
			if t := rr.Header().Rrtype; t == q.Qtype || q.Qtype == dns.TypeANY {
				reply.Answer = append(reply.Answer, owned(rr, owner))
				found = true
			} else if c, ok := rr.(*dns.CNAME); ok {
				alias = c
			}
		}
		if found {
			return
		}
		if alias == nil {
			reply.Ns = z.soa(name)
			return
		}
		reply.Answer = append(reply.Answer, owned(alias, owner))
		if bare {
			return
		}
		owner = alias.Target
	}
}

// owned returns rr with that owner.
func owned(rr dns.RR, owner string) dns.RR {
	if rr.Header().Name == owner {
		return rr
	}
	rr = dns.Copy(rr)
	rr.Header().Name = owner
	return rr
}

// dns reads the dns section: fault lines are taken out, the rest goes through a parser of master files,
// padded with empty lines so that the line in its errors is that of the description.
func (p *parser) dns(s section, z *zone) error {
	p.zone = z
	var text strings.Builder
	text.WriteString(strings.Repeat("\n", s.line-1))
	line := s.line
	for l := range strings.Lines(string(s.data)) {
		switch trimmed := strings.TrimSpace(l); {
		case strings.HasPrefix(trimmed, "!"):
			if err := p.fault(line, strings.Fields(trimmed)); err != nil {
				return atLine(line, err)
			}
			l = "\n"
		case strings.HasPrefix(trimmed, "#"):
			l = "\n"
		}
		text.WriteString(l)
		line++
	}
	in := &lineReader{Reader: strings.NewReader(text.String())}
	zp := dns.NewZoneParser(in, ".", "")
	zp.SetDefaultTTL(300)
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		if bare(rr) {
			return atLine(in.lines, fmt.Errorf("%s %s without data", rr.Header().Name, dns.Type(rr.Header().Rrtype)))
		}
		z.add(rr)
	}
	return zoneError(zp.Err())
}

// view reads what a single name server answers.
func (p *parser) view(s section, text string) error {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return atLine(s.line-1, fmt.Errorf("bad address %q", text))
	}
	z := newZone()
	p.world.views[addr.Unmap()] = z
	return p.dns(s, z)
}

// lineReader counts the lines that the zone parser has read. The parser takes a byte at a time from it, as
// it does from any io.ByteReader, and so the count is that of the record just read.
type lineReader struct {
	*strings.Reader
	lines int
}

func (r *lineReader) ReadByte() (byte, error) {
	b, err := r.Reader.ReadByte()
	if b == '\n' {
		r.lines++
	}
	return b, err
}

// bare reports whether a record lacks its data. The parser lets that pass, for dynamic updates.
func bare(rr dns.RR) bool {
	empty := dns.TypeToRR[rr.Header().Rrtype]
	if empty == nil {
		return false
	}
	zero := empty()
	*zero.Header() = *rr.Header()
	return rr.String() == zero.String()
}

// zoneError brings an error of the zone parser, which ends in "at line: 12:3", into our form.
func zoneError(err error) error {
	var bad *dns.ParseError
	if !errors.As(err, &bad) {
		return err
	}
	text, where, _ := strings.Cut(bad.Error(), " at line: ")
	var line, column int
	if _, serr := fmt.Sscanf(where, "%d:%d", &line, &column); serr != nil {
		return err
	}
	return atLine(line, errors.New(strings.TrimPrefix(text, "dns: ")))
}

// finish completes the world, once all sections are read.
func (p *parser) finish() error {
	if err := p.answerTLSA(); err != nil {
		return err
	}
	server, _ := netip.ParseAddrPort(p.net.DNSAddr())
	p.world.complete(server.Addr().Unmap())
	for addr, z := range p.world.views {
		z.complete(addr)
	}
	return nil
}
