package postconf

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// A Trust is where smtp(8) finds the certificates of the authorities that it
// trusts. With neither it trusts nobody, and mail that needs a valid certificate
// waits.
type Trust struct {
	File      string // File is smtp_tls_CAfile.
	Directory string // Directory is smtp_tls_CApath.
	Defaults  bool   // Defaults is tls_append_default_CA: what OpenSSL trusts is trusted, too.
}

// DetectTrust asks postconf(1) for the Trust of main.cf. Errors are those of
// Detect. It may be called concurrently.
func DetectTrust(ctx context.Context, configDirectory string) (Trust, error) {
	p := program{directory: configDirectory}
	if err := p.find(); err != nil {
		return Trust{}, err
	}
	main, err := p.settings(ctx, "smtp_tls_CAfile", "smtp_tls_CApath", "tls_append_default_CA")
	if err != nil {
		return Trust{}, err
	}
	return Trust{File: main["smtp_tls_CAfile"], Directory: main["smtp_tls_CApath"], Defaults: main["tls_append_default_CA"] == "yes"}, nil
}

// String says where that is, in the words of main.cf.
func (t Trust) String() string {
	switch {
	case t.File != "" && t.Directory != "":
		return "smtp_tls_CAfile = " + t.File + ", smtp_tls_CApath = " + t.Directory
	case t.File != "":
		return "smtp_tls_CAfile = " + t.File
	case t.Directory != "":
		return "smtp_tls_CApath = " + t.Directory
	case t.Defaults:
		return "tls_append_default_CA = yes"
	}
	return "smtp_tls_CAfile and smtp_tls_CApath are empty"
}

// ErrNoTrust means that there is no certificate where Postfix looks for them: it
// can authenticate nobody, and its owner has to name a file that has some.
var ErrNoTrust = errors.New("no certificates of authorities")

const (
	// maxFiles bounds the files of a directory that are read; a large one has
	// some hundred, each with two names.
	maxFiles = 8192
	// maxFileSize is more than any bundle has, in bytes.
	maxFileSize = 16 << 20
)

// Pool reads the certificates. Files of a directory that have none are left out,
// as OpenSSL leaves out those that are not named for their hash. The error wraps
// ErrNoTrust if there are none, or is that of a file that cannot be read, as
// smtp(8) could not. It reads from outside the chroot that smtp(8) may be in.
func (t Trust) Pool() (*x509.CertPool, error) {
	pool, some := x509.NewCertPool(), false
	if t.Defaults {
		system, err := x509.SystemCertPool()
		if err != nil {
			return nil, err
		}
		pool, some = system, true
	}
	if t.File != "" {
		bundle, err := readCertificates(t.File)
		if err != nil {
			return nil, fmt.Errorf("smtp_tls_CAfile: %w", err)
		}
		some = pool.AppendCertsFromPEM(bundle) || some
	}
	if t.Directory != "" {
		files, err := os.ReadDir(t.Directory)
		if err != nil {
			return nil, fmt.Errorf("smtp_tls_CApath: %w", err)
		}
		for _, f := range files[:min(len(files), maxFiles)] {
			if text, err := readCertificates(filepath.Join(t.Directory, f.Name())); err == nil {
				some = pool.AppendCertsFromPEM(text) || some
			}
		}
	}
	if !some {
		return nil, fmt.Errorf("%w: %s", ErrNoTrust, t)
	}
	return pool, nil
}

// readCertificates reads a file, if it is one and not too large.
func readCertificates(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFileSize {
		return nil, fmt.Errorf("%s is not a file of certificates", path)
	}
	return os.ReadFile(path)
}
