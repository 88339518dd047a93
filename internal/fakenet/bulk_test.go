package fakenet

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const bulkText = `
-- dns --
elsewhere.example. A 192.0.2.3
-- bulk --
policy d%d.bulk.example 1..20000 addr=127.0.0.2 mx=mx%d.example.net mxaddr=127.0.0.3 mode=testing max_age=86400 id=X httpdelay=1ms
none n%d.bulk.example 5..9 mx=mx.example.org mxaddr=127.0.0.3 dnsdelay=20ms
`

// TestBulkDNS asks for what is computed, and for what is next to it.
func TestBulkDNS(t *testing.T) {
	t.Parallel()
	n := open(t, bulkText)
	for _, c := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"_mta-sts.d17.bulk.example.", dns.TypeTXT, `NOERROR | _mta-sts.d17.bulk.example. 300 IN TXT "v=STSv1; id=X;"`},
		{"mta-sts.d17.bulk.example.", dns.TypeA, "NOERROR | mta-sts.d17.bulk.example. 300 IN A 127.0.0.2"},
		{"mta-sts.d17.bulk.example.", dns.TypeAAAA, "NOERROR | soa=."},
		{"D20000.bulk.example.", dns.TypeMX, "NOERROR | D20000.bulk.example. 300 IN MX 10 mx20000.example.net."},
		{"mx17.example.net.", dns.TypeA, "NOERROR | mx17.example.net. 300 IN A 127.0.0.3"},
		{"d1.bulk.example.", dns.TypeA, "NOERROR | soa=."},
		{"d0.bulk.example.", dns.TypeA, "NXDOMAIN | soa=."},
		{"d01.bulk.example.", dns.TypeA, "NXDOMAIN | soa=."},
		{"d20001.bulk.example.", dns.TypeA, "NXDOMAIN | soa=."},
		{"mx0.example.net.", dns.TypeA, "NXDOMAIN | soa=."},
		{"x.d1.bulk.example.", dns.TypeA, "NXDOMAIN | soa=."},
		{"bulk.example.", dns.TypeA, "NOERROR | soa=."},
		{"n5.bulk.example.", dns.TypeMX, "NOERROR | n5.bulk.example. 300 IN MX 10 mx.example.org."},
		{"mx.example.org.", dns.TypeA, "NOERROR | mx.example.org. 300 IN A 127.0.0.3"},
		{"_mta-sts.n5.bulk.example.", dns.TypeTXT, "NXDOMAIN | soa=."},
		{"n4.bulk.example.", dns.TypeMX, "NXDOMAIN | soa=."},
		{"elsewhere.example.", dns.TypeA, "NOERROR | elsewhere.example. 300 IN A 192.0.2.3"},
	} {
		if got := summary(ask(t, n, "udp", c.name, c.qtype)); got != c.want {
			t.Errorf("%s %s:\n got %s\nwant %s", c.name, dns.Type(c.qtype), got, c.want)
		}
	}
	for _, name := range []string{"_mta-sts.n9.bulk.example.", "n9.bulk.example."} {
		start := time.Now()
		ask(t, n, "udp", name, dns.TypeTXT)
		if took := time.Since(start); took < 20*time.Millisecond {
			t.Errorf("%s: answer after %v", name, took)
		}
	}
}

// TestBulkPolicies gets the first, the last, and some of the same certificate.
func TestBulkPolicies(t *testing.T) {
	t.Parallel()
	n := open(t, bulkText)
	for _, i := range []int{1, 16, 17, 20000} {
		host := fmt.Sprintf("mta-sts.d%d.bulk.example", i)
		_, body, err := get(t, n, host)
		want := fmt.Sprintf("version: STSv1\r\nmode: testing\r\nmx: mx%d.example.net\r\nmax_age: 86400\r\n", i)
		if err != nil || string(body) != want {
			t.Errorf("%s: %q, %v", host, body, err)
		}
		if r, h := n.Requests(host), n.Handshakes(host); r != 1 || h != 1 {
			t.Errorf("%s: %d requests, %d handshakes", host, r, h)
		}
	}
	n.ca.mu.Lock()
	defer n.ca.mu.Unlock()
	if got := len(n.ca.leaves); got != 3 {
		t.Errorf("%d certificates for three blocks", got)
	}
}

// BenchmarkDNS is the price of a computed answer, with a client's on top.
func BenchmarkDNS(b *testing.B) {
	n, err := Start(bulkText, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	packet, err := new(dns.Msg).SetQuestion("_mta-sts.d17.bulk.example.", dns.TypeTXT).SetEdns0(1232, false).Pack()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		n.handle(packet, false, netip.Addr{})
	}
}

// BenchmarkLeaf is the price of a certificate that is issued on the fly.
func BenchmarkLeaf(b *testing.B) {
	ca, err := newAuthority()
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		if _, err := ca.leaf(certSpec{names: fmt.Sprintf("d%d.example", i)}); err != nil {
			b.Fatal(err)
		}
	}
}
