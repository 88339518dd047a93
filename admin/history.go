package admin

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"stsmap/policy"
)

// A Change is something that happened to a domain. What happens again and again
// in the same way is one.
type Change struct {
	Domain string    `json:"domain,omitempty"` // empty if it is about none
	Time   time.Time `json:"time"`             // when it happened last
	First  time.Time `json:"first"`            // when it began to happen
	Count  int       `json:"count"`            // how often it did, at least 1
	// Message is that of the log, and Text the rest of that line.
	Message string `json:"message"`
	Text    string `json:"text,omitempty"`
	// Weight says how important it is: "change", "failure" or "routine".
	Weight string `json:"weight"`

	kind policy.EventKind
}

// A Trouble is a failure that lasts.
type Trouble struct {
	Domain string    `json:"domain"`
	Since  time.Time `json:"since"`
	Last   time.Time `json:"last"` // when it failed last
	Count  int       `json:"count"`
	// Message is that of the log, and Error why.
	Message string `json:"message"`
	Error   string `json:"error"`
	// InForce is whether the domain has a policy, or a DANE result, in force in
	// spite of the failure.
	InForce bool `json:"in_force"`
}

// A failureKey is a kind of failure of a domain: of its policy, or of DANE.
type failureKey struct {
	kind   policy.EventKind // PolicyFailed or DANEFailed
	domain string
}

// A keptKey is the changes of one weight that are kept for one domain.
type keptKey struct {
	weight int
	domain string
}

// The weights of changes. Each has room of its own, so that what happens all the
// time, which is that things go well, does not push out what people look for.
const (
	routine = iota
	failed
	changed
	weights
)

const (
	// maxChanges is how many changes of each weight are kept, and maxOfOne how
	// many of them for one domain, so that one that changes all the time does not
	// push out all others.
	maxChanges, maxOfOne = 1000, 10
	// maxTroubles bounds how many domains are known to fail.
	maxTroubles = 1000
	// troubled is how long a failure counts as present without being repeated:
	// the domain may not have been looked up since.
	troubled = 24 * time.Hour
)

// A History is a memory of what happened, made of events, and lost at a restart.
// It is bounded: the oldest of the same weight goes first. The zero value is not
// useful; its methods may be called concurrently.
type History struct {
	mu       sync.Mutex
	kept     [weights][]*Change     // by weight, the one that changed last at the end
	troubles map[failureKey]Trouble // what fails now
	of       map[keptKey]int        // how many of kept there are
}

// NewHistory returns an empty History.
func NewHistory() *History {
	return &History{troubles: make(map[failureKey]Trouble), of: make(map[keptKey]int)}
}

// Observe records an event; it is meant for policy.Config.Observe. It records
// an answer only if it differs from the one before, and an answer without a
// policy only if an override made it, so that the common case costs nothing.
func (h *History) Observe(ev policy.Event) {
	if ev.Kind == policy.Lookup && (!ev.First || ev.Decision.Kind == policy.None && ev.Decision.Override == nil) {
		return
	}
	weight := weightOf(ev)
	message, attrs := "answer", []slog.Attr(nil)
	switch {
	case ev.Kind == policy.Lookup:
		attrs = []slog.Attr{slog.String("decision", ev.Decision.Kind.String()), slog.String("id", ev.Decision.ID), slog.String("reason", ev.Decision.Reason)}
	case withdrawn(ev):
		_, message, attrs = describeWithdrawn(ev)
	default:
		_, message, attrs = describe(ev)
	}
	c := &Change{Domain: ev.Domain, Time: time.Now(), Count: 1, Message: message, Text: inWords(attrs), Weight: weightName(weight), kind: ev.Kind}
	c.First = c.Time
	h.mu.Lock()
	defer h.mu.Unlock()
	h.add(weight, c)
	h.note(ev, c)
}

// weightOf says how long an event is worth to be kept.
func weightOf(ev policy.Event) int {
	if withdrawn(ev) {
		return changed
	}
	switch ev.Kind {
	case policy.PolicyNew, policy.PolicyChanged, policy.PolicyGone, policy.DANEOn, policy.DANEOff:
		return changed
	case policy.RecordFailed, policy.RecordInvalid, policy.PolicyFailed, policy.StoreFailed, policy.DANEFailed, policy.Panicked, policy.PolicyExpiring, policy.FetchEnded, policy.ResourcesShort:
		return failed
	}
	return routine
}

func weightName(weight int) string { return [...]string{"routine", "failure", "change"}[weight] }

