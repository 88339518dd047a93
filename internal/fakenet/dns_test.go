package fakenet

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// ask puts one question with EDNS, as a plain client.
func ask(t *testing.T, n *Net, network, name string, qtype uint16) *dns.Msg {
	t.Helper()
	reply, err := exchange(n, network, new(dns.Msg).SetQuestion(name, qtype).SetEdns0(1232, false))
	if err != nil {
		t.Fatalf("%s %s: %v", name, dns.Type(qtype), err)
	}
	return reply
}

// exchange waits long for what must come; for silence see quiet.
func exchange(n *Net, network string, query *dns.Msg) (*dns.Msg, error) {
	client := dns.Client{Net: network, Timeout: time.Minute}
	reply, _, err := client.Exchange(query, n.DNSAddr())
	return reply, err
}

// summary is an answer in one line: status, answers, and the owners of the authority section.
func summary(m *dns.Msg) string {
	words := []string{dns.RcodeToString[m.Rcode]}
	for _, rr := range m.Answer {
		words = append(words, strings.Join(strings.Fields(rr.String()), " "))
	}
	for _, rr := range m.Ns {
		words = append(words, "soa="+rr.Header().Name)
	}
	return strings.Join(words, " | ")
}

const zoneText = `
-- dns --
$TTL 120
example.com. 30 SOA ns.example.com. admin.example.com. 1 2 3 4 77
example.com. MX 10 mx1.example.com.
	TXT "one" "two" ; the owner of the line above
deep.in.the.example.org. A 192.0.2.1
alias.example.com. CNAME target.example.org.
target.example.org. A 192.0.2.2
lost.example.com. CNAME nowhere.example.org.
loop.example.com. CNAME loop.example.com.
*.wild.example.com. TXT "star"
bare.example.com. CNAME target.example.org.
!bare bare.example.com
`

// TestAnswers is what an authoritative server owes its clients.
func TestAnswers(t *testing.T) {
	t.Parallel()
	n := open(t, zoneText)
	for _, c := range []struct {
		what, name string
		qtype      uint16
		want       string
	}{
		{"a record, with the TTL of the zone", "example.com.", dns.TypeMX, "NOERROR | example.com. 120 IN MX 10 mx1.example.com."},
		{"strings of a TXT record", "example.com.", dns.TypeTXT, `NOERROR | example.com. 120 IN TXT "one" "two"`},
		{"other type: RFC 2308, Section 2.2", "example.com.", dns.TypeA, "NOERROR | soa=example.com."},
		{"DS is not served", "example.com.", dns.TypeDS, "NOERROR | soa=example.com."},
		{"no such name: RFC 2308, Section 2.1", "no.example.com.", dns.TypeA, "NXDOMAIN | soa=example.com."},
		{"empty non-terminal: RFC 8020, Section 2", "in.the.example.org.", dns.TypeA, "NOERROR | soa=."},
		{"top level", "org.", dns.TypeNS, "NOERROR | soa=."},
		{"root", ".", dns.TypeNS, "NOERROR | . 60 IN NS a.root-servers.fakenet."},
		{"root server", "a.root-servers.fakenet.", dns.TypeA, "NOERROR | a.root-servers.fakenet. 60 IN A 127.0.0.1"},
		{"no such top level", "nope.", dns.TypeA, "NXDOMAIN | soa=."},
		{"case comes back", "eXample.COM.", dns.TypeMX, "NOERROR | eXample.COM. 120 IN MX 10 mx1.example.com."},
		{"CNAME is followed", "alias.example.com.", dns.TypeA, "NOERROR | alias.example.com. 120 IN CNAME target.example.org. | target.example.org. 120 IN A 192.0.2.2"},
		{"CNAME itself", "alias.example.com.", dns.TypeCNAME, "NOERROR | alias.example.com. 120 IN CNAME target.example.org."},
		{"CNAME without data", "alias.example.com.", dns.TypeTXT, "NOERROR | alias.example.com. 120 IN CNAME target.example.org. | soa=."},
		{"CNAME to nowhere: RFC 6604, Section 3", "lost.example.com.", dns.TypeA, "NXDOMAIN | lost.example.com. 120 IN CNAME nowhere.example.org. | soa=."},
		{"bare CNAME", "bare.example.com.", dns.TypeA, "NOERROR | bare.example.com. 120 IN CNAME target.example.org."},
		{"wildcard: RFC 4592", "x.y.wild.example.com.", dns.TypeTXT, `NOERROR | x.y.wild.example.com. 120 IN TXT "star"`},
		{"wildcard, other type", "x.wild.example.com.", dns.TypeA, "NOERROR | soa=example.com."},
	} {
		for _, network := range []string{"udp", "tcp"} {
			m := ask(t, n, network, c.name, c.qtype)
			if got := summary(m); got != c.want {
				t.Errorf("%s (%s):\n got %s\nwant %s", c.what, network, got, c.want)
			}
			if !m.Authoritative || !m.RecursionAvailable || m.IsEdns0() == nil || m.Question[0].Name != c.name {
				t.Errorf("%s: AA, RA, EDNS or question is wrong in\n%v", c.what, m)
			}
		}
	}
	loop := ask(t, n, "udp", "loop.example.com.", dns.TypeA)
	if len(loop.Answer) == 0 || loop.Rcode != dns.RcodeSuccess {
		t.Errorf("CNAME loop: %v", loop)
	}
	if got := ask(t, n, "udp", "example.com.", dns.TypeA).Ns[0].(*dns.SOA); got.Hdr.Ttl != 30 || got.Minttl != 77 {
		t.Errorf("SOA of a denial: %v", got)
	}
	if got := n.Queries("example.com", "MX"); got != 4 {
		t.Errorf("Queries: %d, want 4", got)
	}
	if one, all := n.Queries("EXAMPLE.com.", ""), n.Queries("", ""); one <= 4 || all <= one {
		t.Errorf("Queries of all types: %d, of all: %d", one, all)
	}
}

