package policy

import (
	"fmt"
	"time"

	"stsmap/override"
)

// conditions are what decisions depend on beside the facts of a domain.
// They are not changed but replaced, so that a Decision made under other ones
// is recognised by their pointer.
type conditions struct {
	settings
	overrides *override.Table // nil or empty for most
	dane      *danePermission
	drift     int64 // of the two clocks, when these conditions began
	steady    int64 // monotonic: since when the clock was not stepped
}

// settings are what Configure can change. A flight keeps those that it began
// with.
type settings struct {
	fetcher    Fetcher
	timeout    time.Duration
	deferred   bool
	daneConfig DANEConfig
	strict     bool
	rules      rules
}

// A danePermission says whether DANE may be used. What was found out under one
// is not used under another.
type danePermission struct {
	decided bool
	why     error // why not; nil if it may
}

// off reports whether DANE is known not to be usable.
func (p *danePermission) off() bool { return p.why != nil }

// daneMatters reports whether what DANE says matters for facts of kind k.
func (c *conditions) daneMatters(k Kind) bool {
	return c.daneConfig.relevant(k) || c.strict && k == Testing && c.daneConfig.relevant(Enforce)
}

// override returns the override for a domain that counts at the time now; nil if
// there is none.
func (c *conditions) override(domain string, now time.Time) *override.Override {
	if c.overrides == nil {
		return nil
	}
	return c.overrides.Find(domain, now)
}

// change replaces the conditions by what edit makes of a copy, and returns them.
// Lookups that begin after it returned are answered under them.
func (e *Engine) change(edit func(*conditions)) *conditions {
	return e.changeIf(func(c *conditions) bool { edit(c); return true })
}

// changeIf is change for an edit that reports whether there is anything to change:
// new conditions make every decision be made anew.
func (e *Engine) changeIf(edit func(*conditions) bool) *conditions {
	e.conditionsMu.Lock()
	defer e.conditionsMu.Unlock()
	var c conditions
	last := e.conditions.Load()
	if last != nil {
		c = *last
	}
	if !edit(&c) {
		return last
	}
	e.conditions.Store(&c)
	return &c
}

// current returns the conditions at now. If the wall clock was set since they
// began, they are replaced: what was decided holds until times on that clock.
func (e *Engine) current(now instant) *conditions {
	c := e.conditions.Load()
	if !now.jumped(c.drift) {
		return c
	}
	return e.changeIf(func(c *conditions) bool {
		if !now.jumped(c.drift) {
			return false // another goroutine noticed
		}
		switch moved := time.Duration(now.drift() - c.drift); {
		case moved < -clockStep:
			e.setBack.Store(true)
			c.steady = now.mono
		case moved > clockStep:
			c.steady = now.mono
		}
		c.drift = now.drift()
		return true
	})
}

// Override replaces the overrides by t, which can be nil. Lookups that begin
// after it returned are answered by them.
func (e *Engine) Override(t *override.Table) {
	e.change(func(c *conditions) { c.overrides = t })
}

// AllowDANE says whether DANE may be used: why is nil if it may, and otherwise
// the reason, such as a resolver that does not validate (RFC 7672, Section
// 2.1.1) or a Postfix that does not look up DNSSEC. Without DANE the policies
// are in force. Until the first call, lookups that depend on it wait for it, as
// they do for DNS. A call that changes nothing does nothing.
func (e *Engine) AllowDANE(why error) {
	var last *danePermission
	changed := false
	e.changeIf(func(c *conditions) bool {
		last = c.dane
		changed = !last.decided || fmt.Sprint(last.why) != fmt.Sprint(why)
		switch {
		case !changed:
		case last.decided && last.off() && why != nil:
			p := *last
			p.why = why
			c.dane = &p
		default:
			// What was found out before need not be true: a resolver that
			// has stopped validating finds nothing secure.
			c.dane = &danePermission{decided: true, why: why}
		}
		if changed && !last.decided {
			close(e.daneDecided)
		}
		return changed
	})
	if !changed {
		return
	}
	ev := Event{Kind: DANEOn}
	if why != nil {
		ev = Event{Kind: DANEOff, Err: why}
	}
	e.observe(ev)
}
