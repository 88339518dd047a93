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
//	secure match=… servername=hostname policy_type=sts policy_domain=example.com
//	mx_host_pattern=a mx_host_pattern=*.b { policy_string = version: STSv1 } …
//	    from Postfix 3.10 on: the same, with the policy for TLSRPT, and from
//	    3.10.5 on the name of the MX host has to match a pattern, and the
//	    certificate that name
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
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"stsmap/policy"
	"stsmap/socketmap"
)

// defaultMap is the name of the map that is asked if nobody says another.
const defaultMap = "postfix"

// A Map says how lookups under one name are answered. The zero value is for
// most: attributes by release, and policies in mode testing as none.
type Map struct {
	// Attributes says when to send the policy itself with a reply.
	Attributes AttributeMode
	// Testing says what a policy in mode testing means.
	Testing TestingMode
	// Level is what the administrator has Postfix do without a policy, to be
	// repeated in replies of Report: "may", "encrypt" or "dane"; empty is
	// "may".
	Level string
	// Observe is told of each answer; nil means that nobody counts. It is called
	// from many goroutines, in the way of answers: it must be safe for that, and
	// fast.
	Observe func(Answered)
}

// An Answered is one answer, for who counts.
type Answered struct {
	// Decision is what was decided; nil for a key that has no policy domain.
	Decision *policy.Decision
	// Miss says that the decision was not at hand.
	Miss bool
	// Took is how long the answer took, and SampleWeight for how many it stands: one
	// where it is a Miss. The clock is too slow for all the others; of these one
	// in many is measured, by chance, and SampleWeight is 0 for those that were not.
	Took         time.Duration
	SampleWeight int
}

// sampleInterval is in how many answers at hand one is measured. A thousand answers a
// second give fifteen times a second, and to draw lots costs a few
// nanoseconds, a tenth of what it takes to read the clock twice.
const sampleInterval = 64

// An AttributeMode says when policy attributes are sent.
type AttributeMode uint8

// When to send policy attributes.
const (
	ByRelease AttributeMode = iota // ByRelease is when the Postfix that asks knows them.
	Never                          // Never leaves them out.
	Always                         // Always makes mail wait where Postfix is older than 3.10.
)

// A TestingMode says what becomes of policies in mode testing.
type TestingMode uint8

// What policies in mode testing can mean.
const (
	Ignore  TestingMode = iota // Ignore answers as if there were none.
	Report                     // Report has Postfix report them and do nothing else, where it can.
	Enforce                    // Enforce answers as if they were in mode enforce; see policy.Config.Strict.
)

func (m Map) level() string {
	if m.Level == "" {
		return "may"
	}
	return m.Level
}

// A Handler answers Postfix's lookups. It may be used concurrently.
type Handler struct {
	// Engine decides. It must be set. It is not an interface: through one the
	// compiler could not tell that keys stay on the stack.
	Engine *policy.Engine
	// Bracketed says that [relay.example]:587 has the policy domain
	// relay.example (RFC 8461, Section 3.4); otherwise such a next-hop has
	// none.
	Bracketed bool
	// Maps says how lookups are answered by the name of the map. A name that is
	// not in it is answered as "postfix", and if that is not in it, as by the
	// zero Map.
	Maps map[string]Map
	// Attributes says whether the Postfix that asks knows policy attributes
	// (Release.Attributes); it is read for each lookup. Nil means that none
	// does.
	Attributes *atomic.Bool
	// UnknownMap is called once for each map name that is not known, with a
	// bound on how many; nil means that nobody wants to know. The names are
	// what the client sent.
	UnknownMap func(name string)

	mu      sync.Mutex
	unknown map[string]bool // map names that UnknownMap was told
}

// maxUnknown bounds how many unknown map names are remembered: a client that
// invents them must not fill the memory.
const maxUnknown = 64

// ServeSocketmap answers one lookup. Keys that are no policy domain, such as
// the parent domains that Postfix tries after each NOTFOUND, are answered
// without I/O.
func (h *Handler) ServeSocketmap(ctx context.Context, r socketmap.Request) socketmap.Reply {
	m, known := h.Maps[string(r.Map)]
	if !known {
		m = h.unknownMap(r.Map)
	}
	var a Answered
	var began time.Time
	if m.Observe != nil && rand.Uint32()%sampleInterval == 0 {
		began, a.SampleWeight = time.Now(), sampleInterval
	}
	var buf [maxKey]byte
	reply := socketmap.Reply{Status: socketmap.NotFound}
	if hop, ok := appendNextHop(buf[:0], r.Key, h.Bracketed); ok {
		strict := m.Testing == Enforce
		if a.Decision = h.Engine.Known(hop.text, strict); a.Decision == nil {
			began, a.SampleWeight, a.Miss = time.Now(), 1, true
			a.Decision = h.Engine.Lookup(ctx, hop.clone(), strict)
		}
		reply = Reply(a.Decision, m, h.Attributes != nil && h.Attributes.Load())
	}
	if m.Observe != nil {
		if a.SampleWeight > 0 {
			a.Took = time.Since(began)
		}
		m.Observe(a)
	}
	return reply
}

// SendsAttributes returns, by the name of each map, whether replies have policy attributes
// now.
func (h *Handler) SendsAttributes() map[string]bool {
	known := h.Attributes != nil && h.Attributes.Load()
	all := make(map[string]bool)
	for name, m := range h.Maps {
		all[name] = m.sendAttributes(known)
	}
	return all
}

// unknownMap returns how lookups under a name that is not configured are
// answered: refusing them would make mail wait for a typing error. It tells
// about a name the first time.
func (h *Handler) unknownMap(name []byte) Map {
	if string(name) != defaultMap && h.isNew(string(name)) && h.UnknownMap != nil {
		h.UnknownMap(string(name))
	}
	return h.Maps[defaultMap]
}

// isNew reports whether an unknown map name is seen for the first time, and is
// one of the first.
func (h *Handler) isNew(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.unknown[name] || len(h.unknown) >= maxUnknown {
		return false
	}
	if h.unknown == nil {
		h.unknown = make(map[string]bool)
	}
	h.unknown[name] = true
	return true
}
