package postgres

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"stsmap/cache/cachetest"
)

// TestTLS: a server on the network that wants a certificate is given one, and
// one that cannot prove who it is gets nothing.
func TestTLS(t *testing.T) {
	files, others := cachetest.NewFiles(t, t.TempDir()), cachetest.NewFiles(t, t.TempDir())
	s, port := secureServer(t, files)
	url := fmt.Sprintf("postgres://stsmap@127.0.0.1:%s/postgres?sslmode=verify-full&sslcert=%s&sslkey=%s&sslrootcert=", port, files.Cert, files.Key)

	store := mustOpen(t, url+files.CA)
	e := cachetest.NewEntry("1.example")
	cachetest.Put(t, store, e)
	want(t, store, e)
	const one = "SELECT 1/count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND usename = 'stsmap' AND client_dn = '/CN=stsmap'"
	if err := admin(t.Context(), s.url("postgres"), one); err != nil {
		t.Errorf("no connection is encrypted: %v", err)
	}

	err := mustOpen(t, url+others.CA).Put(t.Context(), cachetest.NewEntry("2.example"))
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
		t.Errorf("with a server of an unknown authority: %v", err)
	}
	wantError(t, mustOpen(t, strings.Replace(url+files.CA, "127.0.0.1", "localhost", 1)).Put(t.Context(), cachetest.NewEntry("2.example")), "localhost")
	plain := fmt.Sprintf("postgres://stsmap@127.0.0.1:%s/postgres?sslmode=disable", port)
	if err := mustOpen(t, plain).Put(t.Context(), cachetest.NewEntry("2.example")); err == nil {
		t.Error("a client without TLS was let in")
	}
}

// secureServer starts a server that accepts only the user stsmap over the network,
// with a certificate of that name.
func secureServer(t *testing.T, files cachetest.Files) (s *server, port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ = net.SplitHostPort(l.Addr().String())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	hba := filepath.Join(dir, "hba")
	owned := map[string]string{hba: "local all postgres trust\nhostssl all stsmap 127.0.0.1/32 cert\n"}
	for from, to := range map[string]string{files.CA: "ca.pem", files.Cert: "cert.pem", files.Key: "key.pem"} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		owned[filepath.Join(dir, to)] = string(text)
	}
	if s, err = newServer(dir, "ssl=on", "ssl_ca_file="+dir+"/ca.pem", "ssl_cert_file="+dir+"/cert.pem", "ssl_key_file="+dir+"/key.pem", "hba_file="+hba); err != nil {
		t.Fatal(err)
	}
	s.listen = port
	attr, err := credential()
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range owned {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if attr == nil {
			continue
		}
		if err := os.Chown(path, int(attr.Uid), int(attr.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(s.kill)
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	if err := admin(t.Context(), s.url("postgres"), "CREATE ROLE stsmap LOGIN", "GRANT CREATE ON DATABASE postgres TO stsmap"); err != nil {
		t.Fatal(err)
	}
	return s, port
}
