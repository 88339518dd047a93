package stsfetch

import (
	"context"
	"errors"
	"fmt"
)

// A Step is where a fetch failed. The values are labels of metrics and never
// change.
type Step string

// The steps, in the order in which a fetch takes them.
const (
	StepDNS         Step = "dns"          // StepDNS: a name could not be looked up, or has no address.
	StepBlocked     Step = "blocked"      // StepBlocked: no address of the policy host is public.
	StepConnect     Step = "connect"      // StepConnect: no address accepted a connection, or the proxy refused.
	StepTimeout     Step = "timeout"      // StepTimeout: the fetch or one of its parts timed out.
	StepTLS         Step = "tls"          // StepTLS: the handshake failed for another reason than the certificate.
	StepCert        Step = "cert"         // StepCert: the certificate is not valid for the policy host.
	StepHTTP        Step = "http"         // StepHTTP: the response is malformed, coded, or ended early.
	StepStatus      Step = "http_status"  // StepStatus: the status is neither 200 nor a redirect.
	StepRedirect    Step = "redirect"     // StepRedirect: a redirect, which must not be followed.
	StepContentType Step = "content_type" // StepContentType: the response is not text/plain.
	StepTooLarge    Step = "too_large"    // StepTooLarge: the host sent more than a policy needs, or a policy larger than MaxSize.
	StepSyntax      Step = "syntax"       // StepSyntax: the policy is invalid (RFC 8461, Section 3.2).
)

// An Error is a failed fetch. The caller continues as if the domain had
// published nothing new (RFC 8461, Section 3.3) and tries again later.
type Error struct {
	Domain string // Domain is the policy domain.
	Step   Step   // Step is where the fetch failed.
	Err    error  // Err is the reason, never nil.
}

// Error returns the reason without the domain, which every message with the
// reason has already.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// Result returns the name of the failure in RFC 8460, Section 4.3.2.2.
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

// A stepError is an Error without the domain, which newError adds.
type stepError struct {
	step Step
	err  error
	// missing describes what the host did not send, and is appended if err is a
	// timeout; it can be empty.
	missing string
	// prefix is put before the text of err, unless err is a timeout.
	prefix string
}

func (e *stepError) Error() string { return e.prefix + e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

func stepErr(step Step, err error) error { return &stepError{step: step, err: err} }

func stepErrf(step Step, format string, args ...any) error {
	return &stepError{step: step, err: fmt.Errorf(format, args...)}
}

// newError returns the error for domain. Whatever the step, a timeout is reported
// as such, since "timeout" is what an administrator can act on.
func newError(ctx context.Context, domain string, err error) *Error {
	e := &Error{Domain: domain, Step: StepHTTP, Err: err}
	missing := ""
	if s, ok := errors.AsType[*stepError](err); ok {
		e.Step, missing = s.step, s.missing
		if e.Err = s.err; s.prefix != "" {
			e.Err = fmt.Errorf("%s%w", s.prefix, s.err)
		}
	}
	if e.Step == StepCert {
		return e
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() && !errors.Is(ctx.Err(), context.Canceled) {
		if e.Err = fmt.Errorf("%s: timed out", e.Step); missing != "" {
			e.Err = fmt.Errorf("%s: timed out: %s", e.Step, missing)
		}
		e.Step = StepTimeout
	}
	return e
}
