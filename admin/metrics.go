package admin

import (
	"errors"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"stsmap/dane"
	"stsmap/policy"
	"stsmap/stsfetch"
)

// Metrics are what Prometheus collects: docs/metrics.md has all of them. No
// label ever has a domain, or anything else that strangers can make up.
//
// Monitor and Zone count what happens during a cached answer, without
// allocating. Metrics itself counts rare events, and reads states, such as that
// of the store, when Prometheus collects.
type Metrics struct {
	// Questions counts DNS queries; the resolver must report to it.
	Questions *Questions

	monitor  *Monitor
	status   func() Status
	registry *prometheus.Registry
	times    lookupTimes

	fetches   *prometheus.CounterVec
	fetchTook prometheus.Histogram
	survived  prometheus.Counter
	store     *prometheus.CounterVec
	written   prometheus.Gauge
	checks    *prometheus.CounterVec
	panics    prometheus.Counter

	mu    sync.Mutex
	zones map[string]*Zone
}

// NewMetrics returns the metrics of a daemon of a version and revision. status
// tells how it is; it is called for each scrape.
func NewMetrics(m *Monitor, version, revision string, status func() Status) *Metrics {
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	x := &Metrics{
		Questions: newQuestions(), monitor: m, status: status, registry: prometheus.NewRegistry(), zones: make(map[string]*Zone),
		fetches: counters("stsmap_policy_fetches_total", "Downloads of policies, by why one was wanted and how it ended.", "trigger", "result"),
		fetchTook: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "stsmap_policy_fetch_duration_seconds",
			Help:    "How long retrievals with a download took, from the look at the record to the end.",
			Buckets: []float64{.01, .05, .1, .5, 1, 2, 5, 10, 30, 60},
		}),
		survived: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stsmap_cache_served_after_failed_refresh_total",
			Help: "Downloads that failed and left a known policy in force (RFC 8461, Section 3.3).",
		}),
		store: counters("stsmap_store_errors_total", "Operations of the store that failed; answers went on from memory.", "op"),
		written: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "stsmap_store_last_write_timestamp_seconds",
			Help: "When the store last took a policy; 0 if it never did since the start.",
		}),
		checks: counters("stsmap_dane_checks_total", "Times it was found out whether DANE applies to a next-hop.", "result"),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stsmap_retrieval_panics_total",
			Help: "Retrievals that ended by a panic, which is a bug.",
		}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "stsmap_build_info", Help: "1, with what runs as labels.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "goversion": runtime.Version()},
	})
	build.Set(1)
	x.begin()
	x.registry.MustRegister(build, x.Questions.total, x.Questions.took, x.fetches, x.fetchTook, x.survived, x.store, x.written, x.checks, x.panics,
		answersCollector{x}, statesCollector{x},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return x
}

// begin has every series there from the start: what appears with its first
// event hides that event from increase() and rate().
func (x *Metrics) begin() {
	for t := policy.OnMiss; t <= policy.OnRequest; t++ {
		for _, result := range fetchResults() {
			x.fetches.WithLabelValues(t.String(), result)
		}
	}
	for op := policy.OpOther; op <= policy.OpDue; op++ {
		x.store.WithLabelValues(op.String())
	}
	for _, result := range []string{"usable", "unusable", "none", "partial", "failed"} {
		x.checks.WithLabelValues(result)
	}
}

// fetchResults are how a download can end.
func fetchResults() []string {
	all := []string{"ok", "unchanged"}
	for _, s := range []stsfetch.Step{
		stsfetch.StepDNS, stsfetch.StepBlocked, stsfetch.StepConnect, stsfetch.StepTimeout, stsfetch.StepTLS, stsfetch.StepCert, stsfetch.StepHTTP,
		stsfetch.StepStatus, stsfetch.StepRedirect, stsfetch.StepContentType, stsfetch.StepTooLarge, stsfetch.StepSyntax,
	} {
		all = append(all, string(s))
	}
	return append(all, "other")
}

// Zone returns who counts the answers under a socketmap name, always the same
// for the same. The names are those of a configuration, not those of clients.
func (x *Metrics) Zone(name string) *Zone {
	x.mu.Lock()
	defer x.mu.Unlock()
	z := x.zones[name]
	if z == nil {
		z = &Zone{times: &x.times}
		x.zones[name] = z
	}
	return z
}

// Observe counts an event, for policy.Config.Observe. Monitor and Zone count
// answers.
func (x *Metrics) Observe(ev policy.Event) {
	switch ev.Kind {
	case policy.PolicyNew, policy.PolicyChanged:
		x.fetched(ev, "ok")
	case policy.PolicyRenewed:
		x.fetched(ev, "unchanged")
	case policy.PolicyFailed:
		step := "other"
		if err, ok := errors.AsType[*stsfetch.Error](ev.Err); ok {
			step = string(err.Step)
		}
		x.fetched(ev, step)
		if ev.After.Policy != "" {
			x.survived.Inc()
		}
	case policy.StoreFailed:
		x.store.WithLabelValues(ev.Op.String()).Inc()
	case policy.DANEChecked:
		x.checks.WithLabelValues(checkResult(ev.DANE)).Inc()
	case policy.DANEFailed:
		x.checks.WithLabelValues("failed").Inc()
	case policy.Panicked:
		x.panics.Inc()
	}
	if ev.Kept && ev.After.Policy != "" {
		x.written.SetToCurrentTime()
	}
}

func (x *Metrics) fetched(ev policy.Event, result string) {
	x.fetches.WithLabelValues(ev.Trigger.String(), result).Inc()
	x.fetchTook.Observe(ev.Took.Seconds())
}

// checkResult is the label for what DNS says of DANE.
func checkResult(r *dane.Result) string {
	switch {
	case r.Count(dane.Failed)+r.Count(dane.Unresolved) > 0:
		return "partial"
	case r.Count(dane.Usable) > 0:
		return "usable"
	case r.Count(dane.Unusable) > 0:
		return "unusable"
	}
	return "none"
}

// Handler returns what answers Prometheus.
func (x *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(x.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// answersCollector has what Monitor and Zone counted.
type answersCollector struct{ *Metrics }

// Describe implements prometheus.Collector. It tells nothing: what there is
// depends on the configuration.
func (c answersCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c answersCollector) Collect(ch chan<- prometheus.Metric) {
	out := collecting{ch}
	c.mu.Lock()
	zones := maps.Clone(c.zones)
	c.mu.Unlock()
	uses := uint64(0)
	for _, name := range slices.Sorted(maps.Keys(zones)) {
		uses += zones[name].overrides.Load()
		for r := range result(results) {
			out.counter("stsmap_lookups_total", "Answers by socketmap name and by what they came to.",
				float64(zones[name].answers[r].Load()), "zone", name, "result", r.String())
		}
	}
	out.counter("stsmap_override_uses_total", "Answers that an override had a part in.", float64(uses))
	for source, h := range map[string]*histogram{"cache": &c.times.cached, "live": &c.times.live} {
		out.histogram("stsmap_lookup_duration_seconds", "How long answers took; those at hand are measured by sample, one in 64.", h, "source", source)
	}
	for source, n := range c.monitor.sources() {
		out.counter("stsmap_cache_requests_total", "Lookups by what had to be done for them: nothing, nothing before the answer, or to ask the domain.",
			float64(n), "result", [...]string{"fresh", "stale", "miss"}[source])
	}
	for k := appeared; k < changeKinds; k++ {
		out.counter("stsmap_policy_changes_total", "What became of the policies of domains.", float64(c.monitor.changes[k].Load()), "kind", k.String())
	}
}
