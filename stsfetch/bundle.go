package stsfetch

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// pemBegin begins a certificate in a PEM file (RFC 7468, Section 5.1).
const pemBegin = "-----BEGIN CERTIFICATE-----"

// pem adds the certificates in text, and an error for each that cannot be used.
func (r *bundleReader) pem(text string) {
	_, text, found := strings.Cut(text, pemBegin)
	for n := 1; found; n++ {
		var one string
		one, text, found = strings.Cut(text, pemBegin)
		if err := r.certificate(pemBegin + one); err != nil {
			r.skipped = append(r.skipped, fmt.Errorf("certificate %d: %w", n, err))
		}
	}
}

// certificate adds the certificate with which text begins.
func (r *bundleReader) certificate(text string) error {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return errors.New("not PEM")
	}
	if r.seen[string(block.Bytes)] {
		return nil
	}
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "x509: "))
	}
	// The pool parses it again when it is needed, and keeps only its bytes until then.
	r.pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}))
	r.seen[string(block.Bytes)] = true
	r.count++
	return nil
}
