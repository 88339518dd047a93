package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/miekg/dns"
)

// Kind is why nothing was learned. The first five are in order of precedence: if several servers failed,
// the failure with the least Kind is the one reported.
type Kind uint8

const (
	// ServFail is SERVFAIL: the server tried and failed. A validating resolver also answers that for
	// data that is bogus (RFC 4035, Section 5.5).
	ServFail Kind = iota

	// Refused is any other response code than NOERROR and NXDOMAIN, such as REFUSED and NOTIMP.
	Refused

	// Malformed is a response that is not well-formed, or, with an empty Server, a name that is invalid.
	// The latter takes no I/O, and a repetition does not help.
	Malformed

	// Network is a server that is unreachable, or has no valid certificate.
	Network

	// Timeout is no response in time, or the end of the context.
	Timeout

	// CNAMELoop is a chain of too many CNAMEs.
	CNAMELoop

	// Untrusted is an answer of a server whose AD bit does not count, where another server's does. It
	// occurs only as Answer.Unknown.
	Untrusted
)

// String returns the kind as the value of a metric label: "servfail", "refused", "malformed",
// "network", "timeout", "cname_loop" or "untrusted". These words stay as they are.
func (k Kind) String() string {
	switch k {
	case ServFail:
		return "servfail"
	case Refused:
		return "refused"
	case Malformed:
		return "malformed"
	case Network:
		return "network"
	case Timeout:
		return "timeout"
	case CNAMELoop:
		return "cname_loop"
	case Untrusted:
		return "untrusted"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// An Error is returned if nothing was learned: the record may exist or not. The caller goes on with what
// it knew before, or asks again later; it must not take the record for absent (RFC 7672, Section 2.1.1).
type Error struct {
	// Name is the name in the question that failed, without the final dot: the one that was asked
	// for, or the target of a CNAME. The root is ".".
	Name string

	// Type is the record type in the question, "TXT".
	Type string

	// Server is the one that Kind is about, as address and port or as "tls://…#…". It is empty if
	// none was asked.
	Server string

	// Kind is why.
	Kind Kind

	// Err is the cause in detail, or nil. With Timeout it is the error of the context, if that ended the
	// question.
	Err error
}

// Error returns the failure as a sentence for people: "example.com TXT: SERVFAIL from 127.0.0.1:53".
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: ", e.Name, e.Type)
	if code, ok := errors.AsType[*rcodeError](e.Err); ok {
		fmt.Fprintf(&b, "%v from %s", code, e.Server)
		if len(code.extended) > 0 {
			fmt.Fprintf(&b, ": %s", strings.Join(code.extended, ", "))
		}
		return b.String()
	}
	b.WriteString(e.what())
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// what describes a failure that is no response code.
func (e *Error) what() string {
	switch {
	case e.Kind == CNAMELoop:
		return "CNAME loop"
	case e.Kind == Untrusted:
		return "no answer from a trusted server, and the AD bit of " + e.Server + " does not count"
	case e.Kind == Timeout && e.Server == "":
		return "not asked"
	case e.Kind == Timeout:
		return "timeout: no answer from " + e.Server
	case e.Kind == Malformed && e.Server == "":
		return "not a name"
	case e.Kind == Malformed:
		return "malformed answer from " + e.Server
	case e.Kind == Network:
		return "cannot ask " + e.Server
	}
	return e.Kind.String() + " from " + e.Server
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Bogus reports whether a server gave as reason that DNSSEC validation failed (RFC 8914, Sections 4.7 to
// 4.13). A server that gives no reasons answers ServFail only.
func (e *Error) Bogus() bool {
	code, ok := errors.AsType[*rcodeError](e.Err)
	return ok && code.bogus
}

// Timeout reports whether Kind is Timeout, as net.Error does.
func (e *Error) Timeout() bool { return e.Kind == Timeout }

// An rcodeError is a response code that is no answer.
type rcodeError struct {
	rcode    int
	extended []string // extended errors (RFC 8914), safe to print
	bogus    bool     // one of these is about signatures
}

func (e *rcodeError) Error() string {
	if s, ok := dns.RcodeToString[e.rcode]; ok {
		return s
	}
	return fmt.Sprintf("RCODE%d", e.rcode)
}

// A wireError is why a response is malformed.
type wireError string

func (e wireError) Error() string { return string(e) }

// isResponse reports whether err is about a response that matched.
func isResponse(err error) bool {
	_, coded := errors.AsType[*rcodeError](err)
	_, malformed := errors.AsType[wireError](err)
	return coded || malformed
}

// suggestsNoEDNS reports whether a query without EDNS may have a better response.
func suggestsNoEDNS(err error) bool {
	if code, ok := errors.AsType[*rcodeError](err); ok {
		return code.rcode == dns.RcodeFormatError || code.rcode == dns.RcodeNotImplemented || code.rcode == dns.RcodeBadVers
	}
	return isResponse(err)
}

// newError classifies err, with which an attempt ended, as an *Error. The end of ctx is its cause if
// the caller's context ended, and not only the time for the question.
func newError(ctx context.Context, name string, qtype uint16, s *server, err error) *Error {
	e := &Error{Name: displayName(name), Type: typeName(qtype), Server: s.text, Err: err}
	if code, ok := errors.AsType[*rcodeError](err); ok {
		e.Kind = Refused
		if code.rcode == dns.RcodeServerFailure {
			e.Kind = ServFail
		}
		return e
	}
	if isResponse(err) {
		e.Kind = Malformed
		return e
	}
	ne, ok := errors.AsType[net.Error](err)
	if ctx.Err() != nil || ok && ne.Timeout() {
		// The end of the context shows as an expired deadline of the socket, which is no cause.
		e.Kind, e.Err = Timeout, ctx.Err()
		return e
	}
	e.Kind = Network
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op != "remote error" {
		e.Err = op.Err // the addresses that it adds are that of Server and a random port
	}
	return e
}
