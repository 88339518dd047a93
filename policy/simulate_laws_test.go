package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/override"
	"stsmap/sts"
)

// The laws, by what a broken one is called.
const (
	lawInForce    = "an unexpired policy is in force until a later download replaces it"
	lawDestroyed  = "the store keeps an unexpired policy"
	lawLifetime   = "no policy outlives its max_age"
	lawNoticed    = "a changed id is noticed within 5 minutes of use"
	lawDaily      = "a policy is refreshed daily"
	lawOnce       = "no domain sees two downloads at once"
	lawBackOff    = "no download of an id that failed within its back-off"
	lawZone       = "no zone is asked more often than every 5 s by use"
	lawDefer      = "TEMP only where it is demanded"
	lawInTime     = "every answer comes within fetch.timeout"
	lawOverride   = "an override counts for every lookup that begins after it was set"
	lawKind       = "an answer follows from policy, DANE and settings"
	lawForget     = "what was forgotten is not answered"
	lawOtherHost  = "another host's write counts once a copy is too old"
	lawKept       = "what Put acknowledged is there after a restart"
	lawMemory     = "memory stays within its bounds"
	lawInStep     = "when all is healthy, all is in step"
	lawLeavesNone = "nothing leaks"
)

const (
	simDay = 24 * time.Hour
	// simRounding is what the rounding of times in a store can make of them.
	simRounding = 2 * time.Millisecond
	// simBackOff is the shortest back-off (RFC 8461, Section 3.3), and
	// simLongestBackOff the longest.
	simBackOff        = 5 * time.Minute
	simLongestBackOff = time.Hour
	// simDANELife is how long a DANE result that has changed can still count.
	simDANELife = time.Hour + time.Minute
)

// A simFloor is a policy that has to be in force on a host, or a later one.
type simFloor struct {
	version *simVersion
	fetched time.Time // when it was downloaded
	expires time.Time
	since   time.Time // when memory or the store got it
	known   time.Time // since when the host has had some policy of the domain in memory
	shaky   bool      // a clock was wrong meanwhile: what is later is not known
	dirty   bool      // the store does not have it
}

// holds reports whether f is a policy that is unexpired at t beyond rounding.
func (f simFloor) holds(t time.Time) bool {
	return f.version != nil && t.Before(f.expires.Add(-simRounding))
}

// A simUse is since when uses of a domain must have noticed its last change.
type simUse struct {
	held time.Time // first use, long enough after the change, with a policy in force
	any  time.Time // first use so long after the change that an absence had expired
}

// A simAsked is when the record of a domain was asked for by use.
type simAsked struct {
	at       time.Time
	answered bool
}

// A simBreach is a broken law.
type simBreach struct {
	law    string
	text   string
	at     time.Duration
	domain int // -1: none
}

// breaks notes a broken law: the first. The lock must be held.
func (w *simWorld) breaks(law string, domain int, format string, args ...any) {
	asked := func(part string) bool { return strings.Contains(law, part) }
	if w.breach == nil && slices.ContainsFunc(strings.Split(w.plan.only, ","), asked) {
		w.breach = &simBreach{law, fmt.Sprintf(format, args...), time.Since(w.began), domain}
	}
}

// A simQuestion is a lookup under way, with what was so when it began.
type simQuestion struct {
	host, domain int
	began        time.Time
	life, epoch  int
	changes      int // of the store
	memory       simFloor
	stored       simFloor // zero if the host need not know it
	acknowledged bool     // stored is needed since the host was restarted
}

