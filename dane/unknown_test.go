package dane

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"stsmap/internal/fakenet"
	"stsmap/resolver"
)

// TestUnknown: a trusted server fails, and one that is not trusted answers. What that one says is neither
// secure nor insecure: it leaves DANE unknown, as a failed lookup does (conformance C.3, rows 5 and 6).
func TestUnknown(t *testing.T) {
	const records = `
example.com. MX 10 mx1.example.com.
example.com. MX 20 mx2.example.com.
example.com. MX 30 mx3.example.com.
mx1.example.com. A 192.0.2.11
mx2.example.com. A 192.0.2.12
mx3.example.com. A 192.0.2.13
example.net. MX 10 mx1.example.com.
_25._tcp.mx1.example.com. TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
!ad *
`
	trusted := start(t, records+"!servfail _25._tcp.mx1.example.com\n!servfail mx2.example.com\n!servfail example.net\n")
	other := start(t, records)
	servers := map[string]string{"127.0.0.1:53": trusted.DNSAddr(), "192.0.2.1:53": other.DNSAddr()}
	r, err := resolver.New(resolver.Config{
		Servers: []string{"192.0.2.1", "127.0.0.1"}, Timeout: time.Minute,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, servers[addr])
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `1m0s secure
  mx1.example.com failed: _25._tcp.mx1.example.com TLSA: no answer from a trusted server, and the AD bit of 192.0.2.1:53 does not count
  mx2.example.com failed: mx2.example.com A: no answer from a trusted server, and the AD bit of 192.0.2.1:53 does not count
  mx3.example.com none
error: example.net MX: no answer from a trusted server, and the AD bit of 192.0.2.1:53 does not count
`
	var got string
	for _, domain := range []string{"example.com", "example.net"} {
		res, err := Check(t.Context(), r, NextHop{Domain: domain})
		got += show(t, res, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
}

// start starts a name server with records.
func start(t *testing.T, records string) *fakenet.Net {
	t.Helper()
	n, err := fakenet.Start("-- dns --\n$TTL 300\n"+records, fakenet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}
