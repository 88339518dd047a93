package policy

import (
	"math"
	"time"

	"stsmap/dane"
	"stsmap/override"
)

// Override has the overrides of t count from now on, in place of all before. It
// may be called concurrently, and t may be nil.
//
// They are looked for where decisions are made, and not where decisions at hand
// are answered with: an answer about a domain in use costs the same whether
// there are overrides or not. So what is at hand is given up here. That it is
// made again costs a read of the store for each domain in use, at a time when
// somebody has just edited a file; to find out instead which domains a change is
// about would be more code than that is worth. A table at hand for each answer,
// behind a pointer that is nil for most, would need no such care, and would make
// exactly those sites slower that have overrides.
//
// The end of an override needs nobody to notice it: a decision made of one does
// not outlast it.
func (e *Engine) Override(t *override.Table) {
	e.settling.Lock()
	defer e.settling.Unlock()
	e.overrides.Store(t)
	e.ready.clear()
}

// overridden returns the decision about hop if the administrator has made it,
// and has it at hand. One to enforce a policy in mode testing needs the policy
// first, and is not made here.
//
// It goes before whatever is known, DANE included, and nothing is looked up for
// it: a domain is exempt because something about it is wrong, and mail must not
// wait for that to time out first.
func (e *Engine) overridden(hop dane.NextHop) *Decision {
	if e.overrides.Load() == nil {
		return nil
	}
	now := time.Now()
	e.settling.Lock()
	defer e.settling.Unlock()
	under := e.overrides.Load()
	o := under.Find(hop.Domain, now)
	if o == nil || o.Action == override.Enforce {
		return nil
	}
	d := &Decision{Override: o, under: under, noMX: hop.NoMX, port: hop.Port, Reason: because(o)}
	d.name(hop.String(), hop.Domain)
	switch o.Action {
	case override.Reply:
		d.Kind = Said
	case override.Defer:
		d.Kind = Failed
	}
	d.until, d.recheck, d.record = math.MaxInt64, math.MaxInt64, math.MaxInt64
	if !o.Until.IsZero() {
		d.until = o.Until.UnixNano()
	}
	if last := e.ready.get([]byte(d.NextHop)); last != nil && last.Override == o {
		return last
	}
	e.put(d)
	return d
}

// overruled reports whether d, which was made of what is known about a domain,
// must not be at hand: an override says something else, or those that d was
// made under have changed. The lock for settling must be held.
func (e *Engine) overruled(d *Decision) bool {
	under := e.overrides.Load()
	if d.STS != nil && d.under != under {
		return true
	}
	o := under.Find(d.Domain, time.Now())
	return o != nil && o.Action != override.Enforce
}

// enforceTesting puts a policy in mode testing into force if there is an override
// for that.
func (d *Decision) enforceTesting(now time.Time) {
	if d.standing != Testing {
		return
	}
	if o := d.under.Find(d.Domain, now); o != nil && o.Action == override.Enforce {
		d.Override, d.standing, d.Kind = o, Enforce, Enforce
	}
}

// because tells people of an override.
func because(o *override.Override) string {
	text := "override"
	if o.Reason != "" {
		text += ": " + o.Reason
	}
	return text
}
