package admin

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// errorTrailer is the field that follows a table which is not all of it, with the
// reason. Its rows are sent as they are found, so no status code can say so.
const errorTrailer = "Stsmap-Error"

// A table is the source of one for postmap(1), which stands in for the map.
type table struct {
	p       *Private
	r       *http.Request
	w       io.Writer
	err     error            // of writing, after which nothing is written
	counts  []OverrideStatus // those that do
	pending map[string]bool  // domains in counts that were not written yet
}

// table sends the replies for the domains with a policy or an override now.
func (p *Private) table(w http.ResponseWriter, r *http.Request) {
	unbounded(w) // DANE may have to be looked up
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Trailer", errorTrailer)
	t, now := &table{p: p, r: r, w: w, pending: make(map[string]bool)}, time.Now()
	for _, o := range p.Status().Overrides.List {
		if !o.Expired {
			t.counts, t.pending[o.Domain] = append(t.counts, o), true
		}
	}
	for e, err := range p.Engine.Entries(r.Context()) {
		if err != nil {
			t.print("# INCOMPLETE: %q\n", err.Error())
			w.Header().Set(errorTrailer, err.Error())
			return
		}
		if e.Policy != "" && !RecordOf(e).Expired(now) {
			t.domain(e.Domain)
		}
		if t.err != nil {
			return
		}
	}
	for _, o := range t.counts {
		switch {
		case strings.HasPrefix(o.Domain, "."):
			t.below(o)
		case t.pending[o.Domain]:
			t.domain(o.Domain)
		}
	}
}

func (t *table) print(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.w, format, args...)
	}
}

// lacks writes that the table protects mail for a domain less than the map does.
func (t *table) lacks(domain, why string) { t.print("# NOT EXPRESSIBLE: %s: %s\n", domain, why) }

// domain writes the row of one domain, with the overrides in force. It asks the
// Engine for the decision: an override can enforce a policy in testing mode or
// disable any policy, and DANE can take precedence.
func (t *table) domain(name string) {
	delete(t.pending, name)
	hop, ok := t.p.NextHop(name)
	if !ok {
		return
	}
	switch value, ok := t.p.Row(t.p.Engine.Decide(t.r.Context(), hop, false)); {
	case ok:
		t.print("%s\t%s\n", name, value)
	case value != "":
		t.lacks(name, value)
	default:
		t.nothing(name)
	}
}

// below writes the row of everything below a domain, which Postfix asks a table for
// after the name itself (smtp/smtp_tls_policy.c).
func (t *table) below(o OverrideStatus) {
	switch o.Action {
	case "reply":
		t.print("%s\t%s\n", o.Domain, o.Text)
	case "defer":
		t.lacks(o.Domain, "mail for everything below it waits")
	default:
		t.nothing(o.Domain)
	}
}

// nothing is for a domain that gets no policy from the map. The table can leave
// it out only if the row of no parent domain applies to it.
func (t *table) nothing(domain string) {
	for _, o := range t.counts {
		if around := o.Domain != domain && o.covers(domain); around && o.Action == "reply" {
			t.lacks(domain, "it has no row, but that of "+o.Domain+" is for it, too")
			return
		}
	}
}
