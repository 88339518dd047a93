package resolver

import (
	"strings"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/net/dns/dnsmessage"
)

// FuzzReceive holds the law that a record is taken from a response only if it is about the name that was
// asked for, or about where its CNAMEs lead, that the question was the one sent, and that whatever bytes
// come, reading them does not panic. What is taken is compared with what another reader finds.
func FuzzReceive(f *testing.F) {
	const name = "_mta-sts.example.com."
	req := new(dns.Msg).SetQuestion(name, dns.TypeTXT)
	req.Id = 0
	for _, text := range []string{
		name + ` 300 IN TXT "v=STSv1; id=1"`,
		name + ` 300 IN TXT "a" "\000\255" ""`,
		name + " 300 IN CNAME x.example.com.\nx.example.com. 60 IN TXT \"x\"",
		name + " 300 IN CNAME " + name,
		name + " 300 IN MX 10 mx.example.com.\n" + name + " 300 IN TLSA 3 1 1 00ff\n" + name + " 1 IN AAAA ::1",
		`other.example. 300 IN TXT "v=STSv1; id=1"`,
		". 300 CLASS1232 OPT \\# 0",
	} {
		m := new(dns.Msg).SetReply(req)
		for line := range strings.Lines(text) {
			rr, err := dns.NewRR(line)
			if err != nil {
				rr = &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT, Class: 1232}}
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
		q := newQuery(name, dns.TypeTXT, true)
		q.Id = 0
		m, err := receive(q, data)
		if (m == nil) == (err == nil) {
			t.Fatalf("response %v beside error %v", m, err)
		}
		if err != nil || m.Truncated {
			return
		}
		c := chain{name: name, ttl: maxTTL}
		c.follow(m, dns.TypeTXT)
		final(m, c.name, dns.TypeTXT)
		denialTTL(m, c.name)
		var taken []string
		for _, rr := range m.Answer {
			decodeMX(rr)
			decodeTLSA(rr)
			decodeAlias(rr)
			if a, ok := decodeAddr(rr); ok && !a.IsValid() {
				t.Errorf("address of %v", rr)
			}
			if s, ok := decodeTXT(rr); ok && owns(rr, c.name) {
				taken = append(taken, s)
			}
		}
		if len(taken) > 0 {
			law(t, data, name, taken)
		}
	})
}

// law compares what was taken with what another reader finds.
func law(t *testing.T, data []byte, name string, taken []string) {
	var p dnsmessage.Parser
	h, err := p.Start(data)
	if err != nil || h.ID != 0 || !h.Response {
		t.Fatalf("took %q from a message with header %v, %v", taken, h, err)
	}
	questions, err := p.AllQuestions()
	if err != nil || len(questions) != 1 || !strings.EqualFold(questions[0].Name.String(), name) ||
		questions[0].Type != dnsmessage.TypeTXT || questions[0].Class != dnsmessage.ClassINET {
		t.Fatalf("took %q from a response to %v, %v", taken, questions, err)
	}
	cnames := make(map[string]string)
	found := make(map[string][]string)
	for {
		h, err := p.AnswerHeader()
		if err == dnsmessage.ErrSectionDone {
			break
		}
		if err != nil {
			return // it reads names in another form
		}
		owner := strings.ToLower(h.Name.String())
		switch {
		case h.Class == dnsmessage.ClassINET && h.Type == dnsmessage.TypeTXT:
			r, err := p.TXTResource()
			if err != nil {
				t.Fatalf("took %q, the other reader has %v", taken, err)
			}
			found[owner] = append(found[owner], strings.Join(r.TXT, ""))
		case h.Class == dnsmessage.ClassINET && h.Type == dnsmessage.TypeCNAME:
			r, err := p.CNAMEResource()
			if err != nil {
				return
			}
			if _, ok := cnames[owner]; !ok {
				cnames[owner] = strings.ToLower(r.CNAME.String())
			}
		default:
			if p.SkipAnswer() != nil {
				return
			}
		}
	}
	end := name
	for range maxCNAMEs + 1 {
		if next, ok := cnames[end]; ok && len(found[end]) == 0 {
			end = next
		}
	}
	if strings.Join(found[end], "|") != strings.Join(taken, "|") || len(found[end]) != len(taken) {
		t.Errorf("took %q, the other reader finds %q for %s", taken, found[end], end)
	}
}
