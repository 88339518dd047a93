package policy

import (
	"time"

	"stsmap/cache"
	"stsmap/sts"
)

// facts are what the Engine knows of one domain: what its cache.Entry means, rendered
// once for the client. That there is no policy is a fact, too. Facts are shared
// and not changed.
type facts struct {
	text   string      // entry and answer, in one piece of memory
	reason string      // why there is no policy, or why the client cannot enforce it
	policy *sts.Policy // nil: none. MX and Lines are not kept: entry has them.

	entryLen uint32 // in text
	kind     Kind   // by MTA-STS alone
	unknown  bool   // nothing could be found out: settings.deferred says what that means
	lost     bool   // the store does not have the policy that memory has
	bug      bool   // an internal error: mail must not be delivered on it

	fetched  int64 // when the policy was downloaded, in Unix nanoseconds
	expires  int64 // when it expires, likewise
	refresh  int64 // when to fetch it again, likewise; 0: never
	deadline int64 // monotonic: when it, or its absence, expires at the latest
	recheck  int64 // monotonic: when to look up the record again on use

	expired *facts // of a policy that may not have expired: the clock may be wrong
}

// entry is the cache.Entry, encoded; empty if nothing is to be kept.
func (f *facts) entry() string { return f.text[:f.entryLen] }

// answer is what Config.Render made of the policy.
func (f *facts) answer() string { return f.text[f.entryLen:] }

// setText sets what entry and answer return.
func (f *facts) setText(entry, answer string) {
	f.text, f.entryLen = entry+answer, uint32(len(entry))
}

// inForce reports whether the facts still count: the policy has not expired by
// either clock (RFC 8461, Section 5.1), or its absence is recent.
func (f *facts) inForce(now instant) bool {
	return now.mono <= f.deadline && (f.policy == nil || now.wall.UnixNano() <= f.expires)
}

// expireIn has f, which is not shared yet, expire after d, and the record looked up
// again then.
func (f *facts) expireIn(d time.Duration, now instant) {
	f.deadline = now.in(d)
	f.recheck = f.deadline
}

// hasPolicy reports whether f, which may be nil, has a policy in force.
func (f *facts) hasPolicy(now instant) bool { return f != nil && f.policy != nil && f.inForce(now) }

// lastPolicy returns the facts of the policy that f has, or had before its
// absence; nil if there is none.
func (f *facts) lastPolicy() *facts {
	if f == nil || f.policy != nil {
		return f
	}
	return f.expired
}

// decoded returns the entry that f was made of, with no more than the domain if
// none was kept.
func (f *facts) decoded(domain string) cache.Entry {
	if f != nil && f.entryLen > 0 {
		if e, err := cache.Decode(domain, f.entry()); err == nil {
			return e
		}
	}
	return cache.Entry{Domain: domain}
}

// unknownFacts are those of a domain of which nothing is known because finding
// out failed with err. They are for the answers that wait, and not kept.
func unknownFacts(err error) *facts {
	return &facts{reason: err.Error(), unknown: true}
}

// newFacts returns what e means at now. last is what was known before; it can be
// nil.
func (e *Engine) newFacts(entry cache.Entry, now instant, last *facts) *facts {
	f := &facts{recheck: now.mono}
	if enc, err := cache.Encode(entry); err == nil {
		f.setText(enc, "")
		entry = f.decoded(entry.Domain) // whose strings take no memory of their own
	}
	rules := &e.conditions.Load().rules
	if entry.Policy == "" {
		f.reason = noPolicyReason(entry)
		// An absence that seems to last longer was kept by a clock ahead of ours.
		if left := entry.Expires.Sub(now.wall); left >= 0 && left <= max(maxAbsence, maxRetry) {
			f.deadline = now.in(left)
		} else {
			f.deadline = now.mono - 1
		}
		if again := entry.Recheck.Sub(now.wall); again >= 0 {
			f.recheck = min(f.deadline, now.in(again))
		}
		return f
	}
	p, err := sts.ParsePolicy([]byte(entry.Policy))
	if err != nil {
		// It parsed when it was stored. Deciding nothing is right, guessing is not.
		f.reason, f.deadline = "stored policy is unreadable: "+err.Error(), now.mono-1
		return f
	}
	f.fetched, f.expires, f.refresh = nanos(entry.Fetched), nanos(entry.Expires), nanos(entry.Refresh)
	f.deadline = deadline(entry, now)
	if last := last.lastPolicy(); last != nil && last.fetched == f.fetched {
		f.deadline = min(f.deadline, last.deadline)
	}
	if left := entry.Recheck.Sub(now.wall); left > 0 && left <= max(rules.recheck, recordRetry) {
		f.recheck = now.in(left)
	}
	e.renderPolicy(f, entry, p)
	return f
}

