package admin

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/override"
	"stsmap/policy"
)

// unreadable is a store that cannot be read.
type unreadable struct{ cache.Store }

func (unreadable) Get(context.Context, string) (cache.Entry, error) {
	return cache.Entry{}, errDisk
}

// TestExplain: what leads to a decision is there, whatever of it there is.
func TestExplain(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	store := cache.NewMemory(10)
	if err := store.Put(t.Context(), enforced("a.example", now)); err != nil {
		t.Fatal(err)
	}
	rules, err := override.Parse("[[override]]\ndomain = \"o.example\"\naction = \"defer\"\nreason = \"r\"\n", func(string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	engine := policy.New(policy.Config{Store: store})
	t.Cleanup(engine.Close)
	engine.Override(rules)
	found := &policy.Decision{
		NextHop: "[a.example]:587", Domain: "a.example", Kind: policy.DANEOnly, Reason: strings.Repeat("x", 1000),
		DANE: &dane.Result{MXSecure: true, Hosts: []dane.Host{{Name: "mx.a.example", State: dane.Failed, Err: errors.New("SERVFAIL")}}},
	}
	p := &Private{
		Status: func() Status {
			return Status{Postfix: PostfixStatus{Release: "3.10"}, DANE: DANEStatus{State: "on"}}
		},
		Engine: engine, History: NewHistory(),
		Explain: func(ctx context.Context, e *Explanation) *policy.Decision {
			e.Reply = ReplyText{Status: "OK", Text: e.Map + " " + e.Key}
			switch e.Key {
			case "a":
				return found
			case "o":
				return engine.Decide(ctx, dane.NextHop{Domain: "o.example"}, false)
			}
			return nil
		},
	}
	p.History.Observe(policy.Event{Kind: policy.RecordAbsent, Domain: "a.example"})
	c := NewClient(serveOn(t, p.Handler()))
	ask := func(key string) Explanation {
		e, err := c.Explain(t.Context(), "m", key)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}

	e := ask("a")
	if e.Key != "a" || e.NextHop != "[a.example]:587" || e.Domain != "a.example" || e.Decision != "dane-only" || len(e.Reason) > 310 ||
		e.Record == nil || e.Record.ID != "1" || e.Postfix.Release != "3.10" || e.Reply.Text != "m a" || e.Override != nil ||
		!slices.Equal(told(e.History), []string{"a.example no record 1"}) {
		t.Errorf("%+v", e)
	}
	if f := e.DANE; f.State != "on" || !f.Looked || !f.MXSecure || len(f.Hosts) != 1 || f.Hosts[0] != (DANEHost{Name: "mx.a.example", State: "failed", Error: "SERVFAIL"}) {
		t.Errorf("%+v", e.DANE)
	}
	if e := ask("o"); e.Decision != "failed" || e.Override == nil || e.Override.Reason != "r" || *e.Override.Uses != 0 || !e.Until.IsZero() || e.Record != nil || e.StoreError != "" {
		t.Errorf("with an override: %+v", e)
	}
	if e := ask("none"); e.Domain != "" || e.Decision != "" || e.DANE != nil || e.Reply.Text != "m none" || e.History == nil {
		t.Errorf("without a domain: %+v", e)
	}
	p.Engine = policy.New(policy.Config{Store: unreadable{store}})
	t.Cleanup(p.Engine.Close)
	if e := ask("a"); e.Record != nil || e.StoreError != errDisk.Error() {
		t.Errorf("with a broken store: %+v", e)
	}
}

// TestReadOverrides: ReadOverrides returns the error of a file that is wrong,
// and otherwise the overrides in force.
func TestReadOverrides(t *testing.T) {
	var wrong error
	p := &Private{
		Status:        func() Status { return Status{Overrides: OverridesStatus{File: "/f"}} },
		ReadOverrides: func() error { return wrong },
	}
	c := NewClient(serveOn(t, p.Handler()))
	if s, err := c.ReadOverrides(t.Context()); err != nil || s.File != "/f" {
		t.Errorf("%+v, %v", s, err)
	}
	wrong = errors.New("/f:1: nonsense")
	if refused, ok := errors.AsType[*Refusal](func() error { _, err := c.ReadOverrides(t.Context()); return err }()); !ok || refused.Reason != wrong.Error() {
		t.Errorf("got %v", refused)
	}
}
