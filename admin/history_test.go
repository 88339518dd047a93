package admin

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/policy"
)

// found is a policy that was downloaded where none was known.
func found(domain, id string) policy.Event {
	return policy.Event{Kind: policy.PolicyNew, Domain: domain, After: &cache.Entry{ID: id, Policy: "version: STSv1\nmode: enforce\nmx: mx.example\nmax_age: 86400\n"}}
}

// failing is a download that failed; kept says that a policy is in force.
func failing(domain, why string, kept bool) policy.Event {
	ev := policy.Event{Kind: policy.PolicyFailed, Domain: domain, Err: errors.New(why), After: &cache.Entry{Failures: 1}}
	if kept {
		ev.After.Policy = "version: STSv1\nmode: enforce\nmx: mx.example\nmax_age: 86400\n"
	}
	return ev
}

// told returns changes in short form.
func told(all []Change) (words []string) {
	for _, c := range all {
		words = append(words, fmt.Sprintf("%s %s %d", c.Domain, c.Message, c.Count))
	}
	return words
}

// TestHistory: what happened comes back, the latest first; the same again is one.
func TestHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHistory()
		began := time.Now()
		renewed := policy.Event{Kind: policy.PolicyRenewed, Domain: "a.example", After: new(cache.Entry)}
		for _, ev := range []policy.Event{
			found("a.example", "1"), failing("a.example", "timeout", true), failing("a.example", "timeout", true), failing("b.example", "404", false),
			renewed, renewed, failing("a.example", "refused", true), failing("a.example", "timeout", true),
		} {
			h.Observe(ev)
			time.Sleep(time.Minute)
		}
		const kept, not = "policy could not be refreshed, the known one stays in force", "policy could not be retrieved"
		want := []string{"a.example " + kept + " 1", "a.example " + kept + " 1", "a.example policy renewed 2", "a.example " + kept + " 2", "a.example policy found 1"}
		got := h.Of("a.example", 10)
		if !slices.Equal(told(got), want) {
			t.Errorf("got %q, want %q", told(got), want)
		}
		if c := got[3]; c.First != began.Add(time.Minute) || c.Time != began.Add(2*time.Minute) || c.Text != "error: timeout" || c.Weight != "failure" {
			t.Errorf("%+v", c)
		}
		if got := told(h.Of("a.example", 2)); !slices.Equal(got, want[:2]) {
			t.Errorf("the last two: %q", got)
		}
		recent := []string{want[0], want[1], "b.example " + not + " 1", want[3], want[4]}
		if got := told(h.Recent(10, false)); !slices.Equal(got, recent) {
			t.Errorf("recent: %q", got)
		}
		if got := told(h.Recent(10, true)); len(got) != 6 || got[2] != "a.example policy renewed 2" {
			t.Errorf("all recent: %q", got)
		}
		if got := h.Of("c.example", 10); got == nil || len(got) != 0 {
			t.Errorf("of nobody: %v", got)
		}
	})
}

// TestHistoryAnswers: an answer is kept if it is another one than before, and has
// something to say.
func TestHistoryAnswers(t *testing.T) {
	h := NewHistory()
	for _, ev := range []policy.Event{
		{Kind: policy.Lookup, Domain: "a.example", Decision: &policy.Decision{Kind: policy.Enforce}},
		{Kind: policy.Lookup, Domain: "a.example", Decision: &policy.Decision{Kind: policy.None}, First: true},
		{Kind: policy.Lookup, Domain: "b.example", Decision: &policy.Decision{Kind: policy.DANEOnly, ID: "7"}, First: true},
	} {
		h.Observe(ev)
	}
	got := h.Recent(10, true)
	if !slices.Equal(told(got), []string{"b.example answer 1"}) || got[0].Text != "decision: dane-only; id: 7" {
		t.Errorf("%+v", got)
	}
	ev := policy.Event{Kind: policy.Lookup, Domain: "a.example", Decision: &policy.Decision{Kind: policy.Enforce}}
	if n := testing.AllocsPerRun(100, func() { h.Observe(ev) }); n != 0 {
		t.Errorf("an answer as before makes %v allocations", n)
	}
}

// TestHistoryBounds: neither one domain nor many can fill the memory, or push out
// what is worth more.
func TestHistoryBounds(t *testing.T) {
	h := NewHistory()
	h.Observe(found("first.example", "1"))
	h.Observe(failing("first.example", "404", true))
	long := strings.Repeat("x", 100000)
	for i := range 3 * maxChanges {
		h.Observe(failing("noisy.example", fmt.Sprint(i, long), false))
		h.Observe(policy.Event{Kind: policy.DANEChecked, Domain: fmt.Sprintf("d%d.example", i), DANE: new(dane.Result)})
	}
	if got := told(h.Of("first.example", 10)); len(got) != 2 {
		t.Errorf("one domain that fails all the time has pushed out others: %q", got)
	}
	if got := h.Of("noisy.example", 100); len(got) != maxOfOne || len(got[0].Text) > 400 || !strings.HasPrefix(got[0].Text, "error: 2999") {
		t.Errorf("%d changes of one domain", len(got))
	}
	for i := range 3 * maxChanges {
		h.Observe(failing(fmt.Sprintf("f%d.example", i), "404", false))
	}
	if got := told(h.Of("first.example", 10)); !slices.Equal(got, []string{"first.example policy found 1"}) {
		t.Errorf("failures of many domains left %q", got)
	}
	total, counted := 0, 0
	for _, all := range h.kept {
		total += len(all)
	}
	for _, n := range h.of {
		counted += n
	}
	if total != counted || total > weights*maxChanges || len(h.troubles) != maxTroubles {
		t.Errorf("%d changes are kept, %d counted, and %d troubles", total, counted, len(h.troubles))
	}
}

