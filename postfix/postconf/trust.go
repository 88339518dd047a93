package postconf

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// A Trust is where smtp(8) finds its trust anchors. The zero Trust has none: Postfix
// then defers mail that needs a valid certificate.
type Trust struct {
	File      string // File is smtp_tls_CAfile.
	Directory string // Directory is smtp_tls_CApath.
	Defaults  bool   // Defaults is tls_append_default_CA: the trust anchors of OpenSSL count, too.
}

// DetectTrust returns the Trust of main.cf. An empty configDirectory is the default
// of postconf. Errors are those of Detect. It may be called concurrently.
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

// String returns t as settings of main.cf.
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

// ErrNoTrust means that Postfix has no trust anchors, and so cannot authenticate any
// MX host. The administrator has to set smtp_tls_CAfile.
var ErrNoTrust = errors.New("no certificates of authorities")

const (
	// maxFiles limits the files of a directory that are read. A large directory
	// has some hundred certificates, each with two names.
	maxFiles = 8192
	// maxFileSize is larger than any bundle, in bytes.
	maxFileSize = 16 << 20
)

// Pool reads the trust anchors. Files of a directory without certificates are
// skipped, as OpenSSL skips those that are not named for their hash. The error wraps
// ErrNoTrust if there are no certificates, or is that of a file that smtp(8) could
// not read either. Paths are taken outside any chroot of smtp(8).
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

// readCertificates reads a regular file of at most maxFileSize bytes.
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
