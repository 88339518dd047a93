package policy

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/sts"
	"stsmap/stsfetch"
)

func testRules() rules {
	return rules{refresh: 24 * time.Hour, recheck: 5 * time.Minute, forget: 90 * 24 * time.Hour}
}

func day(n int) time.Time { return time.Date(2026, 1, n, 12, 0, 0, 0, time.UTC) }

const policyText = "version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 604800\n"

func known() cache.Entry {
	return cache.Entry{
		Domain: "example.com", ID: "A", Policy: policyText,
		Fetched: day(1), Expires: day(8), Checked: day(1), Recheck: day(1).Add(5 * time.Minute),
		Refresh: day(2), Used: day(1),
	}
}

// TestBackOff: five minutes, doubling, an hour at the most (house rule;
// RFC 8461, Section 3.3 asks for five minutes or more).
func TestBackOff(t *testing.T) {
	want := []time.Duration{5, 10, 20, 40, 60, 60, 60}
	for i, minutes := range want {
		if got := backOff(i + 1); got != minutes*time.Minute {
			t.Errorf("after %d failures: %s, want %d minutes", i+1, got, minutes)
		}
	}
	if got := backOff(1 << 40); got != time.Hour {
		t.Errorf("after very many failures: %s", got)
	}
}

// TestBackOffIsKept: neither a look at the record nor its absence ends the
// back-off of a version that could not be downloaded (RFC 8461, Section 3.3).
func TestBackOffIsKept(t *testing.T) {
	old := known()
	old.Failures, old.FailedID, old.Retry = 3, "A", day(2)
	for name, record := range map[string]stsfetch.Record{
		"same id":   {ID: "A", TTL: time.Hour},
		"other id":  {ID: "B", TTL: time.Hour},
		"no record": {Why: sts.ErrNoRecord, TTL: time.Hour},
	} {
		e := testRules().next(old, outcome{record: record}, day(1).Add(time.Hour), 0)
		if e.Failures != 3 || e.FailedID != "A" || !e.Retry.Equal(day(2)) {
			t.Errorf("%s: %d failures of %q, retry %s", name, e.Failures, e.FailedID, e.Retry)
		}
	}
}

// TestRemoteTextIsBrief: what strangers write is kept for every domain, so it
// is kept short.
func TestRemoteTextIsBrief(t *testing.T) {
	long := errors.New(strings.Repeat("\u00e9", 100000))
	for name, got := range map[string]outcome{
		"record":  {recordErr: long},
		"policy":  {record: stsfetch.Record{ID: "A"}, policyErr: long},
		"invalid": {record: stsfetch.Record{Why: long}},
	} {
		if e := testRules().next(cache.Entry{Domain: "example.com"}, got, day(1), 0); len(e.Error) > 310 || !utf8.ValidString(e.Error) {
			t.Errorf("%s: %d bytes are kept", name, len(e.Error))
		}
	}
}

// decide returns what an Engine whose clock says at makes of an entry.
func decide(entry cache.Entry, at time.Time) *Decision {
	e := New(Config{})
	defer e.Close()
	now := instant{wall: at, mono: 1}
	c := e.change(func(c *conditions) { c.drift = now.drift() })
	f := e.newFacts(entry, now, nil)
	if !f.inForce(now) {
		f = unknownFacts(errExpired)
	}
	return newDecision(e.hop(dane.NextHop{Domain: entry.Domain}, now), f, nil, c, now)
}

// TestDecideDistrustsTheStore: a stored policy that does not parse is no
// policy, and does not count at all.
func TestDecideDistrustsTheStore(t *testing.T) {
	e := known()
	e.Policy = "mode: enforce\n"
	if d := decide(e, day(2)); d.Kind != None || d.STS != nil || d.until > 0 {
		t.Errorf("decided %s, valid until %d", d.Kind, d.until)
	}
}

// FuzzNext holds two laws: what was in force before and has not expired is
// still in force after anything but a download, with the same text and the
// same end; and nothing lasts longer than its last download allows.
func FuzzNext(f *testing.F) {
	for kind := range uint8(6) {
		f.Add(kind, int64(3600), int64(60), uint8(1), true)
		f.Add(kind, int64(8*24*3600), int64(0), uint8(9), false)
	}
	f.Fuzz(func(t *testing.T, kind uint8, after, ttl int64, failures uint8, sameID bool) {
		r := testRules()
		old := known()
		old.Failures, old.FailedID = int(failures), "B"
		now := old.Fetched.Add(time.Duration(after%(20*24*3600)) * time.Second)
		got := arbitrary(kind, ttl, sameID)
		e := r.next(old, got, now, 0.5)

		if got.policy != nil {
			if !e.Fetched.Equal(now) || !e.Expires.Equal(now.Add(got.policy.MaxAge)) {
				t.Fatalf("a download at %s lasts from %s to %s", now, e.Fetched, e.Expires)
			}
			return
		}
		if holds(old, now) && (!holds(e, now) || e.Policy != old.Policy || e.ID != old.ID || !e.Expires.Equal(old.Expires) || !e.Fetched.Equal(old.Fetched)) {
			t.Fatalf("an unexpired policy was touched:\n%s", cmp.Diff(old, e))
		}
		if !holds(old, now) && (e.Policy != "" || e.Expires.After(now.Add(max(maxAbsence, maxRetry)))) {
			t.Fatalf("an expired policy left %+v", e)
		}
		if decide(e, now).Kind == Enforce != holds(old, now) {
			t.Fatalf("decided %+v", decide(e, now))
		}
	})
}

// arbitrary makes one of the outcomes that there are.
func arbitrary(kind uint8, ttl int64, sameID bool) outcome {
	record := stsfetch.Record{ID: "B", TTL: time.Duration(ttl%100000) * time.Second}
	record.TTL = max(record.TTL, 0)
	if sameID {
		record.ID = "A"
	}
	switch kind % 6 {
	case 0:
		return outcome{recordErr: errors.New("SERVFAIL")}
	case 1:
		return outcome{record: stsfetch.Record{TTL: record.TTL, Why: sts.ErrNoRecord}}
	case 2:
		return outcome{record: stsfetch.Record{TTL: record.TTL, Why: sts.ErrManyRecords}}
	case 3:
		return outcome{record: record}
	case 4:
		return outcome{record: record, policyErr: &stsfetch.Error{Step: stsfetch.StepTLS, Err: errors.New("handshake")}}
	default:
		p, err := sts.ParsePolicy([]byte(policyText))
		if err != nil {
			panic(err)
		}
		return outcome{record: record, policy: p, text: policyText}
	}
}
