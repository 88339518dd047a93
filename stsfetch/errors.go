package stsfetch

import (
	"context"
	"errors"
	"fmt"
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

// A stepError carries the step from the place that knows it to newError, which
// adds the domain.
type stepError struct {
	step Step
	err  error
	// missing is what the host did not send, for an error that is a timeout; it can
	// be empty.
	missing string
	// prefix stands before the text of err, unless that is a timeout.
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
