package admin

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"stsmap/resolver"
)

// maxSilent is how many DNS questions in a row have to come to nothing for the
// resolver to count as away. One domain whose name servers are silent is not
// enough, and every question about another domain would tell.
const maxSilent = 5

// Questions counts DNS questions, and tells from them whether the resolver
// answers. Its methods may be called concurrently.
type Questions struct {
	total *prometheus.CounterVec
	took  prometheus.Histogram

	silent atomic.Int64 // questions in a row that came to nothing

	mu   sync.Mutex
	away Condition // Error is empty while it answers
}

func newQuestions() *Questions {
	q := &Questions{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stsmap_dns_queries_total",
			Help: "DNS questions by type and by what came of them, each counted once for all servers and attempts.",
		}, []string{"type", "result"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "stsmap_dns_query_duration_seconds",
			Help:    "How long DNS questions took.",
			Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 2, 5, 10},
		}),
	}
	for _, t := range []string{"txt", "mx", "tlsa", "addr", "cname"} {
		for _, r := range []string{"ok", "nodata", "nxdomain", "servfail", "bogus", "timeout", "refused", "malformed", "network", "cname_loop"} {
			q.total.WithLabelValues(t, r)
		}
	}
	return q
}

// Observe records the outcome of a DNS query; it is meant for
// resolver.Config.Observe.
func (q *Questions) Observe(ev resolver.QueryResult) {
	q.total.WithLabelValues(questionType(ev.Type), questionResult(ev)).Inc()
	q.took.Observe(ev.Took.Seconds())
	if heard(ev) {
		q.answered()
		return
	}
	if ev.Err.Server == "" || errors.Is(ev.Err, context.Canceled) {
		return // no server was queried, or the query was canceled
	}
	if q.silent.Add(1) == maxSilent {
		q.mu.Lock()
		defer q.mu.Unlock()
		// Not the name of the query: readers of the status may not be allowed
		// to see which domains get mail.
		q.away = Condition{Error: ev.Err.Server + ": " + ev.Err.Kind.String(), Since: time.Now()}
	}
}

// answered records that a server has answered.
func (q *Questions) answered() {
	if q.silent.Load() == 0 || q.silent.Swap(0) < maxSilent {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.away = Condition{Since: time.Now()}
}

// Answering is whether the resolver answers. SERVFAIL is an answer: it is about
// a domain.
func (q *Questions) Answering() Condition {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.away
}

// heard reports whether a question had an answer of a resolver that means to
// give some.
func heard(ev resolver.QueryResult) bool {
	return ev.Err == nil || ev.Err.Kind == resolver.ServFail || ev.Err.Kind == resolver.CNAMELoop
}

// questionType is the label for a record type.
func questionType(t string) string {
	switch t {
	case "TXT":
		return "txt"
	case "MX":
		return "mx"
	case "TLSA":
		return "tlsa"
	case "CNAME":
		return "cname"
	}
	return "addr"
}

// questionResult is the label for what came of a question.
func questionResult(ev resolver.QueryResult) string {
	switch {
	case ev.Err != nil && ev.Err.Bogus():
		return "bogus"
	case ev.Err != nil:
		return ev.Err.Kind.String()
	case ev.NXDomain:
		return "nxdomain"
	case ev.Empty:
		return "nodata"
	}
	return "ok"
}
