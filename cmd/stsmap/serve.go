package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"stsmap/admin"
	"stsmap/config"
	"stsmap/policy"
	"stsmap/postfix"
	"stsmap/socketmap"
	"stsmap/stsfetch"
	"stsmap/systemd"
)

const (
	// drainLimit is how long answers under way may take after SIGTERM. Until the
	// daemon has ended, new connections wait in the sockets that the service
	// manager keeps. So it is short: an answer that takes longer waits for the
	// network, its connection is closed, and Postfix asks again, once
	// (util/dict_sockmap.c), over a new connection to the next daemon.
	drainLimit = 2 * time.Second
	// flushLimit is how long the daemon waits at its end until the last lines
	// of the log are written.
	flushLimit = 2 * time.Second
	// statusEvery is how often the line for systemctl status is renewed.
	statusEvery = 30 * time.Second
	// releaseLimit is how long the first answer waits at most for postconf,
	// which takes some milliseconds, to say which release asks.
	releaseLimit = time.Second
	// settleLimit is how long a resolver that does not answer delays what is known
	// about DANE without it.
	settleLimit = time.Second
)

func serveCommand(c console, g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon",
		Long: `Run the daemon in the foreground. SIGHUP reads the configuration again; if it is
wrong, the old one stays. SIGTERM answers what is under way and ends.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := g.load()
			if err != nil {
				return err
			}
			return serve(cmd.Context(), c, g, &cfg.Config)
		},
	}
}

// A daemon is everything that serve runs.
type daemon struct {
	globals    *globals
	cfg        *config.Config
	log        *slog.Logger
	limited    *slog.Logger    // to log, for lines that clients can cause at will
	limit      *admin.LogLimit // of limited
	lines      *admin.LogQueue // what log writes to
	level      *slog.LevelVar
	files      *fileQueue // of what a reload reads, and the overrides
	monitor    *admin.Monitor
	history    *admin.History
	metrics    *admin.Metrics
	minutes    *admin.Minutes
	surveyor   *admin.Surveyor
	window     *window
	store      *store
	engine     *policy.Engine
	server     *socketmap.Server
	handler    atomic.Pointer[postfix.Handler]
	attributes atomic.Bool                     // whether the Postfix that asks knows policy attributes
	refused    atomic.Pointer[admin.Condition] // why the last reload changed nothing; nil if it did
	read       atomic.Int64                    // when the configuration was read, in Unix nanoseconds
	domains    atomic.Bool                     // admin.show_domains
	addrs      []string                        // where it listens, in the form for socketmap.Dial
	listeners  []net.Listener                  // likewise
	running    sync.WaitGroup                  // everything that ends with the daemon

	environment   *environment
	overrides     *overrides
	systemAnchors *stsfetch.Anchors // outlive a reload; not used with fetch.ca_file
	since         time.Time         // when it began to serve
}

// serve runs the daemon until a signal ends it. All lines of the log are
// written when it returns, unless that takes longer than flushLimit.
func serve(ctx context.Context, c console, g *globals, cfg *config.Config) (err error) {
	d := &daemon{globals: g, cfg: cfg, level: new(slog.LevelVar), files: newFileQueue(fileLimit)}
	d.level.Set(admin.ParseLevel(cfg.Log.Level))
	d.log, d.lines = newLog(c.err, cfg.Log.Format, d.level)
	d.limit = admin.NewLogLimit(d.log.Handler())
	d.limited = d.limit.Logger()
	defer func() {
		if flushed := d.lines.Close(flushLimit); !flushed && err != nil {
			// Printing it would block like the log, and keep the process.
			err = unprinted(err)
		}
	}()
	return d.serve(ctx)
}

// unprinted returns an error with the exit code of err that is not printed.
func unprinted(err error) error {
	code := exitFailed
	if f, ok := errors.AsType[*failure](err); ok {
		code = f.code
	}
	return &failure{code: code, err: errSilent}
}

// serve is the function serve with a log.
func (d *daemon) serve(ctx context.Context) error {
	cfg := d.cfg
	d.monitor, d.history = admin.NewMonitor(d.log, cfg.Log.Lookups), admin.NewHistory()
	d.metrics = admin.NewMetrics(d.monitor, strings.TrimSpace(release), revision(), d.status)
	d.minutes = admin.NewMinutes(d.metrics)
	d.window = &window{d: d}
	d.read.Store(time.Now().UnixNano())
	d.domains.Store(cfg.Admin.ShowDomains)

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)

	d.store = d.openStore(cfg.Cache.Store)
	defer d.store.close()
	resolve, err := newResolver(cfg, d.metrics.Questions.Observe)
	if err != nil {
		return err
	}
	d.systemAnchors = stsfetch.SystemAnchors(d.anchorsRead)
	if cfg.Fetch.CAFile == "" {
		d.systemAnchors.Reload() // what is wrong is logged
	}
	settings, err := d.engineConfig(cfg, resolve)
	if err != nil {
		return err
	}
	if err := checkProxy(cfg.Fetch.Proxy); err != nil {
		d.log.Error("proxy invalid, no policy is fetched", "error", err.Error())
	}
	d.engine = policy.New(settings)
	defer d.engine.Close()
	d.surveyor = admin.NewSurveyor(d.engine.Entries, d.store.surveyEvery())
	d.overrides = newOverrides(d.log, d.files, d.engine.Override)
	d.overrides.follow(cfg.Overrides.File)
	d.environment = newEnvironment(d.engine.AllowDANE, d.setRelease)
	d.environment.configure(cfg, resolve)
	d.setHandler(cfg)

	listeners, err := d.listen(cfg)
	if err != nil {
		return err
	}
	return d.run(ctx, listeners, signals)
}

// run serves on listeners, and leaves in the order that loses nothing: stop
// accepting, answer what is under way, stop refreshing and being asked how it
// is; the engine and then the store are closed by serve.
func (d *daemon) run(ctx context.Context, listeners []net.Listener, signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer d.running.Wait()
	defer cancel()
	d.server = &socketmap.Server{
		Handler:  socketmap.HandlerFunc(d.answer),
		MaxConns: maxLookupConns(maxDescriptors(), len(listeners)),
		Log:      d.limited,
	}
	d.since, d.listeners = time.Now(), listeners
	d.control(ctx, d.cfg.Admin.Socket)
	d.window.open(d.cfg.Admin.Listen)
	defer d.window.close()
	d.running.Go(func() { d.environment.prober.Run(ctx) })
	d.running.Go(func() { d.environment.settle(ctx, settleLimit) })
	d.environment.waitRelease(ctx, releaseLimit)
	broken := make(chan error, len(listeners))
	for _, l := range listeners {
		d.running.Go(func() {
			if err := d.server.Serve(l); !errors.Is(err, socketmap.ErrServerClosed) {
				broken <- fmt.Errorf("listening on %s: %w", l.Addr(), err)
			}
		})
	}
	d.running.Go(func() { d.limit.Run(ctx) })
	d.running.Go(func() { tendMemory(ctx) })
	d.running.Go(func() { d.store.run(ctx) })
	d.running.Go(func() { d.engine.Run(ctx) })
	d.running.Go(func() { d.overrides.run(ctx) })
	d.running.Go(func() { d.watch(ctx) })
	d.running.Go(func() { d.tellStatus(ctx) })
	d.running.Go(func() { d.minutes.Run(ctx) })
	d.running.Go(func() { d.surveyor.Run(ctx) })
	names := d.cfg.Cache.Warm // a reload may replace d.cfg meanwhile
	d.running.Go(func() { d.warm(ctx, names) })
	d.log.Info("serving", "version", version(), "listen", fmt.Sprint(d.addrs), "store", d.store.name)
	d.tell(systemd.Ready())

	var result error
	for result == nil {
		select {
		case result = <-broken:
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				d.reload()
				continue
			}
			d.log.Info("stopping", "signal", sig.String())
			return d.stop(signals)
		case <-ctx.Done():
			return d.stop(signals)
		}
	}
	return errors.Join(&failure{code: exitFailed, err: result}, d.stop(signals))
}

// stop answers what is under way. A second signal cuts that short: then
// connections are closed without an answer, and Postfix asks again.
func (d *daemon) stop(signals <-chan os.Signal) error {
	d.tell(systemd.Stopping())
	ctx, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	d.running.Go(func() {
		for {
			select {
			case sig := <-signals:
				if sig != syscall.SIGHUP { // there is nothing left to reload for
					cancel()
				}
			case <-ctx.Done():
				return
			}
		}
	})
	if err := d.server.Shutdown(ctx); err != nil {
		d.log.Warn("connections closed without an answer", "error", err.Error())
	}
	return nil
}

// observe passes an event of the engine to everything that logs or counts.
func (d *daemon) observe(ev policy.Event) {
	if ev.Kind == policy.Lookup {
		// A lookup waits for this, and the other observers do not use it. The
		// history has only those that are new.
		if ev.First {
			d.history.Observe(ev)
		}
		d.monitor.Observe(ev)
		return
	}
	// Before the line in the log: a reader of the log may then look at the
	// others.
	d.history.Observe(ev)
	d.metrics.Observe(ev)
	d.monitor.Observe(ev)
	d.environment.observe(ev)
}

// answer is the socketmap handler. It goes through a pointer because a reload
// can replace what answers.
func (d *daemon) answer(ctx context.Context, r socketmap.Request) socketmap.Reply {
	return d.handler.Load().ServeSocketmap(ctx, r)
}

func (d *daemon) setHandler(cfg *config.Config) {
	d.handler.Store(&postfix.Handler{
		Engine:     d.engine,
		Bracketed:  cfg.Postfix.Bracketed,
		Maps:       d.counted(postfixMaps(cfg)),
		Attributes: &d.attributes,
		UnknownMap: func(name string) {
			d.limited.Warn("unknown socketmap name is answered as \"postfix\"", "map", name)
		},
	})
}

// setRelease makes replies for a release of Postfix; err is why it is unknown.
func (d *daemon) setRelease(release string, err error) {
	var r postfix.Release
	if err == nil {
		r, err = postfix.ParseRelease(release)
	}
	d.attributes.Store(r.Attributes())
	if err != nil {
		d.log.Warn("release of Postfix not known, replies have no policy attributes", "error", err.Error())
		return
	}
	d.log.Info("release of Postfix known", "release", release, "attributes", r.Attributes())
}

// watch answers the service manager's watchdog, by asking the daemon through
// its own sockets: a process that runs but does not answer is not alive.
// One that has no place left for the question, but answers others, is.
func (d *daemon) watch(ctx context.Context) {
	var answers int64
	err := systemd.Watchdog(ctx, func(within context.Context) error {
		before := answers
		err := pingAll(within, d.addrs)
		if answers = d.monitor.Answers(); answers != before {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			d.log.Error("the daemon does not answer itself", "error", err.Error())
		}
		return err
	})
	d.tell(err)
}

// tellStatus keeps the line of systemctl status true.
func (d *daemon) tellStatus(ctx context.Context) {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for {
		d.tell(systemd.Status(d.monitor.Summary() + d.overrides.trouble()))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// tell logs that a message to the service manager failed.
func (d *daemon) tell(err error) {
	if err != nil {
		d.log.Warn("service manager could not be told", "error", err.Error())
	}
}
