package resolver

import (
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// FuzzResponse holds the law that a record is taken from a response only if its question is the one
// that was asked, and that nothing a server sends makes the reader panic. What is taken is compared
// with what miekg/dns reads.
func FuzzResponse(f *testing.F) {
	const name = "_mta-sts.example.com."
	req := new(dns.Msg).SetQuestion(name, dns.TypeTXT)
	req.Id = 0
	for _, line := range []string{
		name + ` 300 IN TXT "v=STSv1; id=1"`,
		name + ` 300 IN TXT "a" "\000\255" ""`,
		name + " 300 IN CNAME x.example.com.\nx.example.com. 60 IN TXT \"x\"",
		name + " 300 IN CNAME " + name,
		name + " 300 IN MX 10 mx.example.com.\n" + name + " 300 IN TLSA 3 1 1 00ff\n" + name + " 1 IN AAAA ::1",
	} {
		m := new(dns.Msg).SetReply(req)
		for l := range strings.Lines(line) {
			rr, err := dns.NewRR(l)
			if err != nil {
				f.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		soa, _ := dns.NewRR("example.com. 60 IN SOA ns.example.com. root.example.com. 1 2 3 4 5")
		m.Ns = []dns.RR{soa}
		m.SetEdns0(1232, false)
		m.Compress = true
		data, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, kind := range []string{"id-low", "id-high", "name", "type", "class", "query", "no-question", "two-questions", "garbage", "cut-name", "bad-data"} {
		f.Add(wrong(req, kind))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		q := newQuery()
		q.name, q.qtype = name, dns.TypeTXT
		if err := q.pack(true); err != nil {
			t.Fatal(err)
		}
		q.sent[2], q.sent[3] = 0, 0
		if !q.matches(data) {
			return
		}
		err := q.accept(data)
		if err != nil || q.reply.truncated {
			return
		}
		c := chain{name: name, ttl: maxTTL}
		c.follow(&q.reply, q.qtype)
		q.reply.final(c.name, q.qtype)
		q.reply.denialTTL(c.name)
		var taken []string
		for _, rr := range q.reply.answers {
			switch rr.typ {
			case dns.TypeTXT:
				s, _ := decodeTXT(&q.reply, rr)
				taken = append(taken, s)
			case dns.TypeMX:
				decodeMX(&q.reply, rr)
			case dns.TypeTLSA:
				decodeTLSA(&q.reply, rr)
			case dns.TypeA, dns.TypeAAAA:
				if a, ok := decodeAddr(&q.reply, rr); !ok || !a.IsValid() {
					t.Errorf("address of %d octets", rr.end-rr.off)
				}
			}
		}
		law(t, data, name, taken)
	})
}

// law compares what was taken with what another reader finds, if it can read the message at all.
func law(t *testing.T, data []byte, name string, taken []string) {
	m := new(dns.Msg)
	err := m.Unpack(data)
	if len(taken) > 0 && (len(m.Question) != 1 || !strings.EqualFold(m.Question[0].Name, name) ||
		m.Question[0].Qtype != dns.TypeTXT || m.Question[0].Qclass != dns.ClassINET) {
		t.Fatalf("took %q from a response to %v", taken, m.Question)
	}
	if err != nil {
		return // of a type that nobody here reads
	}
	var found []string
	for _, rr := range m.Answer {
		if txt, ok := rr.(*dns.TXT); ok && rr.Header().Class == dns.ClassINET {
			found = append(found, unescape(strings.Join(txt.Txt, "")))
		}
	}
	if strings.Join(found, "|") != strings.Join(taken, "|") || len(found) != len(taken) {
		t.Errorf("took %q, miekg/dns finds %q", taken, found)
	}
}

// unescape undoes the escapes of miekg/dns.
func unescape(s string) string {
	var b strings.Builder
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