// deadline is when the policy of e expires by the monotonic clock: after what is
// left of its lifetime, and never after more than all of it. If nothing seems to
// be left, the wall clock says so by itself, and may be ahead.
func deadline(e cache.Entry, now instant) int64 {
	life := e.Expires.Sub(e.Fetched)
	left := e.Expires.Sub(now.wall)
	if left < 0 || left > life {
		left = life
	}
	return now.in(left)
}

// renderPolicy sets what f has of the policy p of an entry.
func (e *Engine) renderPolicy(f *facts, entry cache.Entry, p *sts.Policy) {
	switch p.Mode {
	case sts.Enforce:
		f.kind = Enforce
	case sts.Testing:
		f.kind = Testing
	}
	if e.render != nil && f.kind != None {
		answer, err := e.render(&Decision{NextHop: entry.Domain, Domain: entry.Domain, STS: p, ID: entry.ID, Kind: f.kind})
		if f.setText(f.entry(), answer); err != nil {
			f.reason = err.Error()
		}
	}
	f.policy = e.memory.modes[p.Mode]
}

// noPolicy is why there is no policy; empty if there is one.
func (f *facts) noPolicy() string {
	if f.policy != nil {
		return ""
	}
	return f.reason
}

// noPolicyReason says why e has no policy.
func noPolicyReason(e cache.Entry) string {
	if e.Error != "" {
		return e.Error
	}
	return "no MTA-STS record"
}

// withPolicyKept returns f, with the last policy that there was if f has none:
// while it may be the clock that is wrong, an absence does not replace it. Facts
// that have a policy keep none, or each recheck would add to a chain.
func (f *facts) withPolicyKept(last *facts, c *conditions, now instant) *facts {
	last = last.lastPolicy()
	if f.policy != nil || last == nil || c.expiredForLong(time.Unix(0, last.expires), now) {
		return f
	}
	kept := *f
	kept.expired = last
	return &kept
}

// replaces reports whether f, made of what a store has, counts more than have,
// which has a policy: it was downloaded later, or is the same and was checked
// later.
func (f *facts) replaces(have *facts, stored cache.Entry) bool {
	if f.policy == nil || f.fetched != have.fetched {
		return f.policy != nil && f.fetched > have.fetched
	}
	return !stored.Checked.Before(have.decoded(stored.Domain).Checked)
}

// isReplacedBy reports whether f has a policy that was downloaded before the one
// of last, which can be nil.
func (f *facts) isReplacedBy(last *facts) bool {
	return last != nil && f.policy != nil && f.fetched < last.fetched
}

// restored returns the facts that count: those of the policy that had seemed to
// be expired, if it has not.
func (f *facts) restored(now instant) *facts {
	if f != nil && f.policy == nil && f.expired.hasPolicy(now) {
		return f.expired
	}
	return f
}

// size is how many bytes f takes.
func (f *facts) size() int64 {
	if f == nil {
		return 0
	}
	return factsBytes + int64(len(f.text)+len(f.reason)) + f.expired.size()
}

// nanos is t in Unix nanoseconds, and 0 for the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
