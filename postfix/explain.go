package postfix

import (
	"context"

	"stsmap/dane"
	"stsmap/policy"
	"stsmap/socketmap"
)

// An Explanation has the steps from a key to its reply.
type Explanation struct {
	// Map is the configuration for the map name, and Known whether that name is in
	// Handler.Maps or the default one.
	Map   Map
	Known bool
	// NextHop is that of the key; zero if the key has no policy domain.
	NextHop dane.NextHop
	// Decision is nil if NextHop is zero.
	Decision *policy.Decision
	// Attributes reports whether replies have policy attributes.
	Attributes bool
	// Reply is the reply to Postfix.
	Reply socketmap.Reply
}

// Explain performs the lookup of ServeSocketmap and returns each step. It neither
// counts the lookup nor updates the last use of the domain.
func (h *Handler) Explain(ctx context.Context, name, key string) Explanation {
	m, known := h.Maps[name]
	if !known {
		m, known = h.Maps[defaultMap], name == defaultMap
	}
	knows := h.Attributes != nil && h.Attributes.Load()
	e := Explanation{Map: m, Known: known, Attributes: m.sendAttributes(knows), Reply: socketmap.Reply{Status: socketmap.NotFound}}
	hop, ok := NextHop(key, h.Bracketed)
	if !ok {
		return e
	}
	e.NextHop, e.Decision = hop, h.Engine.Decide(ctx, hop, m.Testing == Enforce)
	e.Reply = Reply(e.Decision, m, knows)
	return e
}
