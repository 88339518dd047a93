package stsfetch

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A Step is where a retrieval failed. The values are the labels of metrics
// and never change.
type Step string

// The steps, in the order in which a retrieval takes them.
const (
	StepDNS         Step = "dns"          // StepDNS: a name could not be looked up, or has no address.
	StepBlocked     Step = "blocked"      // StepBlocked: no address of the policy host is public.
	StepConnect     Step = "connect"      // StepConnect: no address accepted a connection, or the proxy refused.
	StepTimeout     Step = "timeout"      // StepTimeout: the time for the retrieval ran out.
	StepTLS         Step = "tls"          // StepTLS: the handshake failed for another reason than the certificate.
	StepCert        Step = "cert"         // StepCert: the certificate is not valid for the policy host.
	StepHTTP        Step = "http"         // StepHTTP: the response is malformed or ended early.
	StepStatus      Step = "http_status"  // StepStatus: the status is neither 200 nor a redirect.
	StepRedirect    Step = "redirect"     // StepRedirect: a redirect, which must not be followed.
	StepContentType Step = "content_type" // StepContentType: the response is not text/plain.
	StepTooLarge    Step = "too_large"    // StepTooLarge: the response is larger than MaxSize.
	StepSyntax      Step = "syntax"       // StepSyntax: the policy is not one (RFC 8461, Section 3.2).
)

// An Error says at which step retrieving something for a domain failed. The
// caller goes on as if the domain had published nothing new (RFC 8461,
// Section 3.3) and tries again later.
type Error struct {
	Domain string // Domain is the policy domain.
	Step   Step   // Step is where it failed.
	Err    error  // Err is the reason, and is never nil.
}

// Error returns the reason without the domain, which every place that prints
// it names already.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// Result returns the name that RFC 8460, Section 4.3.2.2 gives to the failure.
func (e *Error) Result() string {
	switch e.Step {
	case StepCert:
		return "sts-webpki-invalid"
	case StepSyntax:
		return "sts-policy-invalid"
	default:
		return "sts-policy-fetch-error"
	}
}

// A stepError carries the step from the place that knows it to Policy, which
// adds the domain.
type stepError struct {
	step Step
	err  error
}

func (e *stepError) Error() string { return e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

func at(step Step, err error) error { return &stepError{step, err} }

func atf(step Step, format string, args ...any) error {
	return &stepError{step, fmt.Errorf(format, args...)}
}

// handshakeError tells a certificate that must not be accepted from every
// other way in which a handshake fails, and puts the usual reasons in words
// that the other postmaster understands.
func handshakeError(err error) error {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
		return atf(StepTLS, "TLS handshake: %w", err)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		if time.Now().Before(invalid.Cert.NotBefore) {
			return atf(StepCert, "certificate is not valid before %s", invalid.Cert.NotBefore.UTC().Format(time.RFC3339))
		}
		return atf(StepCert, "certificate expired on %s", invalid.Cert.NotAfter.UTC().Format(time.RFC3339))
	}
	if name, ok := errors.AsType[x509.HostnameError](err); ok {
		if len(name.Certificate.DNSNames) == 0 {
			return atf(StepCert, "certificate is not valid for %s: it has no DNS name", name.Host)
		}
		return atf(StepCert, "certificate is not valid for %s, only for %s", name.Host, names(name.Certificate))
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return atf(StepCert, "certificate is not signed by a trusted authority")
	}
	return at(StepCert, err)
}

// names lists the first DNS-IDs of a certificate.
func names(c *x509.Certificate) string {
	const most = 3
	list, more := c.DNSNames, ""
	if n := len(list); n > most {
		list, more = list[:most], fmt.Sprintf(" and %d more", n-most)
	}
	return strings.Trim(fmt.Sprintf("%.64q", list), "[]") + more
}
