package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"stsmap/admin"
	"stsmap/config"
	"stsmap/policy"
	"stsmap/probe"
	"stsmap/resolver"
)

// An environment passes on what the probes find: to the engine, whether DANE can
// be used, to the replies, which release of Postfix reads them, and to the status.
type environment struct {
	prober    *probe.Prober
	allowDANE func(why error)     // policy.Engine.AllowDANE
	release   func(string, error) // called with the release, or why it is unknown
	known     chan struct{}       // closed when release was called for the first time
	last      string              // what release was called with, owned by apply

	passing sync.Mutex // orders calls of allowDANE

	mu      sync.Mutex
	mode    string   // dane.mode
	servers []string // dns.servers
	state   probe.State
	settled bool // a pending probe is not waited for if another one has decided
	dane    admin.DANEStatus
}

func newEnvironment(allowDANE func(error), release func(string, error)) *environment {
	e := &environment{allowDANE: allowDANE, release: release, known: make(chan struct{}), dane: admin.DANEStatus{State: "unknown"}}
	e.prober = probe.New(e.apply)
	return e
}

// configure has the environment probed for a configuration. It may not be called
// concurrently.
func (e *environment) configure(cfg *config.Config, r *resolver.Resolver) {
	e.mu.Lock()
	e.mode, e.servers = cfg.DANE.Mode, cfg.DNS.Servers
	if len(e.servers) == 0 {
		e.servers = []string{"/etc/resolv.conf"}
	}
	e.mu.Unlock()
	e.prober.Configure(probeConfig(cfg, r))
}

// probeConfig says what to probe: without DANE, only the release.
func probeConfig(cfg *config.Config, r *resolver.Resolver) probe.Config {
	c := probe.Config{Release: cfg.Postfix.Release, ConfigDirectory: cfg.Postfix.ConfigDirectory}
	if cfg.DANE.Mode != "off" {
		c.Validating, c.ResolverTimeout = r.Validating, cfg.DNS.Timeout
		c.ResolverKey = fmt.Sprint(cfg.DNS.Servers, cfg.DNS.TrustAD, cfg.DNS.CAFile)
		c.DNSSEC = cfg.Postfix.DNSSEC
	}
	return c
}

// observe has the resolver probed if it may have stopped validating: a domain that
// was secure no longer is. That can be the doing of the domain as well.
func (e *environment) observe(ev policy.Event) {
	if ev.Kind == policy.DANEChecked && ev.DANEBefore != nil && ev.DANEBefore.MXSecure && !ev.DANE.MXSecure {
		e.prober.RecheckResolver()
	}
}

// waitRelease waits until the release is known or known to be unknown, for limit at
// most: the words that every release understands will do.
func (e *environment) waitRelease(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case <-e.known:
	case <-ctx.Done():
	}
}

// settle waits for limit, and from then on for no probe that is pending if the
// other one says that DANE is off: a resolver that does not answer must not delay
// what Postfix's configuration has decided.
func (e *environment) settle(ctx context.Context, limit time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(limit):
		e.applyDANE(func() { e.settled = true })
	}
}

// apply passes on the results of the probes.
func (e *environment) apply(state probe.State) {
	e.applyDANE(func() { e.state = state })
	e.applyRelease(state.Release)
}

// applyDANE passes on whether DANE can be used after change, which is called with
// the lock held.
func (e *environment) applyDANE(change func()) {
	e.passing.Lock()
	defer e.passing.Unlock()
	e.mu.Lock()
	change()
	dane, why := daneStatus(e.mode, e.state, e.settled)
	dane.Since = e.dane.Since
	if dane.State != e.dane.State || !slices.Equal(dane.Reasons, e.dane.Reasons) {
		dane.Since = time.Now()
	}
	e.dane = dane
	e.mu.Unlock()
	if dane.State != "unknown" {
		e.allowDANE(why)
	}
}

// applyRelease passes on the release. A failure takes an earlier release away: what
// was Postfix 3.10 may be 3.7 again, which defers mail for attributes that only the
// other understands.
func (e *environment) applyRelease(r probe.Result) {
	if r.Pending() {
		return
	}
	if r.Err != nil {
		r.Release = ""
	}
	if now := fmt.Sprint(r.Release, r.Err); now != e.last {
		e.last = now
		e.release(r.Release, r.Err)
	}
	select {
	case <-e.known:
	default:
		close(e.known)
	}
}

// daneStatus returns whether DANE can be used; unknown as long as a probe is
// pending, unless it has settled and the other one says that it cannot. The error
// has all the reasons.
func daneStatus(mode string, state probe.State, settled bool) (status admin.DANEStatus, why error) {
	status = admin.DANEStatus{Mode: mode, State: "off"}
	if mode == "off" {
		return status, admin.ErrDANEMode
	}
	pending, decided := false, false
	for _, p := range []struct {
		about string
		probe.Result
	}{{"whether Postfix looks up DNSSEC", state.DNSSEC}, {"whether the resolver validates", state.Resolver}} {
		switch {
		case p.Pending():
			pending = true
		case !p.Conclusive:
			status.Reasons = append(status.Reasons, fmt.Sprintf("not known %s: %v", p.about, p.Err))
		case p.Reason != nil:
			status.Reasons = append(status.Reasons, p.Reason.Error())
			decided = true
		}
	}
	if pending && (!settled || !decided) {
		return admin.DANEStatus{Mode: mode, State: "unknown"}, nil
	}
	if len(status.Reasons) == 0 {
		status.State = "on"
		return status, nil
	}
	return status, errors.New(strings.Join(status.Reasons, "; and "))
}

// describe fills the sections of a status that are about the environment.
func (e *environment) describe(status *admin.Status) {
	e.mu.Lock()
	defer e.mu.Unlock()
	status.DANE = e.dane
	status.Resolver = admin.ResolverStatus{Servers: e.servers}
	status.Postfix = admin.PostfixStatus{}
	if e.mode != "off" {
		status.Resolver.Validates, status.Postfix.DNSSEC = verdict(e.state.Resolver), verdict(e.state.DNSSEC)
	}
	if r := e.state.Release; r.Err != nil {
		status.Postfix.Error = r.Err.Error()
	} else {
		status.Postfix.Release = r.Release
	}
}

// verdict is what a status says of a result.
func verdict(r probe.Result) admin.ProbeResult {
	f := admin.ProbeResult{Verdict: "unknown", At: r.At}
	if r.Err != nil {
		f.Error = r.Err.Error()
	}
	switch {
	case r.Conclusive && r.Reason != nil:
		f.Verdict, f.Reason = "no", r.Reason.Error()
	case r.Conclusive:
		f.Verdict = "yes"
	}
	return f
}
