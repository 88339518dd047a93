package admin

import (
	"testing"
	"time"
)

func TestMatchName(t *testing.T) {
	for _, tt := range []struct {
		pattern, domain string
		want            bool
	}{
		{"example.com", "example.com", true},
		{"EXAMPLE.com", "example.com", true},
		{"example.com", "a.example.com", false},
		{"*", "example.com", true},
		{"**", "example.com", true},
		{"*.example.com", "a.b.example.com", true},
		{"*.example.com", "example.com", false},
		{"*.example.com", "bexample.com", false},
		{"example.*", "example.com", true},
		{"a*a", "a", false},
		{"a*a", "aa", true},
		{"a*b*c", "a-b-b-c", true},
		{"a*b*c", "acb", false},
		{"*b*b", "b", false},
		{"*-*-*", "a-b-c", true},
		{"", "example.com", false}, // a Filter with none means all; a pattern does not
	} {
		if got := matchName(tt.pattern, tt.domain); got != tt.want {
			t.Errorf("%q matches %q: %t", tt.pattern, tt.domain, got)
		}
	}
}

// TestFilter: what each part of it means, also after its way through a URL.
func TestFilter(t *testing.T) {
	now := time.Now()
	policy := Record{Domain: "a.example", Mode: "enforce", Policy: "x", Fetched: now.Add(-time.Hour), Checked: now}
	absent := Record{Domain: "b.example", Mode: Absent, Checked: now.Add(-time.Minute), Error: "timeout"}
	for _, tt := range []struct {
		filter         Filter
		policy, absent bool
	}{
		{Filter{}, true, true},
		{Filter{Mode: "enforce"}, true, false},
		{Filter{Mode: Absent}, false, true},
		{Filter{Failing: true}, false, true},
		{Filter{Older: time.Hour}, true, false},
		{Filter{Older: time.Hour + 1}, false, false},
		{Filter{Younger: time.Hour}, false, true},
		{Filter{Younger: time.Hour + 1}, true, true},
		{Filter{Match: "a.*"}, true, false},
		{Filter{Match: "*", Older: time.Second, Younger: 2 * time.Minute, Mode: Absent, Failing: true}, false, true},
	} {
		f, err := filterOf(tt.filter.values())
		if err != nil || f != tt.filter {
			t.Errorf("%+v becomes %+v, %v", tt.filter, f, err)
		}
		if p, a := f.matches(policy, now), f.matches(absent, now); p != tt.policy || a != tt.absent {
			t.Errorf("%+v means the policy: %t, the absence: %t", f, p, a)
		}
	}
	for _, wrong := range []Filter{{Mode: "strict"}, {Mode: "Enforce"}} {
		if _, err := filterOf(wrong.values()); err == nil {
			t.Errorf("%+v is taken", wrong)
		}
	}
	if _, err := filterOf(map[string][]string{"older": {"yesterday"}}); err == nil {
		t.Error("a duration that is none is taken")
	}
}