// inWords is the text of a line of the log after its message, without what
// differs each time that the same happens.
func inWords(attrs []slog.Attr) string {
	var parts []string
	for _, a := range attrs {
		switch a.Key {
		case "domain", "failures", "retry", "expires_in", "stack", "uses", "omitted", "known":
			continue
		}
		if value := a.Value.String(); value != "" {
			parts = append(parts, a.Key+": "+value)
		}
	}
	return shorten(strings.Join(parts, "; "))
}

// add keeps c, or counts it where it has happened before. The lock must be held.
func (h *History) add(weight int, c *Change) {
	all := h.kept[weight]
	key := keptKey{weight, c.Domain}
	if h.of[key] > 0 {
		// Not one further back: what came and went should be seen to.
		if i := lastOf(all, c.Domain); all[i].Message == c.Message && all[i].Text == c.Text {
			c.First, c.Count = all[i].First, all[i].Count+1
			h.kept[weight] = append(slices.Delete(all, i, i+1), c)
			return
		}
	}
	out := -1
	if h.of[key] >= maxOfOne {
		out = slices.IndexFunc(all, func(o *Change) bool { return o.Domain == c.Domain })
	} else if len(all) >= maxChanges {
		out = 0
	}
	if out >= 0 {
		gone := keptKey{weight, all[out].Domain}
		if h.of[gone]--; h.of[gone] == 0 {
			delete(h.of, gone)
		}
		all = slices.Delete(all, out, out+1)
	}
	h.of[key]++
	h.kept[weight] = append(all, c)
}

// lastOf is where the last change of a domain is.
func lastOf(all []*Change, domain string) int {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Domain == domain {
			return i
		}
	}
	return -1
}

// note keeps account of what fails now. What is about DNSSEC and what is about
// policies ends each by itself. The lock must be held.
func (h *History) note(ev policy.Event, c *Change) {
	if ev.Domain == "" {
		return
	}
	kind := policy.PolicyFailed
	if ev.Kind == policy.DANEChecked || ev.Kind == policy.DANEFailed {
		kind = policy.DANEFailed
	}
	key := failureKey{kind, ev.Domain}
	switch ev.Kind {
	case policy.Lookup, policy.OverrideUsed, policy.StoreFailed, policy.Panicked, policy.PolicyExpiring:
		return // they say nothing about the domain, or what was said just before
	case policy.RecordFailed, policy.RecordInvalid, policy.PolicyFailed, policy.DANEFailed:
	default:
		delete(h.troubles, key)
		return
	}
	t, known := h.troubles[key]
	if !known {
		h.makeRoom(c.Time)
		t.Domain, t.Since = ev.Domain, c.Time
	}
	t.Last, t.Message, t.Error = c.Time, c.Message, shorten(ev.Err.Error())
	t.InForce = ev.After != nil && ev.After.Policy != "" || ev.DANE != nil
	t.Count++
	h.troubles[key] = t
}

// makeRoom drops the failure that was seen least lately, if there are too many.
// The lock must be held.
func (h *History) makeRoom(now time.Time) {
	if len(h.troubles) < maxTroubles {
		return
	}
	var oldest failureKey
	last := now
	for key, t := range h.troubles {
		if !t.Last.After(last) {
			oldest, last = key, t.Last
		}
	}
	delete(h.troubles, oldest)
}

// Recent returns the last n changes, or fewer, the latest first. With
// withRoutine it includes routine events, which are successes.
func (h *History) Recent(n int, withRoutine bool) []Change {
	least := failed
	if withRoutine {
		least = routine
	}
	return h.pick(n, least, func(*Change) bool { return true })
}

// Changes returns the last n changes of what was known, or fewer, the latest
// first: neither failures nor routine, nor that a policy was met for the first
// time, of which there are so many on some days that one would see nothing else.
func (h *History) Changes(n int) []Change {
	return h.pick(n, changed, func(c *Change) bool { return c.kind != policy.PolicyNew })
}

// Of returns the last n changes of a domain, or fewer, the latest first.
func (h *History) Of(domain string, n int) []Change {
	return h.pick(n, routine, func(c *Change) bool { return c.Domain == domain })
}

// pick returns the last n changes that are wanted.
func (h *History) pick(n, least int, want func(*Change) bool) []Change {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := []Change{}
	for _, kept := range h.kept[least:] {
		for _, c := range kept {
			if want(c) {
				all = append(all, *c)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Change) int { return b.Time.Compare(a.Time) })
	return all[:min(n, len(all))]
}

// Troubles returns what fails now, those first that have failed for the longest
// time.
func (h *History) Troubles() []Trouble {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := []Trouble{}
	for key, t := range h.troubles {
		if time.Since(t.Last) > troubled {
			delete(h.troubles, key)
			continue
		}
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b Trouble) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Domain, b.Domain))
	})
	return all
}
