package admin

import (
	"sync/atomic"
	"time"

	"stsmap/override"
	"stsmap/policy"
)

// A counter counts on the way of an answer. It has a line of the processor's
// cache for itself: two that share one make processors wait for each other that
// count different things.
type counter struct {
	atomic.Uint64
	_ [56]byte
}

// bounds are the upper bounds of the buckets of a histogram of lookups. Postfix
// gives up after 100 seconds, and a retrieval by default after 30.
func bounds() [11]time.Duration {
	const ms = time.Millisecond
	return [...]time.Duration{ms, 5 * ms, 10 * ms, 50 * ms, 100 * ms, 500 * ms, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second}
}

// A histogram has how long something took. Adding to it takes two additions and
// no lock.
type histogram struct {
	buckets [12]counter // the last is for what is above all bounds
	sum     counter     // nanoseconds
}

// add adds weight observations of took.
func (h *histogram) add(took time.Duration, weight int) {
	i := 0
	for _, b := range bounds() {
		if took <= b {
			break
		}
		i++
	}
	h.buckets[i].Add(uint64(weight))
	h.sum.Add(uint64(took) * uint64(weight))
}

// read returns what Prometheus wants: the number of all, their sum in seconds,
// and how many are no longer than each bound.
func (h *histogram) read() (n uint64, sum float64, upTo map[float64]uint64) {
	upTo = make(map[float64]uint64)
	for i, b := range bounds() {
		n += h.buckets[i].Load()
		upTo[b.Seconds()] = n
	}
	return n + h.buckets[len(h.buckets)-1].Load(), time.Duration(h.sum.Load()).Seconds(), upTo
}

// A result is the outcome of a lookup, for metrics.
type result uint8

const (
	secure      result = iota // a policy is enforced
	onlyTesting               // a policy in mode testing
	none                      // a policy in mode none
	goesDANE                  // DANE where the host has TLSA records
	onlyDANE                  // only DANE
	notFound                  // no policy
	overridden                // an override is the answer
	temporary                 // mail is deferred
	invalid                   // a key that has no policy domain
	results     = iota
)

// String returns the word for r that metrics use.
func (r result) String() string {
	return [...]string{"secure", "testing", "none", "dane", "dane-only", "notfound", "override", "temp", "invalid"}[r]
}

// resultOf returns what d, or nil for a key without a policy domain, came to.
func resultOf(d *policy.Decision) result {
	if d == nil {
		return invalid
	}
	if d.Override != nil && d.Override.Action != override.Enforce {
		return overridden // also for action "defer": the administrator wants that, so it is no failure
	}
	switch d.Kind {
	case policy.Enforce:
		return secure
	case policy.Testing:
		return onlyTesting
	case policy.DANE:
		return goesDANE
	case policy.DANEOnly:
		return onlyDANE
	case policy.Failed:
		return temporary
	}
	if d.STS != nil {
		return none
	}
	return notFound
}

// A Zone counts the answers under one socketmap name. Its methods may be called
// concurrently.
type Zone struct {
	answers   [results]counter
	overrides counter // answers that an override had a part in
	times     *lookupTimes
}

// lookupTimes are how long answers took, of all zones.
type lookupTimes struct{ cached, live histogram }

// Count counts one answer. d is nil for a key that has no policy domain. live
// reports whether the answer took a query. If weight is not 0, took is how long
// the answer took, as a sample that stands for weight answers. Count does not
// allocate.
func (z *Zone) Count(d *policy.Decision, live bool, took time.Duration, weight int) {
	z.answers[resultOf(d)].Add(1)
	if d != nil && d.Override != nil {
		z.overrides.Add(1)
	}
	switch {
	case weight == 0:
	case live:
		z.times.live.add(took, weight)
	default:
		z.times.cached.add(took, weight)
	}
}
