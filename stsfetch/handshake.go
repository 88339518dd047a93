package stsfetch

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// alertHandshakeFailure is the alert of a server that does not accept what the client
// offers (RFC 8446, Section 6.2).
const alertHandshakeFailure tls.AlertError = 40

// handshakeError returns the error for a handshake that failed with err. It tells a
// certificate that must not be accepted from every other reason, and puts the usual
// reasons in words that the other postmaster understands.
func (f *Fetcher) handshakeError(err error) error {
	verification, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if !ok {
		return stepErrf(StepTLS, "TLS handshake: %w%s", err, alertReason(err))
	}
	if f.anchors.empty() {
		return stepErrf(StepCert, "this host has no trust anchors, and cannot verify a certificate")
	}
	sent := verification.UnverifiedCertificates
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		name := certificateName(invalid.Cert, sent)
		if time.Now().Before(invalid.Cert.NotBefore) {
			return stepErrf(StepCert, "%s is not valid before %s", name, invalid.Cert.NotBefore.UTC().Format(time.RFC3339))
		}
		return stepErrf(StepCert, "%s expired on %s", name, invalid.Cert.NotAfter.UTC().Format(time.RFC3339))
	}
	if name, ok := errors.AsType[x509.HostnameError](err); ok {
		if len(name.Certificate.DNSNames) == 0 {
			return stepErrf(StepCert, "certificate is not valid for %s: it has no DNS name", name.Host)
		}
		return stepErrf(StepCert, "certificate is not valid for %s, only for %s", name.Host, names(name.Certificate))
	}
	if unknown, ok := errors.AsType[x509.UnknownAuthorityError](err); ok && unknown.Cert != nil {
		return authorityError(unknown.Cert, sent)
	}
	return stepErr(StepCert, err)
}

// alertReason returns what an alert of the server means, to be appended to err; empty
// if err is none that needs an explanation.
func alertReason(err error) string {
	// The type of the alert in the error is not exported, but its text is that of
	// tls.AlertError.
	remote, ok := errors.AsType[*net.OpError](err)
	if ok && remote.Op == "remote error" && remote.Err.Error() == alertHandshakeFailure.Error() {
		return ": no cipher suite in common, or no certificate for this name"
	}
	return ""
}

// authorityError returns the error for cert, for which no trusted issuer was found
// among sent, the certificates of the host, and the trust anchors.
func authorityError(cert *x509.Certificate, sent []*x509.Certificate) error {
	if bytes.Equal(cert.RawIssuer, cert.RawSubject) {
		if len(sent) > 0 && cert.Equal(sent[0]) {
			return stepErrf(StepCert, "certificate is not signed by a trusted authority: it is self-signed")
		}
		return stepErrf(StepCert, "certificate is not signed by a trusted authority: unknown authority %s", displayName(cert.Subject))
	}
	switch cert.SignatureAlgorithm {
	case x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1:
		return stepErrf(StepCert, "%s is signed with SHA-1, which is not accepted", certificateName(cert, sent))
	case x509.MD5WithRSA, x509.MD2WithRSA:
		return stepErrf(StepCert, "%s is signed with MD5, which is not accepted", certificateName(cert, sent))
	}
	missing := ""
	if len(sent) == 1 {
		missing = "; the host sends no intermediate certificate"
	}
	return stepErrf(StepCert, "certificate is not signed by a trusted authority: unknown issuer %s%s",
		displayName(cert.Issuer), missing)
}

// certificateName returns what to call cert in an error: its name, unless it is the
// certificate of the host itself, the first of sent.
func certificateName(cert *x509.Certificate, sent []*x509.Certificate) string {
	if len(sent) == 0 || cert.Equal(sent[0]) {
		return "certificate"
	}
	return "intermediate certificate " + displayName(cert.Subject)
}

// displayName returns the common name in n, or all of it, quoted and shortened.
func displayName(n pkix.Name) string {
	return fmt.Sprintf("%.64q", cmp.Or(n.CommonName, n.String()))
}

// names lists the first DNS-IDs of a certificate.
func names(c *x509.Certificate) string {
	const maxNames = 3
	list, more := c.DNSNames, ""
	if n := len(list); n > maxNames {
		list, more = list[:maxNames], fmt.Sprintf(" and %d more", n-maxNames)
	}
	return strings.Trim(fmt.Sprintf("%.64q", list), "[]") + more
}
