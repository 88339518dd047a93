package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/miekg/dns"
)

// Kind is why nothing was learned. The first five are in the order of what they tell: if several
// servers failed, the failure with the least Kind is the one reported.
type Kind uint8

const (
	// ServFail is a server's word that it tried and failed; that is also what a validating resolver
	// says of data that is bogus (RFC 4035, Section 5.5).
	ServFail Kind = iota

	// Refused is a server's word that it will not answer: REFUSED, NOTIMP, or anything but NOERROR,
	// NXDOMAIN and SERVFAIL.
	Refused

	// Malformed is a response that cannot be read, or, with an empty Server, a name that cannot be
	// asked for. The latter happens without I/O, and no repetition will help.
	Malformed

	// Network is a server that could not be reached, or not with a certificate that is valid.
	Network

	// Timeout is silence, or the end of the context.
	Timeout

	// CNAMELoop is a chain of more CNAMEs than any honest one has.
	CNAMELoop
)

// String returns the kind as the value of a metric label: "servfail", "refused", "malformed",
// "network", "timeout" or "cname_loop". These words stay as they are.
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
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// An Error says that nothing was learned: the record may exist or not. The caller goes on with what it
// knew before, or asks again later; it must not take the record for absent (RFC 7672, Section 2.1.1).
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

	// Err is the cause if there is more to say than Kind does, or nil. With Timeout it is the error of
	// the context, if that is what ended the question.
	Err error
}

// Error returns the failure as a sentence for people: "example.com TXT: SERVFAIL from 127.0.0.1:53".
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: ", e.Name, e.Type)
	if code, ok := errors.AsType[*rcodeError](e.Err); ok {
		fmt.Fprintf(&b, "%v from %s", code, e.Server)
		if code.extended != "" {
			fmt.Fprintf(&b, ": %s", code.extended)
		}
		return b.String()
	}
	b.WriteString(e.what())
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// what puts a kind into words, for failures that are not a server's own.
func (e *Error) what() string {
	switch {
	case e.Kind == CNAMELoop:
		return "CNAME loop"
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

// Bogus tells whether a server said that the data does not verify (RFC 8914, Sections 4.7 to 4.13).
// One that does not speak of reasons leaves it at ServFail.
func (e *Error) Bogus() bool {
	code, ok := errors.AsType[*rcodeError](e.Err)
	return ok && code.bogus
}

// Timeout tells whether Kind is Timeout, for those who look at a net.Error.
func (e *Error) Timeout() bool { return e.Kind == Timeout }

// An rcodeError is a response code that is no answer.
type rcodeError struct {
	rcode    int
	extended string // what RFC 8914 lets a server say about it, safe to print; or ""
	bogus    bool   // it says that signatures are what is wrong
}

func (e *rcodeError) Error() string {
	if s, ok := dns.RcodeToString[e.rcode]; ok {
		return s
	}
	return fmt.Sprintf("RCODE%d", e.rcode)
}

// A wireError is a response that cannot be read, and says where it went wrong.
type wireError string

func (e wireError) Error() string { return string(e) }

// failed makes an Error of whatever ended an exchange with a server.
func failed(ctx context.Context, q *query, s *server, err error) *Error {
	e := &Error{Name: q.plain(), Type: dns.TypeToString[q.qtype], Server: s.text, Err: err}
	if code, ok := errors.AsType[*rcodeError](err); ok {
		e.Kind = Refused
		if code.rcode == dns.RcodeServerFailure {
			e.Kind = ServFail
		}
		return e
	}
	if _, ok := errors.AsType[wireError](err); ok {
		e.Kind = Malformed
		return e
	}
	if ctx.Err() != nil {
		// The end of the context shows as an expired deadline of the socket, which is no cause.
		e.Kind, e.Err = Timeout, ctx.Err()
		return e
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) {
		e.Kind, e.Err = Timeout, nil
		return e
	}
	e.Kind = Network
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op != "remote error" {
		e.Err = op.Err // the addresses it adds are those of Server, and a port nobody can know
	}
	return e
}
