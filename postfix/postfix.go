// Package postfix reads Postfix's lookup keys and writes its table values: it
// is where a policy.Decision becomes a reply that smtp(8) acts upon
// (smtp/smtp_tls_policy.c), and the only place where an error becomes one.
//
// It does not decide what applies to a domain, which is the work of package
// policy, and knows nothing of sockets and netstrings, which is that of
// package socketmap.
//
// What Postfix makes of a reply:
//
//	OK secure match=a:.b servername=hostname
//	    TLS with a certificate that matches one of the names, or the mail waits
//	OK dane-only
//	    only MX hosts with secure TLSA records that their certificates match
//	OK dane
//	    the same where there are such records, else smtp's level "may"
//	NOTFOUND
//	    the next table, then smtp_tls_security_level of main.cf
//	TEMP text
//	    the mail waits with "client TLS configuration problem", and text is in
//	    the mail log (util/dict_sockmap.c)
//
// A value that Postfix cannot parse also makes mail wait, all of it for that
// domain, so nothing that a policy contains reaches a value unchecked.
package postfix

import (
	"context"
	"sync"

	"stsmap/policy"
	"stsmap/socketmap"
)

// A Handler answers Postfix's lookups. It may be used concurrently.
type Handler struct {
	// Engine decides. It must be set. It is not an interface: through one the
	// compiler could not tell that keys stay on the stack.
	Engine *policy.Engine
	// Bracketed says that [relay.example]:587 has the policy domain
	// relay.example (RFC 8461, Section 3.4); otherwise such a next-hop has
	// none.
	Bracketed bool
	// UnknownMap is called once for each map name that is not known, with a
	// bound on how many; nil means that nobody wants to know. The names are
	// what the client sent.
	UnknownMap func(name string)

	mu      sync.Mutex
	unknown map[string]bool // map names that UnknownMap was told
}

// mostUnknown bounds how many unknown map names are remembered: a client that
// invents them must not fill the memory.
const mostUnknown = 64

// ServeSocketmap answers one lookup. Keys that are no policy domain, such as
// the parent domains that Postfix tries after each NOTFOUND, are answered
// without I/O.
func (h *Handler) ServeSocketmap(ctx context.Context, r socketmap.Request) socketmap.Reply {
	switch string(r.Map) {
	case "postfix", "QUERY", "QUERYwithTLSRPT":
	default:
		h.noteUnknown(string(r.Map))
	}
	var buf [maxKey]byte
	hop, ok := appendNextHop(buf[:0], r.Key, h.Bracketed)
	if !ok {
		return socketmap.Reply{Status: socketmap.NotFound}
	}
	d := h.Engine.Known(hop.text)
	if d == nil {
		d = h.Engine.Lookup(ctx, hop.parts())
	}
	return Reply(d)
}

// noteUnknown tells about a map name the first time. Refusing it would make
// mail wait for a typing error; it gets the answer of the default map.
func (h *Handler) noteUnknown(name string) {
	if h.isNew(name) && h.UnknownMap != nil {
		h.UnknownMap(name)
	}
}

// isNew reports whether an unknown map name is seen for the first time, and is
// one of the first.
func (h *Handler) isNew(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.unknown[name] || len(h.unknown) >= mostUnknown {
		return false
	}
	if h.unknown == nil {
		h.unknown = make(map[string]bool)
	}
	h.unknown[name] = true
	return true
}
