package admin

import (
	"slices"
	"time"
)

// A Status is the state of the daemon; the tags are the names in the JSON that
// Client and other programs read. Names are only ever added.
type Status struct {
	// Version is that of the daemon.
	Version string `json:"version"`
	// Since is when it began to serve.
	Since time.Time `json:"since"`
	// Reload is why the configuration was not reloaded the last time, and when;
	// zero if it was, or was never reloaded.
	Reload Condition `json:"reload,omitzero"`
	// Answers has the lookups since then, by decision (Monitor.Counts).
	Answers map[string]int64 `json:"answers"`
	// DANE is whether DANE goes before policies.
	DANE DANEStatus `json:"dane"`
	// Resolver describes the DNS servers that are queried.
	Resolver ResolverStatus `json:"resolver"`
	// Postfix describes the Postfix that sends lookups.
	Postfix PostfixStatus `json:"postfix"`
	// Store describes the store of the cache.
	Store StoreStatus `json:"store"`
	// Overrides are the exceptions of the administrator.
	Overrides OverridesStatus `json:"overrides"`
	// Listen has the addresses for lookups, in the form for socketmap.Dial.
	Listen []string `json:"listen"`
	// Admin is where metrics, health and the status page are; empty if nowhere.
	Admin string `json:"admin,omitempty"`
	// Checks is what has to work for the daemon to be ready: "configuration",
	// "store" and "resolver".
	Checks []Check `json:"checks"`
	// Read is when the configuration in force was read.
	Read time.Time `json:"read"`
	// Connections is what the sockets for lookups do.
	Connections ConnectionStatus `json:"connections"`
	// Attributes is whether replies have policy attributes, by the name of the
	// map.
	Attributes map[string]bool `json:"attributes"`
	// Memory is how full it is.
	Memory MemoryStatus `json:"memory"`
	// Failures are what fails now, those first that have failed for the longest
	// time, and Omitted how many more there are.
	Failures []Trouble `json:"failures"`
	Omitted  int       `json:"failures_omitted,omitempty"`
	// Changes are what happened lately, the latest first, without what goes well
	// and without failures, which stand above.
	Changes []Change `json:"changes"`
	// Cache counts the entries of the cache; nil until it was counted for the
	// first time.
	Cache *Survey `json:"cache,omitempty"`
	// Log is how the log is.
	Log LogStatus `json:"log"`
}

const (
	// maxFailures and maxRecent are how much of the history is in a Status.
	maxFailures, maxRecent = 50, 20
)

// Recall fills in what h has of failures and changes.
func (s *Status) Recall(h *History) {
	s.Failures = h.Troubles()
	if s.Omitted = len(s.Failures) - maxFailures; s.Omitted > 0 {
		s.Failures = s.Failures[:maxFailures]
	}
	s.Omitted = max(s.Omitted, 0)
	s.Changes = h.Changes(maxRecent)
}

// A Check is one thing that the daemon needs.
type Check struct {
	Name string `json:"name"`
	// Error is why it does not work, and what to do; empty if it does.
	Error string `json:"error,omitempty"`
}

// Ready reports whether everything works that the daemon needs.
func (s Status) Ready() bool {
	return !slices.ContainsFunc(s.Checks, func(c Check) bool { return c.Error != "" })
}

// A ConnectionStatus is what the sockets for lookups do.
type ConnectionStatus struct {
	// Listeners has the connections at present by where they came in.
	Listeners map[string]int `json:"listeners"`
	// Busy is how many lookups are being answered.
	Busy int `json:"busy"`
	// Malformed and Evicted count connections that were closed early. Panics
	// and Unfit count bugs.
	Malformed uint64 `json:"malformed"`
	Evicted   uint64 `json:"evicted"`
	Panics    uint64 `json:"panics"`
	Unfit     uint64 `json:"unfit"`
}

// A MemoryStatus is policy.Usage in JSON.
type MemoryStatus struct {
	Entries   int    `json:"entries"`
	Most      int    `json:"most"`
	Bytes     int64  `json:"bytes"`
	MostBytes int64  `json:"most_bytes"`
	Expired   uint64 `json:"evicted_expired"`
	Unused    uint64 `json:"evicted_unused"`
	Policies  uint64 `json:"evicted_policies"`
}

// A LogStatus is how the log is.
type LogStatus struct {
	// Dropped is how many lines were lost because they could not be written
	// (LogQueue).
	Dropped uint64 `json:"dropped_lines"`
}

// A DANEStatus tells whether DANE goes before policies.
type DANEStatus struct {
	// Mode is dane.mode.
	Mode string `json:"mode"`
	// State is "on" or "off", and "unknown" for the first seconds.
	State string `json:"state"`
	// Since is when that began.
	Since time.Time `json:"since,omitzero"`
	// Reasons are why it is off, with what to do; none if the mode says so.
	Reasons []string `json:"reasons,omitempty"`
}

// A ResolverStatus tells about the resolver.
type ResolverStatus struct {
	// Servers is dns.servers, or the path of the file that has them.
	Servers []string `json:"servers"`
	// Answering tells whether there are answers at all.
	Answering Condition `json:"answering,omitzero"`
	// Validates tells whether its answers can be secure.
	Validates ProbeResult `json:"validates"`
}

// A PostfixStatus tells about Postfix.
type PostfixStatus struct {
	// Release is "3.7.11"; empty if it is not known.
	Release string `json:"release,omitempty"`
	// Error is why the release is not known; empty if it is, and for the first
	// moment.
	Error string `json:"error,omitempty"`
	// Attributes is whether that release knows policy attributes, which
	// decides in which words it is answered.
	Attributes bool `json:"attributes"`
	// DNSSEC tells whether it looks up DNSSEC.
	DNSSEC ProbeResult `json:"dnssec"`
}

// A StoreStatus tells about the store.
type StoreStatus struct {
	// Name is cache.store, without a password.
	Name string `json:"name"`
	// Reading and Writing are how a store on the network is; zero for another
	// one, and for one that never failed.
	Reading Condition `json:"reading,omitzero"`
	Writing Condition `json:"writing,omitzero"`
	// Waiting is how many policies are in memory until the store takes them.
	Waiting int `json:"waiting"`
	// Bytes is the size of its file; nil if it has none on this machine.
	Bytes *int64 `json:"bytes,omitempty"`
}

// A Condition is whether something works.
type Condition struct {
	// Error is why it does not; empty if it does.
	Error string `json:"error,omitempty"`
	// Since is when that began.
	Since time.Time `json:"since,omitzero"`
}

// A ProbeResult is the result of a periodic probe.
type ProbeResult struct {
	// Verdict is "yes" or "no", the last result; "unknown" if there was none
	// yet, and empty if the probe is off.
	Verdict string `json:"verdict,omitempty"`
	// At is when the verdict was reached; zero if it is unknown or comes from
	// the configuration.
	At time.Time `json:"at,omitzero"`
	// Reason is why the verdict is "no".
	Reason string `json:"reason,omitempty"`
	// Error is why the last probe had no result; empty if it had one.
	Error string `json:"error,omitempty"`
}
