package admin

import (
	"time"

	"stsmap/cache"
	"stsmap/sts"
)

// Absent is the Mode of a domain without a policy.
const Absent = "absent"

// A Record is a cache.Entry as programs read it: in JSON, one a line, over the
// control socket and in an export. Names are only ever added.
type Record struct {
	Domain string `json:"domain"`
	// Mode is that of the policy: "enforce", "testing", "none", or Absent, or
	// "unreadable" for one that does not parse any more.
	Mode     string    `json:"mode"`
	MX       []string  `json:"mx,omitempty"`
	MaxAge   int64     `json:"max_age,omitempty"` // seconds
	ID       string    `json:"id,omitempty"`
	Policy   string    `json:"policy,omitempty"` // as served
	Fetched  time.Time `json:"fetched,omitzero"`
	Expires  time.Time `json:"expires,omitzero"`
	Checked  time.Time `json:"checked,omitzero"`
	Recheck  time.Time `json:"recheck,omitzero"`
	Refresh  time.Time `json:"refresh,omitzero"`
	Used     time.Time `json:"used,omitzero"`
	Failures int       `json:"failures,omitempty"`
	FailedID string    `json:"failed_id,omitempty"`
	Error    string    `json:"error,omitempty"`
	Result   string    `json:"result,omitempty"` // RFC 8460, Section 4.3
	Retry    time.Time `json:"retry,omitzero"`
}

// RecordOf returns e as a Record.
func RecordOf(e cache.Entry) Record {
	r := Record{
		Domain: e.Domain, Mode: Absent, ID: e.ID, Policy: e.Policy,
		Fetched: e.Fetched, Expires: e.Expires, Checked: e.Checked, Recheck: e.Recheck, Refresh: e.Refresh, Used: e.Used,
		Failures: e.Failures, FailedID: e.FailedID, Error: e.Error, Result: e.Result, Retry: e.Retry,
	}
	if e.Policy == "" {
		return r
	}
	p, err := sts.ParsePolicy([]byte(e.Policy))
	if err != nil {
		r.Mode = "unreadable"
		return r
	}
	r.Mode, r.MaxAge = p.Mode.String(), int64(p.MaxAge/time.Second)
	for _, m := range p.MX {
		r.MX = append(r.MX, string(m))
	}
	return r
}

// entry returns the cache entry of r, without the fields that follow from its
// policy.
func (r Record) entry() cache.Entry {
	return cache.Entry{
		Domain: r.Domain, ID: r.ID, Policy: r.Policy,
		Fetched: r.Fetched, Expires: r.Expires, Checked: r.Checked, Recheck: r.Recheck, Refresh: r.Refresh, Used: r.Used,
		Failures: r.Failures, FailedID: r.FailedID, Error: r.Error, Result: r.Result, Retry: r.Retry,
	}
}

// Expired reports whether r has a policy that does not count any more at now
// (RFC 8461, Section 5.1).
func (r Record) Expired(now time.Time) bool {
	return r.Policy != "" && now.After(r.Expires)
}

// Learned is when what r says was last learned of the domain: when its policy
// was downloaded, or without one when the record was looked up.
func (r Record) Learned() time.Time {
	if r.Policy != "" {
		return r.Fetched
	}
	return r.Checked
}
