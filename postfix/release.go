package postfix

import (
	"fmt"
	"strconv"
	"strings"
)

// A Release is a release of Postfix. The zero value is an unknown release, which
// knows no policy attributes.
type Release struct {
	major, minor int
	patch        int
	snapshot     bool // of the development towards major.minor
}

// ParseRelease parses a release in the form of mail_version, such as "3.7.11",
// "3.11-RC1" or "3.12-20260821", or its first two numbers.
func ParseRelease(s string) (Release, error) {
	number, rest, _ := strings.Cut(s, "-")
	parts := strings.Split(number, ".")
	var r Release
	var errMajor, errMinor, errPatch error
	if len(parts) >= 2 {
		r.major, errMajor = strconv.Atoi(parts[0])
		r.minor, errMinor = strconv.Atoi(parts[1])
	}
	if len(parts) > 2 {
		r.patch, errPatch = strconv.Atoi(parts[2])
	}
	if len(parts) < 2 || errMajor != nil || errMinor != nil || errPatch != nil || r.major < 0 || r.minor < 0 {
		return Release{}, fmt.Errorf("%.40q is not a release of Postfix", s)
	}
	r.snapshot = rest != "" && !strings.HasPrefix(rest, "RC")
	return r, nil
}

// Attributes reports whether r knows policy_type and the attributes that belong
// to it: from 3.10 on, whether or not TLSRPT is compiled in or enabled
// (TLSRPT_README). Earlier releases defer mail for any of them. They were added
// during the development of 3.10, so its snapshots count as earlier.
func (r Release) Attributes() bool {
	return r.major > 3 || r.major == 3 && (r.minor > 10 || r.minor == 10 && !r.snapshot)
}

// Hosts reports whether r matches the names of MX hosts with the policy, and their
// certificates with those names, as RFC 8461, Section 4.1 demands: from 3.10.5 on,
// if replies have policy attributes (smtp/smtp_tls_policy.c). Earlier releases
// match the names in certificates with the policy.
func (r Release) Hosts() bool {
	if r.major != 3 || r.minor > 11 {
		return r.major >= 3
	}
	return !r.snapshot && (r.minor == 11 || r.minor == 10 && r.patch >= 5)
}