// TestFaults sees each fault with a plain client.
func TestFaults(t *testing.T) {
	t.Parallel()
	n := open(t, `
-- dns --
$TTL 60
*.example. A 192.0.2.1
!servfail servfail.example A
!refused refused.example
!formerr formerr.example
!notimp notimp.example
!nxdomain nxdomain.example
!truncate truncate.example
!servfail *.below.example
!ad ad.example
`)
	for name, want := range map[string]string{
		"servfail.example.":  "SERVFAIL",
		"refused.example.":   "REFUSED",
		"formerr.example.":   "FORMERR",
		"notimp.example.":    "NOTIMP",
		"nxdomain.example.":  "NXDOMAIN | soa=.",
		"x.below.example.":   "SERVFAIL",
		"truncate.example.":  "NOERROR",
		"untouched.example.": "NOERROR | untouched.example. 60 IN A 192.0.2.1",
	} {
		m := ask(t, n, "udp", name, dns.TypeA)
		if got := summary(m); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		if want := name == "truncate.example."; m.Truncated != want {
			t.Errorf("%s: TC is %t", name, m.Truncated)
		}
	}
	if got := summary(ask(t, n, "udp", "servfail.example.", dns.TypeTXT)); got != "NOERROR | soa=." {
		t.Errorf("fault of another type: %s", got)
	}
	if got := summary(ask(t, n, "tcp", "truncate.example.", dns.TypeA)); got != "NOERROR | truncate.example. 60 IN A 192.0.2.1" {
		t.Errorf("!truncate over TCP: %s", got)
	}
	for _, asked := range []bool{false, true} {
		m, err := exchange(n, "udp", new(dns.Msg).SetQuestion("ad.example.", dns.TypeA).SetEdns0(1232, asked))
		if err != nil || m.AuthenticatedData != asked {
			t.Errorf("!ad with DO=%t: %v, %v", asked, m, err)
		}
	}
}

// packets reads the n next packets that answer query.
func packets(t *testing.T, n *Net, query *dns.Msg, count int) [][]byte {
	t.Helper()
	packet, err := query.Pack()
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, "udp", n.DNSAddr())
	send(t, c, packet)
	var all [][]byte
	for range count {
		all = append(all, []byte(readText(t, c)))
	}
	return all
}