// ask begins a lookup. The lock must be held.
func (w *simWorld) ask(h *simHost, d *simDomain) *simQuestion {
	now := time.Now()
	q := &simQuestion{host: h.index, domain: d.index, began: now, life: h.life, epoch: h.epochs[d.index], changes: w.store.changes, memory: h.memory[d.index]}
	if f := w.floorOf(w.store.entries[d.name]); f.version != nil && f.version.began.After(w.purged[d.index]) && !w.store.readable.IsZero() {
		f.since = w.storedAt[d.index]
		settled := now.Sub(w.store.readable) > simStoreRetry+simCopyAge+simTimeout
		switch {
		case !settled:
		case h.memory[d.index].version == nil && h.began.After(f.since) && h.began.Sub(w.store.readable) > simStoreRetry:
			q.stored, q.acknowledged = f, true
		case now.Sub(f.since) > simCopyAge+simStoreRetry && now.Sub(h.began) > simCopyAge:
			q.stored = f
		}
	}
	h.active[d.index]++
	h.usedAt[d.index] = now
	return q
}

// floorOf is what an entry demands. The lock must be held.
func (w *simWorld) floorOf(e cache.Entry) simFloor {
	return simFloor{version: w.version(e.Policy), fetched: e.Fetched, expires: e.Expires, shaky: w.clocksWrong}
}

// judge ends a lookup and holds its answer against the laws. The lock must be
// held.
func (w *simWorld) judge(h *simHost, q *simQuestion, a simAnswer) {
	d, now := w.domains[q.domain], time.Now()
	if h.life == q.life {
		h.active[d.index]--
	}
	if took := now.Sub(q.began); took > simTimeout+time.Millisecond {
		w.breaks(lawInTime, q.domain, "host %d: the answer about %s took %s", q.host, d.name, took)
	}
	if a.version != nil {
		w.judgeLifetime(q, a)
	}
	if h.life != q.life || !h.up || h.epochs[d.index] != q.epoch {
		return // something that has answers change happened meanwhile
	}
	w.judgeKind(h, d, q, a)
	if a.override {
		return
	}
	w.judgeFloor(h, d, q, a)
	w.judgeForgotten(h, d, q, a)
	w.judgeNoticed(h, d, q, a)
	if a.version != nil {
		w.judgeDaily(h, d, q, a)
	}
	if a.version != nil && a.version.began.After(w.purged[d.index]) {
		w.learn(h, d, simFloor{version: a.version, fetched: a.fetched, expires: a.expires, since: now})
	}
}

// learn notes that a host has a policy in memory. The lock must be held.
func (w *simWorld) learn(h *simHost, d *simDomain, f simFloor) {
	f.shaky = w.clocksWrong
	last := h.memory[d.index]
	if last.version == nil || !f.fetched.Before(last.fetched) || !last.holds(time.Now()) {
		if f.known = last.known; last.version == nil {
			f.known = time.Now()
		}
		f.dirty = f.dirty || last.dirty && last.fetched.Equal(f.fetched)
		h.memory[d.index] = f
	}
}

func (w *simWorld) judgeLifetime(q *simQuestion, a simAnswer) {
	if a.version.domain != q.domain {
		w.breaks(lawKind, q.domain, "host %d: %s is answered with the policy of %s", q.host, simName(q.domain), simName(a.version.domain))
	}
	if end := a.version.done.Add(a.version.maxAge + w.clockSlack + simRounding); q.began.After(end) {
		w.breaks(lawLifetime, q.domain, "host %d: %s is answered with version %d, which was downloaded %s ago and has max_age %s",
			q.host, simName(q.domain), a.version.number, q.began.Sub(a.version.done), a.version.maxAge)
	}
}

