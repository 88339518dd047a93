package redis

import (
	"crypto/x509"
	"errors"
	"strings"
	"testing"

	"stsmap/cache/cachetest"
)

// TestTLS: a server that wants a certificate is given one, and one that cannot
// prove who it is gets no password.
func TestTLS(t *testing.T) {
	files, others := cachetest.NewFiles(t, t.TempDir()), cachetest.NewFiles(t, t.TempDir())
	port := freePort(t)
	s := startServer(t, "--tls-port", port, "--tls-cert-file", files.Cert, "--tls-key-file", files.Key, "--tls-ca-cert-file", files.CA)
	s.cli("ACL", "SETUSER", "mail", "on", ">secret", "~*", "&*", "+@all")
	url := "rediss://mail:secret@127.0.0.1:" + port + "?ca_file="

	store := mustOpen(t, url+files.CA+"&cert_file="+files.Cert+"&key_file="+files.Key)
	cachetest.Put(t, store, entry(1))
	get(t, store, entry(1))
	if out := s.cli("CLIENT", "LIST"); !strings.Contains(out, "user=mail") {
		t.Errorf("clients: %s", out)
	}

	stranger := mustOpen(t, url+others.CA+"&cert_file="+files.Cert+"&key_file="+files.Key)
	if err := stranger.Put(t.Context(), entry(2)); !isUnknown(err) {
		t.Errorf("with a server of an unknown authority: %v", err)
	}
	renamed := mustOpen(t, url+files.CA+"&cert_file="+files.Cert+"&key_file="+files.Key+"&server_name=redis.example")
	if err := renamed.Put(t.Context(), entry(2)); err == nil || !strings.Contains(err.Error(), "redis.example") {
		t.Errorf("with a server of another name: %v", err)
	}
	if err := mustOpen(t, url+files.CA).Put(t.Context(), entry(2)); err == nil {
		t.Error("a client without a certificate was let in")
	}
}

func isUnknown(err error) bool {
	_, ok := errors.AsType[x509.UnknownAuthorityError](err)
	return ok
}
