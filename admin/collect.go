package admin

import (
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A collecting is one scrape, of what is not counted by the library.
type collecting struct{ ch chan<- prometheus.Metric }

// desc describes a metric; labels are pairs.
func (c collecting) desc(name, help string, labels []string) (d *prometheus.Desc, values []string) {
	var names []string
	for i := 0; i < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	return prometheus.NewDesc(name, help, names, nil), values
}

func (c collecting) counter(name, help string, v float64, labels ...string) {
	d, values := c.desc(name, help, labels)
	c.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, values...)
}

func (c collecting) gauge(name, help string, v float64, labels ...string) {
	d, values := c.desc(name, help, labels)
	c.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, values...)
}

// yes is a gauge that is 1 or 0.
func (c collecting) yes(name, help string, v bool, labels ...string) {
	n := 0.0
	if v {
		n = 1
	}
	c.gauge(name, help, n, labels...)
}

func (c collecting) histogram(name, help string, h *histogram, labels ...string) {
	d, values := c.desc(name, help, labels)
	n, sum, upTo := h.read()
	c.ch <- prometheus.MustNewConstHistogram(d, n, sum, upTo, values...)
}

// statesCollector has how the daemon is.
type statesCollector struct{ *Metrics }

// Describe implements prometheus.Collector. It tells nothing: what there is
// depends on the configuration.
func (c statesCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c statesCollector) Collect(ch chan<- prometheus.Metric) {
	out, s := collecting{ch}, c.status()
	out.yes("stsmap_config_last_reload_successful", "Whether the configuration in force is that of the file, as far as the last reload told.", s.Reload.Error == "")
	out.gauge("stsmap_config_last_reload_success_timestamp_seconds", "When the configuration in force was read.", seconds(s.Read))
	for _, check := range s.Checks {
		out.yes("stsmap_ready", "Whether what the daemon needs works.", check.Error == "", "check", check.Name)
	}
	active, over := 0, 0
	for _, o := range s.Overrides.List {
		if o.Expired {
			over++
		} else {
			active++
		}
	}
	out.gauge("stsmap_overrides", "Overrides in the file, by whether they still count.", float64(active), "state", "active")
	out.gauge("stsmap_overrides", "Overrides in the file, by whether they still count.", float64(over), "state", "expired")
	out.serving(s)
	out.surroundings(s)
	out.remembered(s)
	out.counter("stsmap_log_dropped_lines_total", "Lines of the log that were lost because they could not be written.", float64(s.Log.Dropped))
	for _, name := range slices.Sorted(maps.Keys(s.Attributes)) {
		out.yes("stsmap_tlsrpt_attributes_enabled", "Whether replies under a socketmap name have policy attributes.", s.Attributes[name], "zone", name)
	}
}

// serving has what the sockets do.
func (c collecting) serving(s Status) {
	n := s.Connections
	c.gauge("stsmap_lookups_in_flight", "Lookups that are being answered.", float64(n.Busy))
	for _, address := range slices.Sorted(maps.Keys(n.Listeners)) {
		c.gauge("stsmap_connections", "Connections for lookups, by where they came in.", float64(n.Listeners[address]), "listener", address)
	}
	const rejected = "Connections that were closed early: for a malformed request, or to make room for others."
	c.counter("stsmap_connections_rejected_total", rejected, float64(n.Malformed), "reason", "malformed")
	c.counter("stsmap_connections_rejected_total", rejected, float64(n.Evicted), "reason", "evicted")
	const bugs = "Answers that were replaced by \"internal error\", which is a bug."
	c.counter("stsmap_handler_bugs_total", bugs, float64(n.Panics), "kind", "panic")
	c.counter("stsmap_handler_bugs_total", bugs, float64(n.Unfit), "kind", "unfit_reply")
}

// surroundings has what the daemon needs of others. What is not known is left
// out.
func (c collecting) surroundings(s Status) {
	c.yes("stsmap_resolver_up", "Whether the resolver answers at all, as far as the last questions told.", s.Resolver.Answering.Error == "")
	if v := s.Resolver.Validates.Verdict; v == "yes" || v == "no" {
		c.yes("stsmap_resolver_validates", "Whether the resolver validates DNSSEC; not there while nobody knows or asks.", v == "yes")
	}
	if s.DANE.State != "unknown" {
		c.yes("stsmap_dane_enabled", "Whether DANE goes before policies.", s.DANE.State == "on")
	}
}

// remembered collects the metrics of the cache.
func (c collecting) remembered(s Status) {
	m := s.Memory
	c.gauge("stsmap_cache_memory_entries", "Domains of which something is in memory.", float64(m.Entries))
	c.gauge("stsmap_cache_capacity_entries", "Domains of which something can be in memory (cache.entries).", float64(m.Most))
	const evicted = "Domains that were forgotten in memory for want of room. Only those of reason policy are lost."
	c.counter("stsmap_cache_evictions_total", evicted, float64(m.Expired), "reason", "expired")
	c.counter("stsmap_cache_evictions_total", evicted, float64(m.Unused), "reason", "unused")
	c.counter("stsmap_cache_evictions_total", evicted, float64(m.Policies), "reason", "policy")
	if v := s.Cache; v != nil {
		for mode, n := range v.Modes {
			if mode == Absent {
				mode = "negative"
			}
			c.gauge("stsmap_cache_entries", "Domains of which something is known and counts, by the mode of their policy.", float64(n), "mode", mode)
		}
		c.gauge("stsmap_policies_expiring_unrefreshed", "Policies in force that expire within a day and could not be refreshed the last time.", float64(v.Lapsing))
		c.gauge("stsmap_cache_survey_timestamp_seconds", "When the entries were last counted.", seconds(v.At))
	}
	c.yes("stsmap_store_up", "Whether the store works.", s.Store.Reading.Error == "", "operation", "read")
	c.yes("stsmap_store_up", "Whether the store works.", s.Store.Writing.Error == "", "operation", "write")
	c.gauge("stsmap_store_waiting_policies", "Policies in memory that the store did not take yet.", float64(s.Store.Waiting))
	if s.Store.Bytes != nil {
		c.gauge("stsmap_store_bytes", "Size of the store's file; not there for a store that has none here.", float64(*s.Store.Bytes))
	}
}

// seconds is a time as Prometheus wants it, 0 for none.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
