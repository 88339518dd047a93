package policy

import (
	"errors"
	"time"

	"stsmap/cache"
	"stsmap/sts"
)

// lapseNotice is how long before it expires a policy that cannot be refreshed
// is told of once more: long enough for a person to read it on a working day.
const lapseNotice = 24 * time.Hour

// report makes the events of a retrieval. kept tells that the store has after.
func (e *Engine) report(f *flight, before, after cache.Entry, got outcome, kept bool) {
	ev := Event{Domain: f.domain, Before: &before, After: &after, Took: time.Since(f.began), Trigger: f.trigger(before), Kept: kept}
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
	if ev.Kind == PolicyFailed && startsToLapse(before, after, time.Now()) {
		ev.Kind = PolicyLapsing
		e.observe(ev)
	}
}

// trigger is why f asked for the policy, where before was known.
func (f *flight) trigger(before cache.Entry) Trigger {
	switch {
	case f.why == daily:
		return OnRefresh
	case f.why == onRequest:
		return OnRequest
	case holds(before, f.began):
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

// startsToLapse reports whether after, which failed to be refreshed at now, has
// a policy that will not be in force for a day any more, and that this was not
// yet so at the failure before. It needs no memory of what was told: when that
// failure was follows from before.
func startsToLapse(before, after cache.Entry, now time.Time) bool {
	if !holds(after, now) || after.Expires.Sub(now) >= lapseNotice {
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
	return after.Expires.Sub(last) >= lapseNotice
}