// judgeFloor: what memory or the store has is in force, unless something later is.
func (w *simWorld) judgeFloor(h *simHost, d *simDomain, q *simQuestion, a simAnswer) {
	now := time.Now()
	need, law, where := q.memory, lawInForce, "memory"
	pressed := !h.pressure.IsZero() && !need.dirty
	if pressed || !need.holds(now) {
		need = simFloor{}
	}
	readable := w.store.readable // all the time
	if f := q.stored; !readable.IsZero() && readable.Before(q.began) && f.holds(now) && !f.fetched.Before(q.memory.fetched) && w.store.changes == q.changes && (need.version == nil || f.fetched.After(need.fetched)) {
		need, law, where = f, lawOtherHost, "the store"
		if q.acknowledged {
			law = lawKept
		}
	}
	if need.version == nil || !w.clockAllows(h, need) {
		return
	}
	text := fmt.Sprintf("%s has version %d of %s, mode %s, downloaded %s ago, expires in %s",
		where, need.version.number, d.name, need.version.mode, now.Sub(need.fetched), need.expires.Sub(now))
	switch {
	case a.version == nil && need.version.mode == sts.Enforce:
		w.breaks(law, d.index, "host %d answers %s (%s); %s", q.host, a.kind, a.reason, text)
	case a.version == nil, need.shaky:
	case a.version != need.version && a.fetched.Add(simRounding).Before(need.fetched):
		w.breaks(law, d.index, "host %d answers version %d, which was downloaded earlier; %s", q.host, a.version.number, text)
	}
}

// judgeKind: an answer follows from override, policy, DANE and settings.
func (w *simWorld) judgeKind(h *simHost, d *simDomain, q *simQuestion, a simAnswer) {
	now := time.Now()
	o := h.rules.Find(d.name, h.wall(now))
	if o != h.rules.Find(d.name, h.wall(q.began)) {
		return
	}
	if o != nil && o.Action != override.Enforce {
		want := map[override.Action]Kind{override.Exempt: None, override.Reply: Replied, override.Defer: Failed}[o.Action]
		if a.kind != want || !a.override {
			w.breaks(lawOverride, d.index, "host %d answers %s (%s), and the override of %s is to %s", q.host, a.kind, a.reason, d.name, o.Action)
		}
		return
	}
	if a.override {
		w.breaks(lawOverride, d.index, "host %d answers as an override that ended: %s", q.host, a.reason)
		return
	}
	enforced := a.version != nil && (a.version.mode == sts.Enforce || a.version.mode == sts.Testing && o != nil)
	if o != nil && a.version != nil && a.version.mode == sts.Testing && a.kind == Testing {
		w.breaks(lawOverride, d.index, "host %d answers %s in spite of the override to enforce", q.host, a.kind)
		return
	}
	if a.kind == Failed {
		w.judgeDeferred(h, d, q, a, enforced)
		return
	}
	expected := None
	switch {
	case enforced:
		expected = Enforce
	case a.version != nil && a.version.mode == sts.Testing:
		expected = Testing
	}
	danes := h.settings.DANE.Check != nil && h.allowed && enforced
	lost := d.dane.Count(dane.Failed) + d.dane.Count(dane.Unresolved)
	unsettled := d.dane.MXSecure && d.dane.Count(dane.Usable) == 0 && lost > 0 // an earlier result can stay
	if danes && (unsettled || d.daneHealth != simWell || q.began.Sub(d.daneCalm) < simDANELife) {
		return // more than one result can still count
	}
	if danes {
		expected, _ = h.settings.DANE.combine(Enforce, &daneState{result: &d.dane, conclusive: true, err: failure(&d.dane)})
	}
	if a.kind != expected {
		w.breaks(lawKind, d.index, "host %d answers %s about %s, want %s: %s", q.host, a.kind, d.name, expected, a.reason)
	}
}

// judgeDeferred: TEMP is answered only where nothing is known and DNS is in
// trouble, and the administrator wants that, or where DANE cannot be determined
// for a policy to be enforced.
func (w *simWorld) judgeDeferred(h *simHost, d *simDomain, q *simQuestion, a simAnswer, enforced bool) {
	const lasts = 2 * time.Minute
	dnsTrouble := d.dns != simWell || q.began.Sub(d.dnsWell) < lasts
	danes := h.settings.DANE.Check != nil && h.allowed && !h.settings.DANE.FallBack
	daneTrouble := d.daneHealth != simWell || q.began.Sub(d.daneWell) < lasts || q.began.Sub(d.daneCalm) < simDANELife || d.dane.Count(dane.Failed) > 0
	if a.version == nil && h.settings.Defer && dnsTrouble || enforced && danes && daneTrouble {
		return
	}
	w.breaks(lawDefer, d.index, "host %d defers mail to %s (%s)", q.host, d.name, a.reason)
}

