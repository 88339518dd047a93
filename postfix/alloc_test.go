package postfix_test

import (
	"context"
	"testing"

	"stsmap/postfix"
	"stsmap/socketmap"
)

// TestNoAllocations: an answer that is at hand costs no memory, be it a policy
// or the absence of one, and neither does a key without a domain.
func TestNoAllocations(t *testing.T) {
	d := start(t, &vector{timeout: 0, phases: []*phase{newPhase("fixture")}})
	h := &postfix.Handler{Engine: d.engine, Bracketed: true}
	for _, c := range []struct {
		key    string
		status socketmap.Status
	}{
		{"example.com", socketmap.OK},
		{"Example.COM:587", socketmap.OK},
		{"[example.com]:25", socketmap.OK},
		{"absent.example", socketmap.NotFound},
		{".example.com", socketmap.NotFound},
		{"[192.0.2.1]", socketmap.NotFound},
	} {
		request := socketmap.Request{Map: []byte("postfix"), Key: []byte(c.key)}
		ctx := context.Background()
		answer := func() {
			if got := h.ServeSocketmap(ctx, request); got.Status != c.status {
				t.Errorf("key %s: %s %q, want %s", c.key, got.Status, got.Text, c.status)
			}
		}
		answer() // retrieves
		answer() // notes the use, which happens once an hour
		if n := testing.AllocsPerRun(1000, answer); n != 0 {
			t.Errorf("key %s: %v allocations an answer, want 0", c.key, n)
		}
	}
}
