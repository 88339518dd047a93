package postfix_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"stsmap/override"
	"stsmap/postfix"
	"stsmap/socketmap"
)

// TestNoAllocations: a cached answer allocates nothing, with or without a policy,
// and neither does a key without a domain.
func TestNoAllocations(t *testing.T) {
	d := start(t, &vector{timeout: 0, phases: []*phase{newPhase("fixture")}})
	rules, err := override.Parse(`
[[override]]
domain = "exempt.example"
action = "exempt"
[[override]]
domain = ".reply.example"
action = "reply"
text = "encrypt"
`, postfix.CheckText)
	if err != nil {
		t.Fatal(err)
	}
	d.engine.Override(rules)
	var known atomic.Bool
	var answers, measured atomic.Int64
	maps := theMaps()
	for name, m := range maps {
		m.Observe = func(a postfix.Answered) {
			answers.Add(1)
			measured.Add(int64(a.SampleWeight))
			if (a.SampleWeight > 0) != (a.Took > 0) || a.Miss && a.SampleWeight != 1 {
				t.Errorf("%+v", a)
			}
		}
		maps[name] = m
	}
	h := &postfix.Handler{Engine: d.engine, Bracketed: true, Maps: maps, Attributes: &known}
	buf := make([]byte, 0, 1024) // as a connection has
	for _, c := range []struct {
		key    string
		status socketmap.Status
	}{
		{"strict example.com", socketmap.OK},
		{"example.com", socketmap.OK},
		{"Example.COM:587", socketmap.OK},
		{"[example.com]:25", socketmap.OK},
		{"absent.example", socketmap.NotFound},
		{"exempt.example", socketmap.NotFound},
		{"below.reply.example", socketmap.OK},
		{".example.com", socketmap.NotFound},
		{"[192.0.2.1]", socketmap.NotFound},
	} {
		name, key, other := strings.Cut(c.key, " ")
		if !other {
			name, key = "postfix", c.key
		}
		request := socketmap.Request{Map: []byte(name), Key: []byte(key)}
		ctx := context.Background()
		answer := func() {
			got := h.ServeSocketmap(ctx, request)
			if got.Status != c.status {
				t.Errorf("key %s: %s %q, want %s", c.key, got.Status, got.Text, c.status)
			}
			if got.More != nil {
				buf = got.More.AppendTo(buf[:0])
			}
		}
		answer() // retrieves
		answer() // notes the use, which happens once an hour
		for _, attributes := range []bool{false, true} {
			known.Store(attributes)
			if n := testing.AllocsPerRun(1000, answer); n != 0 {
				t.Errorf("key %s, attributes %v: %v allocations an answer, want 0", c.key, attributes, n)
			}
		}
	}
	// The measured answers are a random sample of all.
	if share := float64(measured.Load()) / float64(answers.Load()); share < 0.5 || share > 2 {
		t.Errorf("%d answers, measured for %d", answers.Load(), measured.Load())
	}
}
