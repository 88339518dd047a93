package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"

	"stsmap/admin"
	"stsmap/config"
	"stsmap/dane"
	"stsmap/policy"
	"stsmap/postfix"
	"stsmap/resolver"
	"stsmap/stsfetch"
	"stsmap/systemd"
)

// newLog returns the logger for log.format, and its queue, which must be
// closed. Nothing that logs waits for w.
func newLog(w io.Writer, format string, level slog.Leveler) (*slog.Logger, *admin.LogQueue) {
	// The queue reports dropped lines at every level: they may be errors.
	direct := slog.New(logHandler(w, format, slog.LevelDebug, func(_ int, write func() error) { _ = write() }))
	queue := admin.NewLogQueue(direct)
	if inJournal(format) {
		return slog.New(logHandler(w, format, level, queue.Add)), queue
	}
	return slog.New(logHandler(queue.Writer(w), format, level, nil)), queue
}

// logHandler returns the handler for log.format. In the journal's, queue
// decides when lines are written.
func logHandler(w io.Writer, format string, level slog.Leveler, queue func(int, func() error)) slog.Handler {
	if inJournal(format) {
		return systemd.NewJournalHandler(w, level, queue)
	}
	return admin.NewHandler(w, format, level)
}

// inJournal reports whether log.format means the journal.
func inJournal(format string) bool {
	return format == "journal" || format == "auto" && systemd.InJournal()
}

// newResolver makes the resolver; it calls observe for each query, unless that
// is nil.
func newResolver(cfg *config.Config, observe func(resolver.QueryResult)) (*resolver.Resolver, error) {
	roots, err := resolverRoots(cfg.DNS.CAFile)
	if err != nil {
		return nil, err
	}
	r, err := resolver.New(resolver.Config{
		Servers: cfg.DNS.Servers,
		Timeout: cfg.DNS.Timeout,
		TrustAD: cfg.DNS.TrustAD,
		Roots:   roots,
		Observe: observe,
	})
	if err != nil {
		return nil, &failure{code: exitConfig, err: fmt.Errorf("dns.servers: %w", err)}
	}
	return r, nil
}

// daneConfig says how DANE and MTA-STS go together. Whether DANE can be used at
// all is up to the probes (environment).
func daneConfig(cfg *config.Config, resolve *resolver.Resolver) policy.DANEConfig {
	if cfg.DANE.Mode == "off" {
		return policy.DANEConfig{}
	}
	return policy.DANEConfig{
		Check: func(ctx context.Context, hop dane.NextHop) (dane.Result, error) {
			return dane.Check(ctx, resolve, hop)
		},
		All:      cfg.DANE.Mode == "all",
		Partial:  cfg.DANE.Partial == "dane",
		FallBack: cfg.DANE.OnFailure == "sts",
	}
}

// newFetcher returns the Fetcher of the configuration.
func newFetcher(cfg *config.Config, resolve *resolver.Resolver, anchors *stsfetch.Anchors) (*stsfetch.Fetcher, error) {
	fetch, err := stsfetch.New(stsfetch.Config{
		Resolver:     resolve,
		Anchors:      anchors,
		Timeout:      cfg.Fetch.Timeout,
		MaxSize:      cfg.Fetch.MaxSize,
		AllowPrivate: cfg.Fetch.AllowPrivate,
		Proxy:        cfg.Fetch.Proxy,
		UserAgent:    "stsmap/" + version(),
	})
	if err != nil {
		return nil, &failure{code: exitConfig, err: fmt.Errorf("fetch: %w", err)}
	}
	return fetch, nil
}

// checkProxy checks fetch.proxy together with the environment.
func checkProxy(setting string) error {
	if err := stsfetch.CheckProxy(setting); err != nil {
		return &failure{code: exitConfig, err: fmt.Errorf("fetch.proxy: %w", err)}
	}
	return nil
}

// engineConfig makes the settings of the engine from the configuration: all
// that a reload can change.
func (d *daemon) engineConfig(cfg *config.Config, resolve *resolver.Resolver) (policy.Config, error) {
	anchors := d.systemAnchors
	if cfg.Fetch.CAFile != "" {
		var err error
		if anchors, err = fileAnchors("fetch.ca_file", cfg.Fetch.CAFile, d.anchorsRead); err != nil {
			return policy.Config{}, err
		}
	}
	fetch, err := newFetcher(cfg, resolve, anchors)
	if err != nil {
		return policy.Config{}, err
	}
	keep, shared := d.store.engineStore()
	return policy.Config{
		Store:       keep,
		Shared:      shared,
		Fetch:       fetch,
		Timeout:     cfg.Fetch.Timeout,
		Concurrency: cfg.Fetch.Concurrency,
		Refresh:     cfg.Fetch.Refresh,
		Recheck:     cfg.Fetch.Recheck,
		Forget:      cfg.Cache.Forget,
		CacheSize:   cfg.Cache.Entries,
		Defer:       cfg.DNS.OnFailure == "defer",
		Render:      postfix.Render,
		Strict:      slices.ContainsFunc(slices.Collect(maps.Values(cfg.Maps)), func(m config.Map) bool { return m.Testing == "enforce" }),
		DANE:        daneConfig(cfg, resolve),
		Observe:     d.observe,
	}, nil
}

// postfixMaps says how lookups are answered by the name of the map.
func postfixMaps(cfg *config.Config) map[string]postfix.Map {
	all := make(map[string]postfix.Map)
	for _, name := range append(slices.Collect(maps.Keys(cfg.Maps)), "postfix", "QUERY", "QUERYwithTLSRPT") {
		m, _ := cfg.Map(name)
		p := postfix.Map{Level: m.Level}
		switch m.TLSRPT {
		case "yes":
			p.Attributes = postfix.Always
		case "no":
			p.Attributes = postfix.Never
		}
		switch m.Testing {
		case "report":
			p.Testing = postfix.Report
		case "enforce":
			p.Testing = postfix.Enforce
		}
		all[name] = p
	}
	return all
}

// counted has the answers of all maps counted.
func (d *daemon) counted(all map[string]postfix.Map) map[string]postfix.Map {
	for name, m := range all {
		zone := d.metrics.Zone(name)
		m.Observe = func(a postfix.Answered) { zone.Count(a.Decision, a.Miss, a.Took, a.SampleWeight) }
		all[name] = m
	}
	return all
}
