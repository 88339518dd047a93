package check

import "time"

// Schema is the version of a Report in JSON. It changes when a name goes away
// or means something else; names may be added without that.
const Schema = 1

// A Report is all that was found out about one domain.
type Report struct {
	Schema int `json:"schema"`
	// Key is what was asked about, as far as it can be printed, 60
	// characters at most.
	Key string `json:"key"`
	// Domain is the policy domain, in A-labels; empty if Key has none.
	Domain string `json:"domain,omitempty"`
	// Verdict is what the findings come to.
	Verdict  Verdict `json:"verdict"`
	Failures int     `json:"failures"`
	Warnings int     `json:"warnings"`
	// Policy is the one that is published; nil if there is none that counts.
	Policy *Policy `json:"policy,omitempty"`
	// Cached is the one that the daemon has; nil if it has none, or was not asked.
	Cached *Policy `json:"cached,omitempty"`
	// Hosts are the MX hosts, in the order of preference.
	Hosts []Exchanger `json:"mx,omitempty"`
	// Addresses are those of the policy host.
	Addresses []Address `json:"policy_host,omitempty"`
	// Here describes the delivery of mail from here.
	Here *Here `json:"here,omitempty"`
	// Findings are in the order of the catalogue's groups.
	Findings []Finding `json:"findings"`
	// Seconds is how long it took.
	Seconds float64 `json:"seconds"`
}

// A Policy is one as it is published.
type Policy struct {
	ID     string   `json:"id,omitempty"` // of the record; empty if there is no valid one
	Mode   string   `json:"mode"`
	MaxAge int64    `json:"max_age"` // seconds
	MX     []string `json:"mx"`
}

// An Exchanger is one MX host.
type Exchanger struct {
	Name       string   `json:"name"`
	Preference uint16   `json:"preference"`
	Addresses  []string `json:"addresses,omitempty"`
	// Pattern is the first of the policy that covers the host; empty if none.
	Pattern string `json:"pattern,omitempty"`
	// DANE is the state of its TLSA records, as dane.State has it; empty if they
	// were not looked up.
	DANE string `json:"dane,omitempty"`
	// SMTP are the conversations with it, one for each address; nil without
	// Config.SMTP.
	SMTP []Conversation `json:"smtp,omitempty"`
}

// A Conversation is what an MX host said at one address.
type Conversation struct {
	Address  string     `json:"address"`
	Seconds  float64    `json:"seconds"`
	STARTTLS bool       `json:"starttls"`
	TLS      string     `json:"tls,omitempty"`     // the version
	Names    []string   `json:"names,omitempty"`   // of the certificate, 20 at most
	Issuer   string     `json:"issuer,omitempty"`  // of the certificate
	Expires  *time.Time `json:"expires,omitempty"` // of the certificate
	Error    string     `json:"error,omitempty"`   // why there is no TLS
}

// An Address is one of the policy host.
type Address struct {
	Address string     `json:"address,omitempty"` // empty through a proxy
	Seconds float64    `json:"seconds"`
	TLS     string     `json:"tls,omitempty"`
	Expires *time.Time `json:"expires,omitempty"` // of the certificate
	Status  int        `json:"status,omitempty"`  // of HTTP
	Error   string     `json:"error,omitempty"`
}

// Here is what mail from here to the domain meets.
type Here struct {
	// Postfix is its release; empty if that is not known.
	Postfix string `json:"postfix,omitempty"`
	// Reply is what Postfix is answered, as it would see it, by the daemon if it
	// knows the domain, and else by one that knows what is published now. What is
	// very long is cut.
	Reply string `json:"reply"`
	// Kind is the decision, as policy.Kind has it.
	Kind string `json:"decision"`
	// Reason is why no policy is in force; empty if one is.
	Reason string `json:"reason,omitempty"`
	// Uses and Avoids are the MX hosts that Postfix would connect to, and those
	// it would not.
	Uses   []string `json:"uses,omitempty"`
	Avoids []string `json:"avoids,omitempty"`
}
