package postfix

import (
	"context"

	"stsmap/dane"
	"stsmap/policy"
	"stsmap/socketmap"
)

// An Explanation is what became of a key on its way to a reply.
type Explanation struct {
	// Map is how lookups under the name that was asked for are answered, and
	// Known whether that name is one of Handler.Maps or the default one.
	Map   Map
	Known bool
	// NextHop is what the key means. It is zero for a key that has no policy
	// domain, which is answered without a Decision.
	NextHop dane.NextHop
	// Decision is what was decided; nil if there is no NextHop.
	Decision *policy.Decision
	// Attributes is whether policy attributes are sent with a policy.
	Attributes bool
	// Reply is what Postfix is told.
	Reply socketmap.Reply
}

// Explain does for a person what ServeSocketmap does for Postfix, in the same
// steps, and returns each. It is no use of the domain, and is not counted.
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
