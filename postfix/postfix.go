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
//	    TLS with a certificate that matches one of the names, or the mail is deferred
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
//	    the mail is deferred with "client TLS configuration problem", and text is
//	    in the mail log (util/dict_sockmap.c)
//
// A value that Postfix cannot parse also defers all mail for that domain, so
// nothing that a policy contains reaches a value unchecked.
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

// defaultMap is the map whose settings apply to names that are not configured.
const defaultMap = "postfix"

// A Map configures the replies to lookups under one socketmap name. The zero value
// suits most: attributes by release, and policies in testing mode ignored.
type Map struct {
	// Attributes is when replies have policy attributes.
	Attributes AttributeMode
	// Testing is the effect of a policy in testing mode.
	Testing TestingMode
	// Level is the level that Postfix uses without a policy: "may", "encrypt" or
	// "dane"; empty means "may". Replies of Report repeat it.
	Level string
	// Observe is called with each answer, before the reply is sent; nil means no
	// call. It must be safe for concurrent use, and fast.
	Observe func(Answered)
}

// An Answered describes one answered lookup, for metrics.
type Answered struct {
	// Decision is nil for a key that has no policy domain.
	Decision *policy.Decision
	// Miss reports that the decision was not cached.
	Miss bool
	// Took is how long the answer took. It is zero if SampleWeight is: reading the
	// clock would slow cached answers down, so a random sample of them is
	// measured. SampleWeight is the number of answers that a measured one stands
	// for: 1 for each Miss.
	Took         time.Duration
	SampleWeight int
}

// sampleInterval is the number of cached answers of which one, chosen at random,
// is measured: 15 a second of 1,000. The random number takes a few nanoseconds, a
// tenth of the time to read the clock twice.
const sampleInterval = 64

// An AttributeMode is when replies have policy attributes.
type AttributeMode uint8

// When to send policy attributes.
const (
	ByRelease AttributeMode = iota // ByRelease sends them if the installed Postfix knows them.
	Never                          // Never omits them.
	Always                         // Always sends them. A Postfix older than 3.10 defers mail then.
)

// A TestingMode is the effect of policies in testing mode.
type TestingMode uint8

// Effects of policies in testing mode.
const (
	Ignore  TestingMode = iota // Ignore answers as without a policy.
	Report                     // Report has Postfix report failures and still deliver, if it knows policy attributes.
	Enforce                    // Enforce answers as for enforce mode; see policy.Config.Strict.
)

func (m Map) level() string {
	if m.Level == "" {
		return "may"
	}
	return m.Level
}

// A Handler answers Postfix's lookups. It may be used concurrently.
type Handler struct {
	// Engine decides. It must be set. It is not an interface, so that the compiler
	// can prove that keys stay on the stack.
	Engine *policy.Engine
	// Bracketed reports whether [relay.example]:587 has the policy domain
	// relay.example (RFC 8461, Section 3.4). If not, such a next-hop has none.
	Bracketed bool
	// Maps has the configuration by socketmap name. A name that is not in it is
	// answered as "postfix"; without that, as by the zero Map.
	Maps map[string]Map
	// Attributes is whether the installed Postfix knows policy attributes
	// (Release.Attributes). It is read for each lookup; nil means false.
	Attributes *atomic.Bool
	// UnknownMap is called once for each of the first 64 map names that are not
	// in Maps, with the name as the client sent it; nil means no call.
	UnknownMap func(name string)

	mu      sync.Mutex
	unknown map[string]bool // map names that UnknownMap was called with
}

// maxUnknown limits the unknown map names that are kept: a client that invents
// names must not fill the memory.
const maxUnknown = 64

// ServeSocketmap answers one lookup. Keys without a policy domain, such as the
// parent domains that Postfix tries after each NOTFOUND, are answered without I/O.
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
	out := socketmap.Reply{Status: socketmap.NotFound}
	if hop, ok := appendNextHop(buf[:0], r.Key, h.Bracketed); ok {
		strict := m.Testing == Enforce
		if a.Decision = h.Engine.Cached(hop.text, strict); a.Decision == nil {
			began, a.SampleWeight, a.Miss = time.Now(), 1, true
			a.Decision = h.Engine.Lookup(ctx, hop.clone(), strict)
		}
		out = reply(a.Decision, m, h.Attributes != nil && h.Attributes.Load())
	}
	if m.Observe != nil {
		if a.SampleWeight > 0 {
			a.Took = time.Since(began)
		}
		m.Observe(a)
	}
	return out
}

// SendsAttributes returns whether replies have policy attributes now, by map name.
func (h *Handler) SendsAttributes() map[string]bool {
	known := h.Attributes != nil && h.Attributes.Load()
	all := make(map[string]bool)
	for name, m := range h.Maps {
		all[name] = m.sendAttributes(known)
	}
	return all
}

// unknownMap returns the Map for a name that is not configured, and calls
// UnknownMap for a new one. Such a lookup is not refused: a misspelt name would
// defer all mail.
func (h *Handler) unknownMap(name []byte) Map {
	if string(name) != defaultMap && h.isNew(string(name)) && h.UnknownMap != nil {
		h.UnknownMap(string(name))
	}
	return h.Maps[defaultMap]
}

// isNew reports whether an unknown map name is new and among the first maxUnknown.
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