// TestTroubles: what fails is known with its beginning until it is over, for
// policies and DANE each.
func TestTroubles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHistory()
		began := time.Now()
		lost := policy.Event{Kind: policy.DANEFailed, Domain: "a.example", Err: errors.New("SERVFAIL")}
		for _, ev := range []policy.Event{
			failing("a.example", "timeout", true), lost, failing("b.example", "404", false),
			{Kind: policy.RecordFailed, Domain: "a.example", Err: errors.New("refused"), After: new(cache.Entry)},
			{Kind: policy.StoreFailed, Domain: "c.example", Err: errors.New("disk")},
		} {
			h.Observe(ev)
			time.Sleep(time.Minute)
		}
		want := []Trouble{
			{Domain: "a.example", Since: began, Last: began.Add(3 * time.Minute), Count: 2, Message: "record could not be looked up", Error: "refused"},
			{Domain: "a.example", Since: began.Add(time.Minute), Last: began.Add(time.Minute), Count: 1, Message: "DANE could not be determined", Error: "SERVFAIL"},
			{Domain: "b.example", Since: began.Add(2 * time.Minute), Last: began.Add(2 * time.Minute), Count: 1, Message: "policy could not be retrieved", Error: "404"},
		}
		if got := h.Troubles(); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v", got)
		}
		h.Observe(policy.Event{Kind: policy.Recovered, Domain: "a.example", After: new(cache.Entry)})
		h.Observe(found("b.example", "1"))
		if got := h.Troubles(); !reflect.DeepEqual(got, want[1:2]) {
			t.Errorf("after two have recovered: %+v", got)
		}
		h.Observe(policy.Event{Kind: policy.DANEChecked, Domain: "a.example", DANE: new(dane.Result)})
		if got := h.Troubles(); len(got) != 0 {
			t.Errorf("after all have: %+v", got)
		}
		h.Observe(lost)
		time.Sleep(troubled + time.Second)
		if got := h.Troubles(); len(got) != 0 || len(h.troubles) != 0 {
			t.Errorf("a day later: %+v", got)
		}
	})
}

// TestHistoryAtOnce is for the race detector.
func TestHistoryAtOnce(t *testing.T) {
	h := NewHistory()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 200 {
				h.Observe(failing(fmt.Sprintf("d%d.example", j%20), fmt.Sprint(i), false))
				h.Of("d1.example", 5)
				h.Troubles()
			}
		})
	}
	all.Wait()
	if got := h.Recent(1000, false); len(got) == 0 || len(got) > 20*maxOfOne {
		t.Errorf("%d changes", len(got))
	}
}

// TestWithdrawnAndLapsing: an absent record is a change while the policy is in
// force. The event that a policy expires soon does not end the failure of its
// refresh.
func TestWithdrawnAndLapsing(t *testing.T) {
	h := NewHistory()
	held := &cache.Entry{Domain: "example.com", Policy: "version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 86400\n", Expires: time.Now().Add(time.Hour)}
	for range 3 {
		h.Observe(policy.Event{Kind: policy.RecordAbsent, Domain: "example.com", Before: held, After: held})
	}
	h.Observe(policy.Event{Kind: policy.RecordAbsent, Domain: "none.example", Before: new(cache.Entry), After: new(cache.Entry)})
	h.Observe(policy.Event{Kind: policy.PolicyNew, Domain: "new.example", Before: new(cache.Entry), After: held})
	all := h.Changes(10)
	if len(all) != 1 || all[0].Count != 3 || !strings.HasPrefix(all[0].Message, "record is gone") {
		t.Errorf("%+v", all)
	}
	failed := policy.Event{Kind: policy.PolicyFailed, Domain: "example.com", Before: held, After: held, Err: errors.New("x")}
	h.Observe(failed)
	failed.Kind = policy.PolicyExpiring
	h.Observe(failed)
	troubles := h.Troubles()
	if len(troubles) != 1 || troubles[0].Count != 1 || !troubles[0].InForce || troubles[0].Message != "policy could not be refreshed, the known one stays in force" {
		t.Errorf("%+v", troubles)
	}
	var s Status
	for i := range 60 {
		failed.Kind, failed.Domain = policy.PolicyFailed, fmt.Sprintf("d%d.example", i)
		h.Observe(failed)
	}
	if s.Recall(h); len(s.Failures) != maxFailures || s.Omitted != 11 || len(s.Changes) != 1 {
		t.Errorf("%d failures, %d omitted, %d changes", len(s.Failures), s.Omitted, len(s.Changes))
	}
}
