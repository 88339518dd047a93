package fakenet

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// bulk is one line of the bulk section: many similar domains, whose records and policies are computed on
// each query.
type bulk struct {
	domains   series
	policies  bool   // or else the domains have no MTA-STS record
	mx        series // unset: no MX records
	id, mode  string
	maxAge    int
	addr      netip.Addr
	mxAddr    netip.Addr // unset: the names of the MX hosts exist elsewhere, or not at all
	dnsDelay  time.Duration
	httpDelay time.Duration
}

// blockSize is how many domains of a bulk share a certificate, since issuing one costs about as much as
// half a handshake. Certificates with that many names are common.
const blockSize = 16

// series is a pattern such as d%d.example with the numbers to put in, or one name if fixed is set. Names
// in it are canonical.
type series struct {
	prefix, suffix string // around the number; the suffix begins with a dot
	low, high      int
	fixed          string
}

// newSeries reads a pattern.
func newSeries(pattern string, low, high int) (series, error) {
	s := series{low: low, high: high}
	name := dns.CanonicalName(pattern)
	prefix, suffix, ok := strings.Cut(name, "%d")
	switch {
	case !ok:
		s.fixed = name
	case strings.Contains(prefix, ".") || !strings.HasPrefix(suffix, ".") || strings.Contains(suffix, "%"):
		return s, fmt.Errorf("pattern %q: %%d must be at the end of the first label, once", pattern)
	default:
		s.prefix, s.suffix = prefix, suffix
	}
	return s, nil
}

func (s series) name(i int) string {
	if s.fixed != "" {
		return s.fixed
	}
	return s.prefix + strconv.Itoa(i) + s.suffix
}

// index tells which of the series has that name.
func (s series) index(name string) (int, bool) {
	if s.suffix == "" {
		return 0, false
	}
	digits, ok := strings.CutSuffix(name, s.suffix)
	if !ok {
		return 0, false
	}
	if digits, ok = strings.CutPrefix(digits, s.prefix); !ok {
		return 0, false
	}
	i, err := strconv.Atoi(digits)
	if err != nil || i < s.low || i > s.high || strconv.Itoa(i) != digits {
		return 0, false
	}
	return i, true
}

// covers reports whether name belongs to the bulk, or is below one of its domains.
func (b *bulk) covers(name string) bool {
	if _, ok := b.mx.index(name); ok {
		return true
	}
	above, ok := strings.CutSuffix(name, b.domains.suffix)
	if !ok {
		return false
	}
	_, ok = b.domains.index(name[strings.LastIndexByte(above, '.')+1:])
	return ok
}

// node computes the records at a name, and whether it exists.
func (b *bulk) node(name string) ([]dns.RR, bool) {
	if i, ok := b.domains.index(name); ok {
		if b.mx == (series{}) {
			return nil, true
		}
		return []dns.RR{&dns.MX{Hdr: b.header(name, dns.TypeMX), Preference: 10, Mx: b.mx.name(i)}}, true
	}
	if _, ok := b.mx.index(name); ok && b.mxAddr.IsValid() {
		return []dns.RR{b.address(name, b.mxAddr)}, true
	}
	if !b.policies {
		return nil, false
	}
	if domain, ok := strings.CutPrefix(name, "_mta-sts."); ok {
		if _, ok := b.domains.index(domain); ok {
			return []dns.RR{&dns.TXT{Hdr: b.header(name, dns.TypeTXT), Txt: []string{"v=STSv1; id=" + b.id + ";"}}}, true
		}
	}
	if domain, ok := strings.CutPrefix(name, "mta-sts."); ok {
		if _, ok := b.domains.index(domain); ok {
			return []dns.RR{b.address(name, b.addr)}, true
		}
	}
	return nil, false
}

func (b *bulk) header(name string, t uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: 300}
}

func (b *bulk) address(name string, a netip.Addr) dns.RR {
	if a.Is4() {
		return &dns.A{Hdr: b.header(name, dns.TypeA), A: a.AsSlice()}
	}
	return &dns.AAAA{Hdr: b.header(name, dns.TypeAAAA), AAAA: a.AsSlice()}
}

// policyHost computes the policy host of that name, or returns nil.
func (b *bulk) policyHost(name string) *policyHost {
	domain, ok := strings.CutPrefix(name, "mta-sts.")
	if !ok {
		return nil
	}
	i, ok := b.domains.index(domain + ".")
	if !ok {
		return nil
	}
	body := "version: STSv1\r\nmode: " + b.mode + "\r\n"
	if b.mx != (series{}) {
		body += "mx: " + hostKey(b.mx.name(i)) + "\r\n"
	}
	h := newPolicyHost(name, []byte(body+"max_age: "+strconv.Itoa(b.maxAge)+"\r\n"))
	h.cert.names, h.delay = b.block(i), b.httpDelay
	return h
}

// block is the names in the certificate for domain i.
func (b *bulk) block(i int) string {
	first := i - (i-b.domains.low)%blockSize
	last := min(first+blockSize-1, b.domains.high)
	var names strings.Builder
	for i := first; i <= last; i++ {
		if i > first {
			names.WriteByte(',')
		}
		names.WriteString("mta-sts." + hostKey(b.domains.name(i)))
	}
	return names.String()
}

// bulk reads a line of the bulk section.
func (p *parser) bulk(fields []field) error {
	if len(fields) < 3 {
		return errors.New("bulk: wants policy or none, a pattern, and a range")
	}
	b := &bulk{id: "1", mode: "enforce", maxAge: 604800}
	switch fields[0].key {
	case "policy":
		b.policies = true
	case "none":
	default:
		return fields[0].unknown()
	}
	var low, high int
	if _, err := fmt.Sscanf(fields[2].key, "%d..%d", &low, &high); err != nil || low < 0 || high < low {
		return fmt.Errorf("bad range %q", fields[2].key)
	}
	var err error
	if b.domains, err = newSeries(fields[1].key, low, high); err != nil {
		return err
	}
	if b.domains.fixed != "" {
		return fmt.Errorf("pattern %q has no %%d", fields[1].key)
	}
	for _, f := range fields[3:] {
		if err := b.read(f); err != nil {
			return err
		}
	}
	if b.policies != b.addr.IsValid() {
		return errors.New("bulk: a policy wants addr=, none does not")
	}
	p.enterBulk(b)
	return nil
}

// read takes one word of the line.
func (b *bulk) read(f field) (err error) {
	switch f.key {
	case "addr":
		b.addr, err = f.addr()
	case "mx":
		b.mx, err = newSeries(f.value, b.domains.low, b.domains.high)
	case "mxaddr":
		b.mxAddr, err = f.addr()
	case "id":
		b.id = f.value
	case "mode":
		b.mode = f.value
	case "max_age":
		b.maxAge, err = f.number(0, 1<<40)
	case "dnsdelay":
		b.dnsDelay, err = f.duration()
	case "httpdelay":
		b.httpDelay, err = f.duration()
	default:
		return f.unknown()
	}
	return err
}

// enterBulk makes the bulk known to the zone and to its site.
func (p *parser) enterBulk(b *bulk) {
	z := p.world.zone
	z.bulks = append(z.bulks, b)
	z.enter(b.domains.suffix[1:])
	if b.mx.suffix != "" {
		z.enter(b.mx.suffix[1:])
	}
	if b.mx.fixed != "" && b.mxAddr.IsValid() && len(z.nodes[b.mx.fixed]) == 0 {
		z.add(b.address(b.mx.fixed, b.mxAddr))
	}
	if b.addr.IsValid() {
		s := p.world.site(b.addr)
		s.bulks = append(s.bulks, b)
	}
}
