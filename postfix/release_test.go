package postfix

import "testing"

// TestRelease: which releases know policy attributes.
func TestRelease(t *testing.T) {
	for s, want := range map[string]bool{
		"2.10.1": false, "3.4.29": false, "3.7.11": false, "3.9": false, "3.9-20231010": false,
		"3.10": true, "3.10.0": true, "3.10.13": true, "3.10-RC1": true, "3.11-20250101": true, "3.12-20260821": true, "4.0": true,
		// It came with one of these, and not with the first.
		"3.10-20240504": false, "3.10-20250131": false,
	} {
		if r, err := ParseRelease(s); err != nil || r.Attributes() != want {
			t.Errorf("%s: %+v, %v; attributes %v, want %v", s, r, err, r.Attributes(), want)
		}
	}
	for _, s := range []string{"", "3", "3.", ".10", "x.y", "3.x", "-3.10", "3.-10", "auto", "Postfix 3.10"} {
		if r, err := ParseRelease(s); err == nil || r.Attributes() {
			t.Errorf("%q is %+v", s, r)
		}
	}
	if new(Release).Attributes() {
		t.Error("a release that is not known has attributes")
	}
}

// TestHosts: which releases hold the names of hosts against the policy.
func TestHosts(t *testing.T) {
	for s, want := range map[string]bool{
		"3.7.11": false, "3.10": false, "3.10.0": false, "3.10.4": false, "3.10.5": true, "3.10.13": true, "3.10-RC1": false,
		"3.11": true, "3.11.0": true, "3.11-RC1": true, "3.11-20250601": false, "3.12-20260821": true, "4.0": true, "2.10.9": false,
	} {
		if r, err := ParseRelease(s); err != nil || r.Hosts() != want {
			t.Errorf("%s: %v, %v, want %v", s, r.Hosts(), err, want)
		}
	}
	if new(Release).Hosts() {
		t.Error("a release that is not known holds hosts against policies")
	}
}
