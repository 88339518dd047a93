package resolver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// selfSigned makes a certificate, and the pool that trusts it.
func selfSigned(t testing.TB, names []string, ips []net.IP) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "resolver"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		DNSNames:     names,
		IPAddresses:  ips,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// TestTLS holds that DNS over TLS asks only a server with a valid certificate for the name, or the
// address, that was configured (RFC 8310, Section 8.1), and that its AD bit counts.
func TestTLS(t *testing.T) {
	s := startServer(t, "a", "x.example. 60 IN TXT \"x\"\n@ad")
	cert, pool := selfSigned(t, []string{"dns.example"}, []net.IP{net.IPv4(127, 0, 0, 1)})
	addr := s.startTLS(t, cert)
	for _, c := range []struct {
		what, server, trust string
		roots               *x509.CertPool
		secure              bool
		wrong               string // part of the error; "": an answer
	}{
		{"right name", "tls://" + addr + "#dns.example", "auto", pool, true, ""},
		{"right address", "tls://" + addr, "auto", pool, true, ""},
		{"none trusted", "tls://" + addr + "#dns.example", "no", pool, false, ""},
		{"wrong name", "tls://" + addr + "#other.example", "auto", pool, false, "not other.example"},
		{"unknown issuer", "tls://" + addr + "#dns.example", "auto", x509.NewCertPool(), false, "unknown authority"},
		{"no TLS there", "tls://" + s.addr + "#dns.example", "auto", pool, false, "cannot ask"},
	} {
		r, err := New(Config{Servers: []string{c.server}, TrustAD: c.trust, Attempts: 1, Roots: c.roots})
		if err != nil {
			t.Fatal(err)
		}
		before := len(s.queries())
		a, err := r.TXT(t.Context(), "x.example")
		if c.wrong == "" {
			if err != nil || len(a.Records) != 1 || a.Secure != c.secure {
				t.Errorf("%s: %+v, %v", c.what, a, err)
			}
			continue
		}
		if kindOf(t, err) != Network || !strings.Contains(err.Error(), c.wrong) || !strings.Contains(err.Error(), c.server) {
			t.Errorf("%s: error %v", c.what, err)
		}
		if len(s.queries()) != before {
			t.Errorf("%s: the question was told to a stranger", c.what)
		}
	}
}

// TestTLSOnly holds that a server over TLS is never asked over UDP, and that the failure of a
// certificate can be told from others by its type.
func TestTLSOnly(t *testing.T) {
	s := startServer(t, "a", `x.example. 60 IN TXT "x"`)
	cert, _ := selfSigned(t, []string{"dns.example"}, nil)
	r, err := New(Config{Servers: []string{"tls://" + s.startTLS(t, cert) + "#dns.example"}, Roots: x509.NewCertPool()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.TXT(t.Context(), "x.example")
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
		t.Errorf("error %v", err)
	}
	if got := s.queries(); len(got) != 0 {
		t.Errorf("asked: %q", got)
	}
}