// judgeForgotten: what was forgotten is not answered unless it was downloaded
// since.
func (w *simWorld) judgeForgotten(h *simHost, d *simDomain, q *simQuestion, a simAnswer) {
	f := w.forgotten[d.index]
	if a.version == nil || f.ended.IsZero() || !f.clean || !q.began.After(f.ended) || a.version.began.After(f.began) {
		return
	}
	if q.host == f.host || q.began.Sub(f.ended) > simCopyAge+simStoreRetry {
		w.breaks(lawForget, d.index, "host %d answers version %d of %s, which was forgotten %s ago", q.host, a.version.number, d.name, q.began.Sub(f.ended))
	}
}

// judgeNoticed: a change of the record is noticed.
func (w *simWorld) judgeNoticed(h *simHost, d *simDomain, q *simQuestion, a simAnswer) {
	const (
		recheck = 5*time.Minute + 2*simTimeout
		absent  = 30*time.Minute + recheck
		fetch   = 90 * time.Second
	)
	if d.why != nil || d.dns != simWell || d.host != simWell || w.clockUnsettled(h, q.began) {
		return
	}
	u := &h.used[d.index]
	old := q.began.Sub(d.calm)
	blamed := u.held.IsZero() || u.held.Sub(d.failed) > simLongestBackOff+2*simTimeout
	if a.version != nil && !u.held.IsZero() && q.began.Sub(u.held) > fetch && blamed && a.id != d.id {
		w.breaks(lawNoticed, d.index, "host %d answers id %s of %s; the record has had id %s for %s, and was used %s ago", q.host, a.id, d.name, d.id, old, q.began.Sub(u.held))
	}
	if a.version == nil && !u.any.IsZero() && q.began.Sub(u.any) > fetch && d.policy.maxAge > time.Hour {
		w.breaks(lawInStep, d.index, "host %d answers that there is no policy (%s); %s has published one for %s, and was used %s ago", q.host, a.reason, d.name, old, q.began.Sub(u.any))
	}
	if a.version != nil && u.held.IsZero() && old > recheck {
		u.held = q.began
	}
	if u.any.IsZero() && old > absent && q.began.Sub(d.failed) > simLongestBackOff+absent {
		u.any = q.began
	}
}

// judgeDaily: a policy in force is refreshed daily, and before it expires.
func (w *simWorld) judgeDaily(h *simHost, d *simDomain, q *simQuestion, a simAnswer) {
	const margin = 30*time.Minute + 2*simLongestBackOff
	if d.firstUse.IsZero() {
		d.firstUse = q.began
	}
	// What was fetched by a command and never used is not refreshed.
	if q.began.Sub(d.firstUse) < margin || a.version.maxAge < 8*time.Hour || q.began.Sub(h.began) < margin || w.clockUnsettled(h, q.began) || w.plan.farther {
		return
	}
	// Another host may have downloaded a later version, which is due by its own
	// max_age.
	maxAge := a.version.maxAge
	if d.downloaded != nil {
		maxAge = max(maxAge, d.downloaded.maxAge)
	}
	within := min(simDay, maxAge/2) + margin
	// What no memory has is not refreshed as long as the store cannot lease it.
	known := h.memory[d.index].known
	if w.store.writable.IsZero() || q.began.Sub(w.store.writable) < margin {
		if known.IsZero() || q.began.Sub(known) < margin {
			return
		}
	}
	if since := q.began.Sub(d.attempted); since > within {
		w.breaks(lawDaily, d.index, "host %d has version %d of %s, max_age %s, in force, and the last download was begun %s ago", q.host, a.version.number, d.name, a.version.maxAge, since)
	}
}