// TestBadPackets looks at answers that a client library would hide.
func TestBadPackets(t *testing.T) {
	t.Parallel()
	n := open(t, `
-- dns --
*.example. A 192.0.2.1
!garbage garbage.example
!wrongid wrongid.example
`)
	query := new(dns.Msg).SetQuestion("garbage.example.", dns.TypeA)
	if m := new(dns.Msg); m.Unpack(packets(t, n, query, 1)[0]) == nil {
		t.Errorf("!garbage can be parsed: %v", m)
	} else if m.Id != query.Id || !m.Response {
		t.Errorf("!garbage is not even an answer: %v", m)
	}
	query = new(dns.Msg).SetQuestion("wrongid.example.", dns.TypeA)
	two := packets(t, n, query, 2)
	var ids []uint16
	for _, p := range two {
		m := new(dns.Msg)
		if err := m.Unpack(p); err != nil || len(m.Answer) != 1 {
			t.Fatalf("!wrongid: %v, %v", m, err)
		}
		ids = append(ids, m.Id)
	}
	if ids[0] == query.Id || ids[1] != query.Id {
		t.Errorf("!wrongid: asked with %d, got %d", query.Id, ids)
	}
}

// TestSilence asks, and then asks something else on the same socket: the first answer to come is the
// second one's. So the test waits for nothing.
func TestSilence(t *testing.T) {
	t.Parallel()
	n := open(t, `
-- dns --
*.example. A 192.0.2.1
!silent silent.example
!drop 2 drop.example A
!delay 1h slow.example
!truncate-notcp notcp.example
`)
	c := dial(t, "udp", n.DNSAddr())
	for _, name := range []string{"silent.example.", "silent.example.", "silent.example.", "drop.example.", "drop.example.", "slow.example.", "drop.example."} {
		packet, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
		if err != nil {
			t.Fatal(err)
		}
		send(t, c, packet)
	}
	m := new(dns.Msg)
	if err := m.Unpack([]byte(readText(t, c))); err != nil || m.Question[0].Name != "drop.example." {
		t.Errorf("first answer: %v, %v", m, err)
	}
	if got := n.Queries("drop.example", "A"); got != 3 {
		t.Errorf("Queries counts %d, want the dropped ones as well", got)
	}
	if m := ask(t, n, "udp", "notcp.example.", dns.TypeA); !m.Truncated {
		t.Errorf("!truncate-notcp over UDP: %v", m)
	}
	if m, err := exchange(n, "tcp", new(dns.Msg).SetQuestion("notcp.example.", dns.TypeA)); err == nil {
		t.Errorf("!truncate-notcp over TCP: %v", m)
	}
}

// TestDelay only knows that an answer must not come too early.
func TestDelay(t *testing.T) {
	t.Parallel()
	n := open(t, "-- dns --\na.example. A 192.0.2.1\n!delay 30ms * A\n!delay 10ms a.example\n")
	for _, network := range []string{"udp", "tcp"} {
		start := time.Now()
		ask(t, n, network, "a.example.", dns.TypeA)
		if took := time.Since(start); took < 30*time.Millisecond {
			t.Errorf("%s: answer after %v", network, took)
		}
	}
}

// TestSizes holds answers to what the client can take: 512 bytes without EDNS, else what it says
// (RFC 6891, Section 6.2.3).
func TestSizes(t *testing.T) {
	t.Parallel()
	var zone strings.Builder
	zone.WriteString("-- dns --\n")
	for i := range 20 {
		fmt.Fprintf(&zone, "big.example. TXT \"%02d %s\"\n", i, strings.Repeat("x", 40))
	}
	n := open(t, zone.String())
	for _, size := range []uint16{0, 512, 800, 1232} {
		query := new(dns.Msg).SetQuestion("big.example.", dns.TypeTXT)
		if size > 0 {
			query.SetEdns0(size, false)
		}
		packet := packets(t, n, query, 1)[0]
		m := new(dns.Msg)
		if err := m.Unpack(packet); err != nil {
			t.Fatal(err)
		}
		if whole := len(m.Answer) == 20; len(packet) > int(max(size, 512)) || m.Truncated == whole {
			t.Errorf("room for %d: %d bytes, %d records, TC=%t", size, len(packet), len(m.Answer), m.Truncated)
		}
	}
	if m := ask(t, n, "tcp", "big.example.", dns.TypeTXT); len(m.Answer) != 20 || m.Truncated {
		t.Errorf("over TCP: %v", m)
	}
}

