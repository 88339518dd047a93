package resolver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/miekg/dns"
)

// ErrNotValidating is returned if no answer can be Secure with the present servers and settings. The
// text of an error that wraps it names the server and what the administrator has to do. A caller that
// needs Secure must do without, and may call again later: servers and their settings change.
var ErrNotValidating = errors.New("no secure DNS answers")

// Validating checks whether answers can be Secure at all. It asks for the name servers of the root,
// which is signed, as Postfix does (`dns/dns_sec.c`), and returns nil if that answer is. Otherwise the
// error wraps ErrNotValidating, or, if nothing was learned, it is an *Error. Where TrustAD is "no",
// nothing is asked, since no answer could matter.
//
// The result is that of the first server that answers; another may answer the next question.
func (r *Resolver) Validating(ctx context.Context) error {
	if r.trust == trustNone {
		return &notValidating{`dns.trust_ad = "no": no server's AD bit counts; set it to "auto" to use DNSSEC`}
	}
	m, err := r.ask(ctx, ".", dns.TypeNS, time.Now().Add(r.timeout)) // not by way of lookup, where the root is no name
	switch {
	case err != nil:
		return err
	case m.unknown:
		return &notValidating{fmt.Sprintf("no trusted server answers, and the AD bit of %s does not count; "+
			"to see why the others do not answer: stsmap doctor", m.from.text)}
	case !m.AuthenticatedData:
		return &notValidating{fmt.Sprintf("%s does not validate: no AD bit for the name servers of the root; "+
			"switch DNSSEC validation on there, or name a server that validates in dns.servers", m.from.text)}
	case !m.secure:
		why := "it is neither on a loopback address nor over TLS"
		if isForwarder(m.from.addr.Addr()) {
			why = "it is the DNS server of a container engine, which asks over the network"
		}
		return &notValidating{fmt.Sprintf("the AD bit of %s does not count: %s; "+
			`run a validating resolver on this host, or set dns.trust_ad = "yes" if nobody can interfere on the way there`, m.from.text, why)}
	}
	return nil
}

// A notValidating is why there are no secure answers, for people.
type notValidating struct{ why string }

func (e *notValidating) Error() string { return e.why }
func (e *notValidating) Unwrap() error { return ErrNotValidating }
