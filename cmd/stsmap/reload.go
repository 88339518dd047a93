package main

import (
	"slices"
	"time"

	"stsmap/admin"
	"stsmap/config"
	"stsmap/policy"
	"stsmap/resolver"
	"stsmap/systemd"
)

// reload reads the configuration again. A wrong one changes nothing.
func (d *daemon) reload() {
	d.tell(systemd.Reloading())
	defer func() { d.tell(systemd.Ready()) }()
	if d.cfg.Fetch.CAFile == "" {
		// Also if the configuration is wrong.
		if err := d.files.do(func() { d.systemAnchors.Reload() }); err != nil {
			d.log.Error("trust anchors not read, the last ones stay in force", "error", err.Error())
		}
	}
	cfg, resolve, settings, err := d.readAgain()
	if err != nil {
		d.notReloaded(err)
		return
	}
	for _, setting := range []struct {
		key     string
		changed bool
	}{
		{"listen", !slices.Equal(cfg.Listen, d.cfg.Listen)},
		{"cache.store", cfg.Cache.Store != d.cfg.Cache.Store},
		{"cache.entries", cfg.Cache.Entries != d.cfg.Cache.Entries},
		{"log.format", cfg.Log.Format != d.cfg.Log.Format},
		{"admin.socket", cfg.Admin.Socket != d.cfg.Admin.Socket},
	} {
		if setting.changed {
			d.log.Warn("changed setting takes effect after a restart", "key", setting.key)
		}
	}
	d.engine.Configure(settings)
	d.overrides.follow(cfg.Overrides.File)
	d.environment.configure(cfg, resolve)
	d.setHandler(cfg)
	d.level.Set(admin.ParseLevel(cfg.Log.Level))
	d.monitor.LogLookups(cfg.Log.Lookups)
	d.domains.Store(cfg.Admin.ShowDomains)
	d.window.open(cfg.Admin.Listen)
	// What needs a restart stays as it runs, so that the next reload says so
	// again.
	cfg.Listen, cfg.Cache.Store, cfg.Cache.Entries, cfg.Log.Format = d.cfg.Listen, d.cfg.Cache.Store, d.cfg.Cache.Entries, d.cfg.Log.Format
	cfg.Admin.Socket = d.cfg.Admin.Socket
	d.cfg = cfg
	d.refused.Store(nil)
	d.read.Store(time.Now().UnixNano())
	d.log.Info("configuration reloaded")
}

// notReloaded logs why the old configuration stays, and keeps the reason for
// the status.
func (d *daemon) notReloaded(err error) {
	d.refused.Store(&admin.Condition{Error: err.Error(), Since: time.Now()})
	d.log.Error("configuration not reloaded, the old one stays in force", "error", err.Error())
}

// readAgain reads the configuration, and makes of it what can be wrong, the
// settings that need a restart too.
func (d *daemon) readAgain() (*config.Config, *resolver.Resolver, policy.Config, error) {
	var cfg *config.Config
	var resolve *resolver.Resolver
	var settings policy.Config
	var err error
	store := d.cfg.Cache.Store // the goroutine that reads may outlast this reload
	if hangs := d.files.do(func() { cfg, resolve, settings, err = d.readFiles(store) }); hangs != nil {
		return nil, nil, policy.Config{}, hangs
	}
	return cfg, resolve, settings, err
}

// readFiles is readAgain without a limit of time. The store is the one in use,
// which need not be a good one.
func (d *daemon) readFiles(store string) (*config.Config, *resolver.Resolver, policy.Config, error) {
	loaded, err := d.globals.load()
	if err != nil {
		return nil, nil, policy.Config{}, err
	}
	if loaded.Cache.Store != store {
		if err := checkStore(loaded.Cache.Store); err != nil {
			return nil, nil, policy.Config{}, err
		}
	}
	if err := checkProxy(loaded.Fetch.Proxy); err != nil {
		return nil, nil, policy.Config{}, err
	}
	resolve, err := newResolver(&loaded.Config, d.metrics.Questions.Observe)
	if err != nil {
		return nil, nil, policy.Config{}, err
	}
	settings, err := d.engineConfig(&loaded.Config, resolve)
	return &loaded.Config, resolve, settings, err
}
