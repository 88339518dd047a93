package postfix

import (
	"fmt"
	"strconv"
	"strings"
)

// A Release is one of Postfix. The zero value is one that is not known, and
// gets the replies that every release understands.
type Release struct {
	major, minor int
	patch        int
	snapshot     bool // of the development towards major.minor
}

// ParseRelease reads a release as Postfix has it in mail_version, such as
// "3.7.11", "3.11-RC1" or "3.12-20260821", or its first two numbers.
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

// Attributes reports whether r knows policy_type and the attributes that go
// with it. It does from 3.10 on, whether or not it is built with TLSRPT or told
// to use it (TLSRPT_README); before, mail waits for any of them. They came
// during the development of 3.10, so a snapshot of that is not trusted to.
func (r Release) Attributes() bool {
	return r.major > 3 || r.major == 3 && (r.minor > 10 || r.minor == 10 && !r.snapshot)
}

// Hosts reports whether r holds the names of MX hosts against the policy, and
// their certificates against those names, as RFC 8461, Section 4.1 has it. It
// does from 3.10.5 on, if it is sent policy attributes (smtp/smtp_tls_policy.c).
// Before, the names in certificates are held against the policy.
func (r Release) Hosts() bool {
	if r.major != 3 || r.minor > 11 {
		return r.major >= 3
	}
	return !r.snapshot && (r.minor == 11 || r.minor == 10 && r.patch >= 5)
}