// askedRecord: a zone is not asked too often by use. The lock must be held.
func (w *simWorld) askedRecord(h *simHost, d *simDomain) {
	now := time.Now()
	last := h.asked[d.index]
	byUse := h.usedAt[d.index].Equal(now) && h.commands[d.index] == 0
	if gap := now.Sub(last.at); byUse && last.answered && gap < minTTL && !w.clockUnsettled(h, now) {
		w.breaks(lawZone, d.index, "host %d asks for the record of %s %s after it was asked last", h.index, d.name, gap)
	}
	h.asked[d.index] = simAsked{at: now}
}

// learnedRecord notes that DNS has answered. The lock must be held.
func (w *simWorld) learnedRecord(h *simHost, d *simDomain) { h.asked[d.index].answered = true }

// beganFetch: no domain sees two downloads at once, or one of an id that failed
// within its back-off. The lock must be held.
func (w *simWorld) beganFetch(f *simFetcher, d *simDomain) *simFetch {
	h, now := f.host, time.Now()
	fetch := &simFetch{host: h.index, life: f.life, began: now, known: h.memory[d.index].holds(now)}
	if e := w.store.entries[d.name]; e.Policy != "" && now.Before(e.Expires) {
		fetch.known = true
	}
	d.attempted = now
	forced := h.commands[d.index] > 0
	for _, other := range d.fetches {
		switch {
		case other.host == h.index && other.life == f.life:
			w.breaks(lawOnce, d.index, "host %d downloads the policy of %s twice at once", h.index, d.name)
		case other.began.Sub(w.deletedAt[d.index]) < simTimeout: // it was under way, and could not know of that
		case forced || fetch.known || other.known || w.store.writable.IsZero() || other.began.Sub(w.store.writable) < simStoreRetry+simTimeout:
		case other.host != h.index && now.Sub(other.began) < simClaimTime && other.life == w.hosts[other.host].life && w.commandsOver(d, other.began) && other.began.After(w.lostAt) && !w.clocksWrong:
			w.breaks(lawOnce, d.index, "host %d downloads the policy of %s, of which nothing is known, while host %d does", h.index, d.name, other.host)
		}
	}
	if id := h.seen[d.index]; !forced && id != "" && id == h.failedID[d.index] && !w.clockUnsettled(h, now) {
		if gap := now.Sub(h.failedAt[d.index]); gap < simBackOff {
			w.breaks(lawBackOff, d.index, "host %d downloads id %s of %s %s after that failed", h.index, id, d.name, gap)
		}
	}
	d.fetches = append(d.fetches, fetch)
	return fetch
}

// endedFetch notes how a download ended: with v, or nil if it failed, which is
// the fault of the domain or not. The lock must be held.
func (w *simWorld) endedFetch(f *simFetcher, d *simDomain, fetch *simFetch, v *simVersion, fault bool) {
	h, now := f.host, time.Now()
	for i, other := range d.fetches {
		if other == fetch {
			d.fetches = append(d.fetches[:i:i], d.fetches[i+1:]...)
			break
		}
	}
	alive := f.life == h.life && h.up
	if v == nil {
		if fault {
			d.failed = now
		}
		if fault && alive && w.commandsOver(d, fetch.began) {
			h.failedID[d.index], h.failedAt[d.index] = h.seen[d.index], now
		}
		return
	}
	v.began, v.done = fetch.began, now
	d.downloaded = v
	if h.failedID[d.index] == h.seen[d.index] {
		h.failedID[d.index] = ""
	}
	if alive && w.commandsOver(d, fetch.began) {
		wall := now.Add(time.Duration(h.offset.Load()))
		w.learn(h, d, simFloor{version: v, fetched: wall, expires: now.Add(v.maxAge), since: now, dirty: true})
	}
}

