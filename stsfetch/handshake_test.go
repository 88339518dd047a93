package stsfetch

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"
)

// An authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue returns an authority, or the certificate of a host if host is not empty, that
// a signs; a root if a is nil. change, which can be nil, makes it different.
func (a *authority) issue(t *testing.T, name, host string, change func(*x509.Certificate)) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: host == "", KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	if host != "" {
		template.DNSNames = []string{host}
	}
	if change != nil {
		change(template)
	}
	parent, signer := template, key
	if a != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

// serveTLS accepts connections on loopback with config, and answers nothing.
func serveTLS(t *testing.T, config *tls.Config) (addr string) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

// TestHandshakeReasons: the reason of a handshake that fails is what the other
// postmaster has to repair, with the name of the certificate.
func TestHandshakeReasons(t *testing.T) {
	const host = "mta-sts.example.com"
	var none *authority
	root := none.issue(t, "Test Root", "", nil)
	middle := root.issue(t, "Test Middle", "", nil)
	old := root.issue(t, "Old Middle", "", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-24 * time.Hour) })
	young := root.issue(t, "Young Middle", "", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) })
	sha1 := func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA1 }
	weak := root.issue(t, "Weak Middle", "", sha1)
	stranger := none.issue(t, "Strange Root", "", nil)
	strange := stranger.issue(t, "Strange Middle", "", nil)
	nameless := none.issue(t, "", "", func(c *x509.Certificate) { c.Subject = pkix.Name{Organization: []string{"Nameless \x1b"}} })
	for _, c := range []struct {
		name  string
		leaf  *authority
		chain []*authority
		step  Step
		text  string
	}{
		{"good", middle.issue(t, "", host, nil), []*authority{middle}, StepHTTP, "malformed response: "},
		{"expired intermediate", old.issue(t, "", host, nil), []*authority{old}, StepCert, `intermediate certificate "Old Middle" expired on 2`},
		{"intermediate of tomorrow", young.issue(t, "", host, nil), []*authority{young}, StepCert, `intermediate certificate "Young Middle" is not valid before 2`},
		{"SHA-1", middle.issue(t, "", host, sha1), []*authority{middle}, StepCert, "certificate is signed with SHA-1, which is not accepted"},
		{"SHA-1 intermediate", weak.issue(t, "", host, nil), []*authority{weak}, StepCert, `intermediate certificate "Weak Middle" is signed with SHA-1, which is not accepted`},
		{"missing intermediate", middle.issue(t, "", host, nil), nil, StepCert, `not signed by a trusted authority: unknown issuer "Test Middle"; the host sends no intermediate certificate`},
		{"unknown root", strange.issue(t, "", host, nil), []*authority{strange}, StepCert, `not signed by a trusted authority: unknown issuer "Strange Root"`},
		{"unknown root, sent", strange.issue(t, "", host, nil), []*authority{strange, stranger}, StepCert, `not signed by a trusted authority: unknown authority "Strange Root"`},
		{"self-signed", none.issue(t, "", host, nil), nil, StepCert, "not signed by a trusted authority: it is self-signed"},
		{"nameless", nameless.issue(t, "", host, nil), nil, StepCert, `unknown issuer "O=Nameless \x1b"; the host sends no intermediate`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cert := tls.Certificate{Certificate: [][]byte{c.leaf.cert.Raw}, PrivateKey: c.leaf.key}
			for _, a := range c.chain {
				cert.Certificate = append(cert.Certificate, a.cert.Raw)
			}
			addr := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{cert}})
			want(t, fetch(t, fetcherTo(t, addr, root.cert)), c.step, c.text)
		})
	}
	t.Run("no cipher suite in common", func(t *testing.T) {
		t.Parallel()
		leaf := root.issue(t, "", host, nil)
		cert := tls.Certificate{Certificate: [][]byte{leaf.cert.Raw}, PrivateKey: leaf.key}
		// The certificate has no key for a suite with RSA.
		addr := serveTLS(t, &tls.Config{
			Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
		})
		want(t, fetch(t, fetcherTo(t, addr, root.cert)), StepTLS, "TLS handshake: remote error: tls: handshake failure: no cipher suite in common")
	})
}

// fetcherTo returns a Fetcher that trusts root and for which every address is addr.
func fetcherTo(t *testing.T, addr string, root *x509.Certificate) *Fetcher {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(root)
	w := newWorld(t, "-- dns --\nmta-sts.example.com. A 9.9.9.1\n")
	return w.fetcher(t, Config{Roots: roots, Dial: dialTo(addr)})
}

// dialTo returns a dialer that connects to addr, whatever it is asked for.
func dialTo(addr string) func(ctx context.Context, network, _ string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
}

// serverConfig returns the settings of a policy host with a certificate from a.
func (a *authority) serverConfig(t *testing.T) *tls.Config {
	t.Helper()
	leaf := a.issue(t, "", "mta-sts.example.com", nil)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.cert.Raw}, PrivateKey: leaf.key}}}
}
