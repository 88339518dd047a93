package admin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"stsmap/cache"
	"stsmap/policy"
)

// An Explanation is the reply that Postfix gets to a key now, and how the daemon arrives at it. Names are only ever
// added to its JSON.
type Explanation struct {
	Key string `json:"key"`
	// Map is the name of the socketmap, and MapKnown whether it is known: an
	// unknown one is answered as "postfix".
	Map      string `json:"map"`
	MapKnown bool   `json:"map_known"`
	// Testing is how policies in testing mode are answered: "ignore", "report" or "enforce".
	Testing string `json:"testing"`
	// NextHop is what the key means, and Domain its policy domain; empty if it
	// has none, and then only Reply is there.
	NextHop string `json:"next_hop,omitempty"`
	Domain  string `json:"domain,omitempty"`
	// Override is the one that counts.
	Override *OverrideStatus `json:"override,omitempty"`
	// Others are the other overrides for the domain. They are not in force: they have expired, or a more specific one
	// is, or the domain has no policy in testing mode to enforce.
	Others []OverrideStatus `json:"other_overrides,omitempty"`
	// Record is the cached record of the domain, and StoreError why it could not be read.
	Record     *Record `json:"record,omitempty"`
	StoreError string  `json:"store_error,omitempty"`
	// DANE has the DANE findings for the next-hop.
	DANE *DANEFindings `json:"dane,omitempty"`
	// Decision is the policy.Kind of what was decided, Reason why no policy is in
	// force, or why not that one, and empty if one is; and Until how long it holds; zero if it was made for this answer only.
	Decision string    `json:"decision,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Until    time.Time `json:"until,omitzero"`
	// Postfix is the Postfix that sends lookups, and Attributes whether it gets policy attributes.
	Postfix    PostfixStatus `json:"postfix"`
	Attributes bool          `json:"attributes"`
	// Reply is the reply that Postfix gets.
	Reply ReplyText `json:"reply"`
	// History is what happened to the domain since the daemon began, the latest
	// first.
	History []Change `json:"history"`
}

// A ReplyText is a reply in the words of Postfix.
type ReplyText struct {
	Status string `json:"status"` // "OK", "NOTFOUND" or "TEMP"
	Text   string `json:"text,omitempty"`
}

// DANEFindings are the results of the DANE check for one next-hop.
type DANEFindings struct {
	// State is that of DANEStatus, with Reasons.
	State   string   `json:"state"`
	Reasons []string `json:"reasons,omitempty"`
	// Looked is whether the DANE check of the next-hop was needed and has a result, which is in the fields below.
	Looked   bool       `json:"looked"`
	MXSecure bool       `json:"mx_secure"`
	NoMail   bool       `json:"no_mail,omitempty"`
	Hosts    []DANEHost `json:"hosts,omitempty"`
	// Error is why the check failed, or could not be repeated.
	Error string `json:"error,omitempty"`
}

// A DANEHost is an MX host.
type DANEHost struct {
	Name  string `json:"name"`
	State string `json:"state"` // "usable", "unusable", "none", "failed", "absent" or "unresolved"
	Base  string `json:"base,omitempty"`
	Error string `json:"error,omitempty"`
}

// historyLength is how much of what happened is part of an Explanation.
const historyLength = 20

// explain answers how a key is answered.
func (p *Private) explain(w http.ResponseWriter, r *http.Request) {
	unbounded(w) // the Engine has limits of its own
	q := r.URL.Query()
	answer(w, p.Explained(r.Context(), q.Get("map"), q.Get("key")))
}

// Explained returns how a key is answered under the name of a map. It fetches the policy of a domain that is not
// cached.
func (p *Private) Explained(ctx context.Context, name, key string) Explanation {
	e := Explanation{Key: key, Map: name, History: []Change{}}
	d := p.Explain(ctx, &e)
	status := p.Status()
	e.Postfix = status.Postfix
	if d != nil {
		p.steps(ctx, &e, d, status)
	}
	return e
}

// steps adds what has led to d.
func (p *Private) steps(ctx context.Context, e *Explanation, d *policy.Decision, status Status) {
	now := time.Now()
	e.NextHop, e.Domain = d.NextHop, d.Domain
	e.Decision, e.Reason = d.Kind.String(), shorten(d.Reason)
	// An override that does not end makes a decision that does not.
	if until := d.Expires(); until.Year() < 2200 {
		e.Until = until
	}
	if d.Override != nil {
		o := CountedOverride(d.Override, now)
		e.Override = &o
	}
	for _, o := range status.Overrides.List {
		if o.covers(d.Domain) && (e.Override == nil || e.Override.Domain != o.Domain) {
			e.Others = append(e.Others, o)
		}
	}
	switch entry, err := p.Engine.Entry(ctx, d.Domain); {
	case err == nil:
		rec := RecordOf(entry)
		e.Record = &rec
	case !errors.Is(err, cache.ErrNotFound):
		e.StoreError = err.Error()
	}
	e.DANE = findingsOf(d, status.DANE)
	e.History = p.History.Of(d.Domain, historyLength)
}

// findingsOf returns what d knows about DANE.
func findingsOf(d *policy.Decision, state DANEStatus) *DANEFindings {
	f := &DANEFindings{State: state.State, Reasons: state.Reasons}
	if err := d.DANEError(); err != nil {
		f.Error = shorten(err.Error())
	}
	if d.DANE == nil {
		return f
	}
	f.Looked, f.MXSecure, f.NoMail = true, d.DANE.MXSecure, d.DANE.NoMail
	for _, h := range d.DANE.Hosts {
		host := DANEHost{Name: h.Name, State: h.State.String(), Base: h.Base}
		if h.Err != nil {
			host.Error = shorten(h.Err.Error())
		}
		f.Hosts = append(f.Hosts, host)
	}
	return f
}