// TestBadQuestions holds the server to the codes for what it does not understand.
func TestBadQuestions(t *testing.T) {
	t.Parallel()
	n := open(t, "")
	version := new(dns.Msg).SetQuestion("a.example.", dns.TypeA).SetEdns0(1232, false)
	version.IsEdns0().SetVersion(1)
	notify := new(dns.Msg).SetNotify("a.example.")
	chaos := new(dns.Msg).SetQuestion("version.bind.", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	none := new(dns.Msg)
	none.Id = dns.Id()
	for _, c := range []struct {
		query *dns.Msg
		want  int
	}{
		{version, dns.RcodeBadVers},
		{notify, dns.RcodeNotImplemented},
		{chaos, dns.RcodeRefused},
		{none, dns.RcodeFormatError},
	} {
		m := new(dns.Msg)
		if err := m.Unpack(packets(t, n, c.query, 1)[0]); err != nil || m.Rcode != c.want {
			t.Errorf("want %s, got %v, %v", dns.RcodeToString[c.want], m, err)
		}
	}
}

// TestPipelining sends a slow question before a fast one on one TCP connection (RFC 7766,
// Section 6.2.1.1).
func TestPipelining(t *testing.T) {
	t.Parallel()
	n := open(t, "-- dns --\n*.example. A 192.0.2.1\n!delay 50ms slow.example\n")
	c := &dns.Conn{Conn: dial(t, "tcp", n.DNSAddr())}
	want := []string{"slow.example.", "fast.example."}
	for _, name := range want {
		if err := c.WriteMsg(new(dns.Msg).SetQuestion(name, dns.TypeA)); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for range want {
		m, err := c.ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m.Question[0].Name)
	}
	slices.Reverse(want)
	if !slices.Equal(got, want) {
		t.Errorf("order of answers: %q", got)
	}
}

// TestIPv6 listens on ::1 if this machine has it; elsewhere Start must say that it cannot.
func TestIPv6(t *testing.T) {
	t.Parallel()
	probe, perr := net.Listen("tcp", "[::1]:0")
	if perr == nil {
		probe.Close()
	}
	n, err := Start("", Options{DNS: "[::1]:0"})
	if (err == nil) != (perr == nil) {
		t.Fatalf("Start: %v, net.Listen: %v", err, perr)
	}
	if err != nil {
		return
	}
	defer n.Close()
	if got := summary(ask(t, n, "udp", "a.root-servers.fakenet.", dns.TypeAAAA)); !strings.HasSuffix(got, "AAAA ::1") {
		t.Errorf("root server: %s", got)
	}
}

// TestViews: a name server with a section of its own gives its own answers, over
// UDP and TCP, also after an update.
func TestViews(t *testing.T) {
	t.Parallel()
	const world = "-- dns --\nexample.com. TXT all\n-- ns/192.0.2.53 --\nexample.com. TXT "
	n := open(t, world+"one\n")
	ask := func(network string) string {
		conn, err := n.Dial(t.Context(), network, "192.0.2.53:53")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		m := new(dns.Msg)
		m.SetQuestion("example.com.", dns.TypeTXT)
		c := &dns.Conn{Conn: conn}
		if err := c.WriteMsg(m); err != nil {
			t.Fatal(err)
		}
		reply, err := c.ReadMsg()
		if err != nil || len(reply.Answer) != 1 {
			t.Fatal(reply, err)
		}
		return reply.Answer[0].(*dns.TXT).Txt[0]
	}
	for _, network := range []string{"udp", "tcp"} {
		if got := ask(network); got != "one" {
			t.Errorf("%s: %s", network, got)
		}
	}
	if err := n.Update(world + "two\n"); err != nil {
		t.Fatal(err)
	}
	if got := ask("udp"); got != "two" {
		t.Errorf("after an update: %s", got)
	}
	if err := n.Update("-- ns/nowhere --\n"); err == nil || !strings.Contains(err.Error(), "line 1: bad address") {
		t.Error(err)
	}
}
