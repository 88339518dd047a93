package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"

	"stsmap/config"
)

// TestDNSAuthority: dns.ca_file has the trust anchors for DNS over TLS, and without it those of the system
// count.
func TestDNSAuthority(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"dns.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	srv := &dns.Server{Listener: l, Net: "tcp-tls", Handler: dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) {
		m := new(dns.Msg)
		w.WriteMsg(m.SetRcode(req, dns.RcodeNameError))
	})}
	ended := make(chan error)
	go func() { ended <- srv.ActivateAndServe() }()
	defer func() {
		l.Close()
		<-ended
	}()

	cfg := config.Default()
	cfg.DNS.Servers = []string{"tls://" + l.Addr().String() + "#dns.example"}
	for _, path := range []string{file, ""} {
		cfg.DNS.CAFile = path
		r, err := newResolver(&cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.TXT(t.Context(), "_mta-sts.example.com")
		if _, refused := errors.AsType[*tls.CertificateVerificationError](err); refused != (path == "") {
			t.Errorf("dns.ca_file = %q: %v", path, err)
		}
	}
}
