package policy

import (
	"errors"
	"time"

	"stsmap/cache"
	"stsmap/sts"
)

// expiryNotice is how long before it expires a policy that cannot be refreshed
// makes another event: long enough for a person to read it on a working day.
const expiryNotice = 24 * time.Hour

// report makes the events of a fetch. kept says that the store has after.
func (e *Engine) report(fl *flight, before, after cache.Entry, got outcome, kept bool) {
	ev := Event{Domain: fl.domain.name, Before: &before, After: &after, Took: time.Duration(e.now().mono - fl.began.mono), Trigger: fl.reason(before), Kept: kept}
	switch {
	case got.policy != nil && before.Policy == "":
		ev.Kind = PolicyNew
	case got.policy != nil && before.Policy != got.text:
		ev.Kind, ev.Weaker = PolicyChanged, weaker(before.Policy, got.policy)
	case got.policy != nil:
		ev.Kind = PolicyRenewed
	case got.policyErr != nil:
		ev.Kind, ev.Err = PolicyFailed, got.policyErr
	case got.recordErr != nil:
		ev.Kind, ev.Err = RecordFailed, got.recordErr
	case before.Policy != "" && after.Policy == "":
		ev.Kind = PolicyGone
	case errors.Is(got.record.Why, sts.ErrNoRecord):
		ev.Kind = RecordAbsent
	case got.record.Why != nil:
		ev.Kind, ev.Err = RecordInvalid, got.record.Why
	case before.Error != "" && after.Error == "":
		ev.Kind = Recovered
	default:
		return // the record is as it was
	}
	e.observe(ev)
	if ev.Kind == PolicyFailed && expiresSoon(before, after, e.now().wall) {
		ev.Kind = PolicyExpiring
		e.observe(ev)
	}
}

// reason is why fl fetched the policy, where before was known.
func (fl *flight) reason(before cache.Entry) Trigger {
	switch {
	case fl.trigger == onRefresh:
		return OnRefresh
	case fl.trigger == onRequest:
		return OnRequest
	case holds(before, fl.began.wall):
		return OnID
	}
	return OnMiss
}

// weaker is in which ways a policy that replaces the text of another one
// protects less. A text that does not parse protected nothing.
func weaker(text string, after *sts.Policy) []sts.Weakening {
	before, err := sts.ParsePolicy([]byte(text))
	if err != nil {
		return nil
	}
	return sts.Weakened(before, after)
}

// expiresSoon reports whether after, which failed to be refreshed at now, has a
// policy that expires within a day, and that this was not yet so at the failure
// before. It needs no memory of events: when that failure was follows from
// before.
func expiresSoon(before, after cache.Entry, now time.Time) bool {
	if !holds(after, now) || after.Expires.Sub(now) >= expiryNotice {
		return false
	}
	p, err := sts.ParsePolicy([]byte(after.Policy))
	if err != nil || p.Mode == sts.None {
		return false // nothing is lost with it (RFC 8461, Section 3.3)
	}
	if before.Failures == 0 || !before.Fetched.Equal(after.Fetched) {
		return true
	}
	last := before.Retry.Add(-backOff(before.Failures))
	return after.Expires.Sub(last) >= expiryNotice
}