// putting: an entry does not replace an unexpired policy by none, and lasts no longer
// than its download lets it. The lock must be held.
func (w *simWorld) putting(h *simHost, old, e cache.Entry) {
	d := w.byName[e.Domain]
	if d == nil {
		return
	}
	now := time.Now()
	if removed := w.removed[d.index]; removed.Policy != "" && old.Policy == "" {
		old = removed
	}
	w.removed[d.index] = cache.Entry{}
	if old.Policy != "" && e.Policy == "" && now.Before(old.Expires.Add(-simRounding)) && !w.mayDestroy(h, d) {
		w.breaks(lawDestroyed, d.index, "host %d puts an absence (%s) in place of version %d of %s, which expires in %s", h.index, e.Error, w.version(old.Policy).number, d.name, old.Expires.Sub(now))
	}
	v := w.version(e.Policy)
	if v == nil {
		return
	}
	if end := v.done.Add(v.maxAge + w.clockSlack + simRounding); e.Expires.After(end) {
		w.breaks(lawLifetime, d.index, "host %d puts version %d of %s, downloaded %s ago with max_age %s, to expire in %s", h.index, v.number, d.name, now.Sub(v.done), v.maxAge, e.Expires.Sub(now))
	}
	if f := h.memory[d.index]; f.version == v {
		h.memory[d.index].dirty = false
	}
	for _, other := range w.hosts {
		// That policy, too, or then none: what has replaced it can expire earlier.
		if f := &other.memory[d.index]; f.fetched.Before(e.Fetched.Add(-simRounding)) && e.Expires.Before(f.expires) {
			f.expires = e.Expires
		}
	}
	if f := w.forgotten[d.index]; f.clean && now.After(f.ended) && !v.began.After(f.began) {
		w.breaks(lawForget, d.index, "host %d stores version %d of %s again, %s after it was forgotten", h.index, v.number, d.name, now.Sub(f.ended))
	}
}

// deleting: an unexpired policy is not deleted but by a command. The lock must
// be held.
func (w *simWorld) deleting(h *simHost, old cache.Entry) {
	d := w.byName[old.Domain]
	if d == nil || old.Policy == "" || !time.Now().Before(old.Expires.Add(-simRounding)) || w.mayDestroy(h, d) {
		return
	}
	if w.clocksWrong {
		w.removed[d.index] = old // to make way for a download, perhaps
		return
	}
	w.breaks(lawDestroyed, d.index, "host %d deletes version %d of %s, which expires in %s", h.index, w.version(old.Policy).number, d.name, time.Until(old.Expires))
}

// mayDestroy reports whether a command is under way for the domain, or the clock
// of the host is wrong by so much that no law holds.
func (w *simWorld) mayDestroy(h *simHost, d *simDomain) bool {
	return h.destroys[d.index] > 0 || !h.wrong.IsZero()
}

// stored notes that the entry of a domain was written. The lock must be held.
func (w *simWorld) stored(name string) {
	if d := w.byName[name]; d != nil {
		w.storedAt[d.index] = time.Now()
	}
}

// lost notes that the store has lost something. The lock must be held.
func (w *simWorld) lost() {
	w.store.changes++
	w.lostAt = time.Now()
	for i, d := range w.domains {
		w.forgotten[i] = simForgotten{}
		d.firstUse = time.Time{}
	}
	for _, h := range w.hosts {
		clear(h.failedID)
		clear(h.asked)
		for d := range h.memory {
			h.memory[d].dirty = false // the host believes that the store has it
		}
	}
}

// clockAllows reports whether the clock of a host lets a policy be in force: by
// its wall clock, too, it is unexpired.
func (w *simWorld) clockAllows(h *simHost, f simFloor) bool {
	return h.wrong.IsZero() && time.Now().Add(time.Duration(h.offset.Load())).Before(f.expires.Add(-w.clockSlack-simRounding))
}

