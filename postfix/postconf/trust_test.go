package postconf

import (
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"stsmap/internal/fakenet"
)

// TestTrust: what the real postconf says of a main.cf is what is trusted: what
// is in the file, what is in the directory, and nothing without either.
func TestTrust(t *testing.T) {
	n, err := fakenet.Start("", fakenet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	dir := t.TempDir()
	file, hashed := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "certs")
	if err := os.Mkdir(hashed, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, file, string(n.CAPEM()), 0o644)
	write(t, filepath.Join(hashed, "0a1b2c3d.0"), string(n.CAPEM()), 0o644)
	write(t, filepath.Join(hashed, "README"), "nothing\n", 0o644)
	empty := filepath.Join(dir, "empty.pem")
	write(t, empty, "", 0o644)
	for _, c := range []struct {
		main, says string
		want       *x509.CertPool // nil: ErrNoTrust
	}{
		{"smtp_tls_CAfile = " + file, "smtp_tls_CAfile = " + file, n.Roots()},
		{"smtp_tls_CApath = " + hashed, "smtp_tls_CApath = " + hashed, n.Roots()},
		{"smtp_tls_CAfile = " + file + "\nsmtp_tls_CApath = " + hashed, "smtp_tls_CAfile = " + file + ", smtp_tls_CApath = " + hashed, n.Roots()},
		{"smtp_tls_CAfile = " + empty, "smtp_tls_CAfile = " + empty, nil},
		{"smtp_tls_CAfile =\nsmtp_tls_CApath =", "smtp_tls_CAfile and smtp_tls_CApath are empty", nil},
	} {
		conf := t.TempDir()
		write(t, filepath.Join(conf, "main.cf"), "compatibility_level = 3.6\n"+c.main+"\n", 0o644)
		write(t, filepath.Join(conf, "master.cf"), "", 0o644)
		trust, err := DetectTrust(t.Context(), conf)
		if err != nil {
			t.Fatal(err)
		}
		if trust.String() != c.says {
			t.Errorf("%s: says %s", c.main, trust)
		}
		pool, err := trust.Pool()
		if c.want == nil != errors.Is(err, ErrNoTrust) || c.want != nil && (err != nil || !pool.Equal(c.want)) {
			t.Errorf("%s: %v", c.main, err)
		}
	}
	for _, wrong := range []Trust{{File: filepath.Join(dir, "none")}, {Directory: filepath.Join(dir, "none")}, {File: dir}} {
		if _, err := wrong.Pool(); err == nil || errors.Is(err, ErrNoTrust) || !strings.Contains(err.Error(), "smtp_tls_CA") {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
}
