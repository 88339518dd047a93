package policy

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/override"
)

// TestOverrideMidway: the result of a lookup that began before the overrides
// changed is not cached: neither that of a first contact, nor of a recheck in
// the background, nor of a lookup that waits for DANE, nor of one for another
// next-hop.
func TestOverrideMidway(t *testing.T) {
	for _, c := range []struct {
		mode, action string
		want         Kind
		dane         bool
	}{
		{"enforce", "exempt", None, false}, {"testing", "enforce", Enforce, false}, {"enforce", "defer", Failed, false}, {"enforce", "reply", Replied, false},
		{"enforce", "exempt", None, true}, {"testing", "enforce", Enforce, true}, {"enforce", "defer", Failed, true}, {"enforce", "reply", Replied, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := &fakeDomain{}
			if err := errors.Join(n.setRecord([]string{"A"}), n.setPolicy([]string{c.mode})); err != nil {
				t.Fatal(err)
			}
			config := Config{Store: cache.NewMemory(10), Fetch: n}
			if c.dane {
				config.DANE = DANEConfig{Check: n.check, All: true}
				n.result, n.daneDelay = dane.Result{TTL: time.Minute}, 25*time.Second
			}
			e := New(config)
			defer e.Close()
			e.AllowDANE(nil)
			text := ""
			if c.action == "reply" {
				text = "text = \"encrypt\"\n"
			}
			rules, err := override.Parse("[[override]]\ndomain = \"example.com\"\naction = \""+c.action+"\"\n"+text, func(string) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			hops := []dane.NextHop{{Domain: "example.com"}, {Domain: "example.com", Port: 587}, {Domain: "example.com", NoMX: true}}
			for _, known := range []bool{false, true} {
				n.set(func(n *fakeDomain) { n.delay = 10 * time.Second })
				var all sync.WaitGroup
				for _, hop := range hops {
					all.Go(func() { e.Lookup(context.Background(), hop, false) })
				}
				if time.Sleep(time.Second); c.dane {
					time.Sleep(21 * time.Second) // the policy is known by now, and waits for DANE
				}
				e.Override(rules)
				all.Wait()
				time.Sleep(10 * time.Second)
				for _, hop := range hops {
					d := e.Cached([]byte(hop.String()), false)
					if d == nil {
						d = e.Lookup(context.Background(), hop, false)
					}
					if d.Kind != c.want {
						t.Errorf("%s, %s, known %v: %s is decided %s, want %s", c.mode, c.action, known, hop, d.Kind, c.want)
					}
				}
				e.Override(nil)
				for _, hop := range hops {
					if d := e.Lookup(context.Background(), hop, false); d.Kind.String() != c.mode || d.Override != nil {
						t.Errorf("%s, %s, known %v: without the override %s is decided %s", c.mode, c.action, known, hop, d.Kind)
					}
				}
				time.Sleep(time.Hour) // the record is due
			}
		})
	}
}
