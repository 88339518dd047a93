package main

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"

	"stsmap/admin"
	"stsmap/cache/bolt"
	"stsmap/config"
	"stsmap/dane"
	"stsmap/policy"
	"stsmap/postfix"
	"stsmap/resolver"
	"stsmap/socketmap"
	"stsmap/stsfetch"
)

// serveProfiled is the daemon, put together like cmd/stsmap does it, but for what no figure needs. It writes a CPU
// profile of all its life. The daemon itself has no port for that: profiles tell the domains that are asked for.
func serveProfiled(conf, profile string) (err error) {
	loaded, err := config.Load(conf, nil)
	if err != nil {
		return err
	}
	cfg := &loaded.Config
	out, err := os.Create(profile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := pprof.StartCPUProfile(out); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()

	store, err := bolt.Open(strings.TrimPrefix(cfg.Cache.Store, "bolt:"), bolt.Options{})
	if err != nil {
		return err
	}
	defer store.Close()
	resolve, fetch, err := newFetcher(cfg)
	if err != nil {
		return err
	}
	monitor := admin.NewMonitor(slog.New(admin.NewHandler(os.Stderr, "text", slog.LevelInfo)), cfg.Log.Lookups)
	settings := policy.Config{
		Store:       store,
		Fetch:       fetch,
		Timeout:     cfg.Fetch.Timeout,
		Concurrency: cfg.Fetch.Concurrency,
		Refresh:     cfg.Fetch.Refresh,
		Recheck:     cfg.Fetch.Recheck,
		Forget:      cfg.Cache.Forget,
		CacheSize:   cfg.Cache.Entries,
		Render:      postfix.Render,
		Observe:     monitor.Observe,
	}
	if cfg.Postfix.DNSSEC == "yes" {
		settings.DANE.Check = func(ctx context.Context, hop dane.NextHop) (dane.Result, error) { return dane.Check(ctx, resolve, hop) }
	}
	engine := policy.New(settings)
	engine.AllowDANE(nil)
	defer engine.Close()
	return serveUntilSignal(&socketmap.Server{Handler: &postfix.Handler{Engine: engine, Bracketed: true}}, cfg.Listen)
}

func newFetcher(cfg *config.Config) (*resolver.Resolver, *stsfetch.Fetcher, error) {
	resolve, err := resolver.New(resolver.Config{Servers: cfg.DNS.Servers, Timeout: cfg.DNS.Timeout, TrustAD: cfg.DNS.TrustAD})
	if err != nil {
		return nil, nil, err
	}
	bundle, err := os.ReadFile(cfg.Fetch.CAFile)
	if err != nil {
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	fetch, err := stsfetch.New(stsfetch.Config{
		Resolver:     resolve,
		Roots:        roots,
		Timeout:      cfg.Fetch.Timeout,
		MaxSize:      cfg.Fetch.MaxSize,
		AllowPrivate: cfg.Fetch.AllowPrivate,
	})
	return resolve, fetch, err
}

// serveUntilSignal serves on all addresses until the process is told to end.
func serveUntilSignal(server *socketmap.Server, addrs []string) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	var running sync.WaitGroup
	defer running.Wait()
	for _, addr := range addrs {
		network, where := networkOf(addr)
		l, err := net.Listen(network, where)
		if err != nil {
			return err
		}
		running.Go(func() { _ = server.Serve(l) })
	}
	<-signals
	return server.Shutdown(context.Background())
}