// clockUnsettled reports whether the clock of a host was set in the last hours.
func (w *simWorld) clockUnsettled(h *simHost, now time.Time) bool {
	return !h.clockSet.IsZero() && now.Sub(h.clockSet) < 3*time.Hour || h.offset.Load() != 0
}

// judgeMemory: memory stays within its bounds in bytes. The lock must not be
// held.
func (w *simWorld) judgeMemory(h *simHost) {
	if used, bound := h.memoryUsed(); used > bound+bound/4+128<<10 {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.breaks(lawMemory, -1, "host %d keeps %d bytes, the bound is %d", h.index, used, bound)
	}
	for _, known := range h.engine.memory.domains() {
		// An absence may keep an expired policy, and that nothing.
		if f := known.facts.Load(); f != nil && f.expired != nil && (f.policy != nil || f.expired.expired != nil) {
			w.breaks(lawMemory, -1, "host %d keeps what it knew before of %s", h.index, known.name)
		}
	}
}

// judgeStep: at the end, when all has been healthy for a day, both hosts answer
// what the domain publishes. The lock must be held.
func (w *simWorld) judgeStep(h *simHost, d *simDomain, a simAnswer) {
	switch {
	case a.override || d.why != nil && a.version == nil:
	case a.version == nil:
		w.breaks(lawInStep, d.index, "host %d answers that there is no policy (%s); %s has published version %d", h.index, a.reason, d.name, d.policy.number)
	case a.version != d.policy:
		w.breaks(lawInStep, d.index, "host %d answers version %d; %s has published version %d", h.index, a.version.number, d.name, d.policy.number)
	case d.why == nil && a.id != d.id:
		w.breaks(lawInStep, d.index, "host %d answers id %s; %s has published id %s", h.index, a.id, d.name, d.id)
	}
}

var errSimNotAllowed = errors.New("the resolver does not validate")

// same reports whether two breaches are of the same law.
func (b *simBreach) same(other *simBreach) bool {
	return b != nil && other != nil && b.law == other.law
}

// A simForgotten is a "cache forget" that has returned.
type simForgotten struct {
	host         int
	began, ended time.Time
	clean        bool // a hint has reached every host that may have known the policy
}

// beganCommand and endedCommand stand around what an administrator has a host do
// to a domain; destroys tells that policies can go with it. The lock must be
// held.
func (w *simWorld) beganCommand(h *simHost, d *simDomain, destroys bool) {
	h.commands[d.index]++
	if destroys {
		h.destroys[d.index]++
		w.purge(d)
	}
}

func (w *simWorld) endedCommand(h *simHost, life int, d *simDomain, destroys bool) {
	if h.life == life {
		h.commands[d.index]--
	}
	if destroys {
		if h.life == life {
			h.destroys[d.index]--
		}
		w.purge(d)
	}
	h.asked[d.index] = simAsked{}
	w.commandEnd[d.index] = time.Now()
}

// purge has nothing demanded that is known of a domain by now.
func (w *simWorld) purge(d *simDomain) {
	w.purged[d.index] = time.Now()
	d.firstUse = time.Time{}
	for _, h := range w.hosts {
		h.memory[d.index] = simFloor{}
		h.failedID[d.index] = ""
		h.asked[d.index] = simAsked{}
		w.upset(h, d.index)
	}
}

// upset notes that the answers of a host about a domain can change at once.
func (w *simWorld) upset(h *simHost, domain int) {
	h.epochs[domain]++
	h.used[domain] = simUse{}
}

// commandsOn is how many commands about d are under way.
func (w *simWorld) commandsOn(d *simDomain) (n int) {
	for _, h := range w.hosts {
		n += h.commands[d.index]
	}
	return n
}

// commandsOver reports whether what began then began after all commands about d
// had ended, and hints of them had reached all hosts.
func (w *simWorld) commandsOver(d *simDomain, began time.Time) bool {
	return w.commandsOn(d) == 0 && began.Sub(w.commandEnd[d.index]) > 3*simHintDelay
}
