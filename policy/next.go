package policy

import (
	"errors"
	"strings"
	"time"

	"stsmap/cache"
	"stsmap/sts"
	"stsmap/stsfetch"
)

const (
	// firstRetry is how long a version of a policy that could not be
	// downloaded is left alone (RFC 8461, Section 3.3: five minutes or
	// longer per version id); every further failure doubles it.
	firstRetry = 5 * time.Minute
	// maxRetry bounds that: an hour of less protection is enough.
	maxRetry = time.Hour
	// maxAbsence bounds how long a missing record is believed in,
	// whatever its negative TTL: a domain that switches MTA-STS on should
	// be noticed soon.
	maxAbsence = 30 * time.Minute
	// recordRetry is how long after a failed lookup the record of a domain
	// with a policy is looked up again on use.
	recordRetry = time.Minute
)

// rules are the durations that an administrator can set; see Config.
type rules struct{ refresh, recheck, forget time.Duration }

// An outcome is what one retrieval learned.
type outcome struct {
	record    stsfetch.Record // zero if recordErr is set
	recordErr error           // the record could not be looked up

	// A download was attempted if one of these is set.
	policy    *sts.Policy
	text      string // policy as served
	policyErr error
}

// next says what is to be remembered about a domain after got was learned at
// the time now, where old, which can be empty but for the domain, was
// remembered before. jitter, between 0 and 1, spreads refreshes.
//
// Two things it never does: take away a policy that has not expired, or make
// one last longer without having downloaded it again.
func (r rules) next(old cache.Entry, got outcome, now time.Time, jitter float64) cache.Entry {
	e := old
	if !holds(old, now) {
		e.ID, e.Policy, e.Fetched, e.Expires, e.Refresh = "", "", time.Time{}, now, time.Time{}
	}
	e.Recheck = now.Add(recordRetry)
	if got.recordErr == nil {
		e.Checked = now
		e.Recheck = now.Add(min(max(got.record.TTL, minTTL), r.recheck))
	}
	switch {
	case got.policy != nil:
		return r.downloaded(e, got, now, jitter)
	case got.policyErr != nil:
		e = r.failed(e, got, now)
	case got.recordErr != nil:
		e.Error = brief("record: " + got.recordErr.Error())
	case got.record.Why != nil:
		e = withoutRecord(e, got.record, now)
	case e.Policy == "" && e.FailedID == got.record.ID:
		e.Expires = e.Retry // still backing off
	case e.Policy != "" && e.ID == got.record.ID && e.FailedID != e.ID && !now.Before(e.Retry):
		// The domain says that what we have is what there is. That the other
		// version failed need not be remembered any longer.
		e.Failures, e.FailedID, e.Error, e.Result, e.Retry = 0, "", "", "", time.Time{}
	}
	switch {
	case e.Policy != "" && (e.Refresh.IsZero() || e.Refresh.After(now.Add(r.refresh))):
		e.Refresh = now // it was not to be refreshed any more, but is in use again
	case e.Policy == "" && (old.Policy != "" || !old.Refresh.IsZero()):
		e.Refresh = e.Expires // to be removed from where the policy was kept
	}
	return e
}

// downloaded remembers a new download. Its lifetime counts from now, and from
// nothing that HTTP or DNS say (RFC 8461, Sections 3.2 and 3.3).
func (r rules) downloaded(e cache.Entry, got outcome, now time.Time, jitter float64) cache.Entry {
	age := got.policy.MaxAge
	e = cache.Entry{
		Domain:  e.Domain,
		ID:      got.effectiveID(e),
		Policy:  got.text,
		Fetched: now,
		Expires: now.Add(age),
		Checked: e.Checked,
		Recheck: e.Recheck,
		Used:    e.Used,
	}
	// Well before it expires, at the latest daily (RFC 8461, Section 10.2).
	wait := min(time.Duration(float64(r.refresh)*(1-jitter/10)), age/2)
	e.Refresh = now.Add(wait)
	if wait < firstRetry || now.Sub(e.Used) > r.forget {
		// No policy is worth a download every few seconds, and none is worth
		// one for a domain that gets no mail any more. When it comes up next it has
		// expired, and is dropped.
		e.Refresh = e.Expires.Add(time.Second)
	}
	return e
}

// failed remembers that a version could not be downloaded. An unexpired
// policy stays in force (RFC 8461, Section 3.3).
func (r rules) failed(e cache.Entry, got outcome, now time.Time) cache.Entry {
	id := got.effectiveID(e)
	if e.FailedID != id {
		e.Failures = 0
	}
	e.FailedID = id
	e.Failures++
	e.Error = brief(got.policyErr.Error())
	if err, ok := errors.AsType[*stsfetch.Error](got.policyErr); ok {
		e.Result = err.Result()
	}
	e.Retry = now.Add(backOff(e.Failures))
	if e.Policy == "" {
		e.Expires = e.Retry
	} else {
		e.Refresh = e.Retry
	}
	return e
}

// withoutRecord remembers that the domain has no usable record. It is no
// reason to drop a policy (RFC 8461, Section 3.1).
func withoutRecord(e cache.Entry, record stsfetch.Record, now time.Time) cache.Entry {
	e.Error, e.Result = "", ""
	if !now.Before(e.Retry) {
		e.Failures, e.FailedID, e.Retry = 0, "", time.Time{}
	}
	if !errors.Is(record.Why, sts.ErrNoRecord) {
		e.Error = brief("record: " + record.Why.Error())
	}
	if e.Policy == "" {
		// Looking again earlier would only be told the same by the resolver.
		// A resolver that is about to forget the absence says that it lasts no
		// time, and must not be asked for each lookup.
		e.Expires = now.Add(min(max(record.TTL, minTTL), maxAbsence))
		e.Recheck = e.Expires
	}
	return e
}

// brief cuts what a stranger can make long, such as the names in a
// certificate: it is kept for every domain, and printed.
func brief(text string) string {
	const limit = 300
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "..."
}

// effectiveID is the id that a download, or the failure of one, counts for: the
// one seen before it (RFC 8461, Section 8.1), or if there was none to be seen,
// the one it replaces.
func (got outcome) effectiveID(e cache.Entry) string {
	if got.record.ID != "" {
		return got.record.ID
	}
	return e.ID
}

// backOff is how long a version is left alone after n failures in a row.
func backOff(n int) time.Duration {
	return min(firstRetry<<min(n-1, 4), maxRetry)
}

// holds reports whether e has a policy that has not expired by the wall clock (RFC
// 8461, Section 5.1: as long as the time since it was fetched has not exceeded
// max_age).
func holds(e cache.Entry, now time.Time) bool {
	return e.Policy != "" && !now.After(e.Expires)
}
