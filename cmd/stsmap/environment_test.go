package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/admin"
	"stsmap/config"
	"stsmap/dane"
	"stsmap/policy"
	"stsmap/probe"
	"stsmap/resolver"
)

// TestDANEStatus: DANE can be used if the mode allows it and both probes say yes,
// and all reasons against it are given.
func TestDANEStatus(t *testing.T) {
	yes := probe.Result{Conclusive: true}
	no := func(reason string) probe.Result { return probe.Result{Conclusive: true, Reason: errors.New(reason)} }
	failed := probe.Result{Err: errors.New("timeout")}
	for _, c := range []struct {
		name, mode       string
		dnssec, resolver probe.Result
		settled          bool
		state, why       string
	}{
		{"off", "off", yes, yes, false, "off", `dane.mode = "off"`},
		{"both pending", "precede", probe.Result{}, probe.Result{}, false, "unknown", "<nil>"},
		{"one pending", "precede", no("p"), probe.Result{}, false, "unknown", "<nil>"},
		{"on", "precede", yes, yes, false, "on", "<nil>"},
		{"all", "all", yes, yes, false, "on", "<nil>"},
		{"Postfix", "precede", no("p"), yes, false, "off", "p"},
		{"resolver", "precede", yes, no("r"), false, "off", "r"},
		{"both", "precede", no("p"), no("r"), false, "off", "p; and r"},
		{"failed", "precede", failed, failed, false, "off", "not known whether Postfix looks up DNSSEC: timeout; and not known whether the resolver validates: timeout"},
		{"failed later", "precede", probe.Result{Conclusive: true, Err: errors.New("timeout")}, yes, false, "on", "<nil>"},
		{"one pending, settled", "precede", no("p"), probe.Result{}, true, "off", "p"},
		{"the other pending, settled", "precede", probe.Result{}, no("r"), true, "off", "r"},
		{"both pending, settled", "precede", probe.Result{}, probe.Result{}, true, "unknown", "<nil>"},
		{"failed and pending, settled", "precede", failed, probe.Result{}, true, "unknown", "<nil>"},
		{"yes and pending, settled", "precede", yes, probe.Result{}, true, "unknown", "<nil>"},
	} {
		status, why := daneStatus(c.mode, probe.State{DNSSEC: c.dnssec, Resolver: c.resolver}, c.settled)
		if status.Mode != c.mode || status.State != c.state || fmt.Sprint(why) != c.why {
			t.Errorf("%s: %+v, %v, want %s, %s", c.name, status, why, c.state, c.why)
		}
		if c.state == "off" && c.mode != "off" && strings.Join(status.Reasons, "; and ") != c.why || c.mode == "off" && status.Reasons != nil {
			t.Errorf("%s: reasons %q", c.name, status.Reasons)
		}
	}
}

// A recorder is an environment whose effects are written down.
type recorder struct {
	*environment
	allowDANE, setRelease recorded
}

// recorded is what a function was called with.
type recorded struct {
	mu    sync.Mutex
	calls []string
}

func (r *recorded) add(args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, fmt.Sprint(args...))
}

func (r *recorded) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

func newRecorder(mode string) *recorder {
	r := new(recorder)
	r.environment = newEnvironment(
		func(why error) { r.allowDANE.add(why) },
		func(release string, err error) { r.setRelease.add(release, err) })
	r.mode, r.servers = mode, []string{"127.0.0.1"}
	return r
}

// TestEnvironmentSettles: what the configuration of Postfix decides about DANE does
// not wait for a resolver that does not answer, but its reasons are complete once
// that does.
func TestEnvironmentSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder("precede")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.settle(ctx, time.Second)
		no := func(reason string) probe.Result { return probe.Result{Conclusive: true, Reason: errors.New(reason)} }
		r.apply(probe.State{DNSSEC: no("p")})
		time.Sleep(time.Second - 1)
		synctest.Wait()
		if got := r.allowDANE.all(); len(got) > 0 {
			t.Errorf("decided at once: %q", got)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if got := r.allowDANE.all(); !slices.Equal(got, []string{"p"}) {
			t.Errorf("after a second: %q", got)
		}
		r.apply(probe.State{DNSSEC: no("p"), Resolver: no("r")})
		if got := r.allowDANE.all(); !slices.Equal(got, []string{"p", "p; and r"}) {
			t.Errorf("when the resolver answers: %q", got)
		}
	})
}

// TestEnvironmentRelease: each release is passed on once. A failure takes it away,
// and the next result gives it back.
func TestEnvironmentRelease(t *testing.T) {
	r := newRecorder("off")
	r.apply(probe.State{})
	for _, result := range []probe.Result{
		{Conclusive: true, Release: "3.7.11"}, {Conclusive: true, Release: "3.7.11"}, {Conclusive: true, Release: "3.10.13"},
		{Conclusive: true, Release: "3.10.13", Err: errors.New("fatal")}, {Conclusive: true, Release: "3.10.13", Err: errors.New("fatal")},
	} {
		r.apply(probe.State{Release: result})
	}
	var status admin.Status
	if r.describe(&status); status.Postfix.Release != "" || status.Postfix.Error != "fatal" {
		t.Errorf("the status says %+v", status.Postfix)
	}
	r.apply(probe.State{Release: probe.Result{Conclusive: true, Release: "3.10.13"}})
	if r.describe(&status); status.Postfix.Release != "3.10.13" || status.Postfix.Error != "" {
		t.Errorf("the status says %+v", status.Postfix)
	}
	if want := []string{"3.7.11<nil>", "3.10.13<nil>", "fatal", "3.10.13<nil>"}; !slices.Equal(r.setRelease.all(), want) {
		t.Errorf("passed on %q, want %q", r.setRelease.all(), want)
	}
}

// TestEnvironmentStatus: the status shows the last result with its time, why the
// last run failed, and since when DANE is on or off.
func TestEnvironmentStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder("precede")
		var status admin.Status
		r.describe(&status)
		if status.DANE.State != "unknown" || status.Resolver.Validates.Verdict != "unknown" {
			t.Errorf("at the start: %+v", status)
		}
		r.apply(probe.State{})
		if len(r.allowDANE.all()) > 0 {
			t.Errorf("the engine was told %q and nothing is known", r.allowDANE.all())
		}
		began := time.Now()
		good := probe.Result{Conclusive: true, At: began}
		r.apply(probe.State{Resolver: good, DNSSEC: probe.Result{Conclusive: true, Configured: true}})
		time.Sleep(2 * time.Hour)
		good.Err = errors.New("timeout")
		r.apply(probe.State{Resolver: good, DNSSEC: probe.Result{Conclusive: true, Configured: true, Err: errors.New("gone")}})
		r.describe(&status)
		if v := status.Resolver.Validates; v.Verdict != "yes" || v.Error != "timeout" || !v.At.Equal(began) {
			t.Errorf("the status says %+v", v)
		}
		if v := status.Postfix.DNSSEC; v.Verdict != "yes" || v.Error != "gone" || !v.At.IsZero() {
			t.Errorf("the status says %+v", v)
		}
		if d := status.DANE; d.State != "on" || !d.Since.Equal(began) || d.Mode != "precede" || status.Resolver.Servers[0] != "127.0.0.1" {
			t.Errorf("the status says %+v", status)
		}
		r.apply(probe.State{Resolver: probe.Result{Conclusive: true, Reason: errors.New("r")}, DNSSEC: good})
		r.describe(&status)
		if d := status.DANE; d.State != "off" || !slices.Equal(d.Reasons, []string{"r"}) || !d.Since.Equal(time.Now()) || status.Resolver.Validates.Reason != "r" {
			t.Errorf("the status says %+v", status)
		}
		if want := []string{"<nil>", "<nil>", "r"}; !slices.Equal(r.allowDANE.all(), want) {
			t.Errorf("the engine was told %q, want %q", r.allowDANE.all(), want)
		}
	})
}

// inEnvironment runs test in a bubble, with an environment whose resolver is
// validating, and that knows all else from its configuration.
func inEnvironment(t *testing.T, validating func() error, test func(*recorder)) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder("precede")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan bool)
		go func() {
			r.prober.Run(ctx)
			close(ended)
		}()
		r.prober.Configure(probe.Config{
			Validating: func(context.Context) error { return validating() }, ResolverTimeout: time.Minute, DNSSEC: "yes", Release: "3.10.5",
		})
		synctest.Wait()
		test(r)
		cancel()
		<-ended
	})
}

// TestEnvironmentOff: dane.mode = "off" counts at once, also while a probe runs.
func TestEnvironmentOff(t *testing.T) {
	inEnvironment(t, func() error { time.Sleep(10 * time.Second); return nil }, func(r *recorder) {
		if len(r.allowDANE.all()) > 0 {
			t.Errorf("the engine was told %q before the resolver answered", r.allowDANE.all())
		}
		cfg := config.Default()
		cfg.DANE.Mode, cfg.Postfix.Release = "off", "3.10.5"
		r.configure(&cfg, nil)
		synctest.Wait()
		if !slices.Equal(r.allowDANE.all(), []string{`dane.mode = "off"`}) {
			t.Errorf("the engine was told %q", r.allowDANE.all())
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if last := r.allowDANE.all(); last[len(last)-1] != `dane.mode = "off"` {
			t.Errorf("after the probe: %q", last)
		}
		var status admin.Status
		r.describe(&status)
		if status.DANE.State != "off" || status.Resolver.Validates != (admin.ProbeResult{}) || status.Postfix.DNSSEC != (admin.ProbeResult{}) || status.Resolver.Servers[0] != "/etc/resolv.conf" {
			t.Errorf("the status says %+v", status)
		}
	})
}

// TestEnvironmentObserve: a domain that was secure and no longer is has the
// resolver probed, and nothing else has.
func TestEnvironmentObserve(t *testing.T) {
	secure, insecure := &dane.Result{MXSecure: true}, new(dane.Result)
	for _, c := range []struct {
		ev     policy.Event
		probed bool
	}{
		{policy.Event{Kind: policy.DANEChecked, DANE: insecure, DANEBefore: secure}, true},
		{policy.Event{Kind: policy.DANEChecked, DANE: insecure, DANEBefore: insecure}, false},
		{policy.Event{Kind: policy.DANEChecked, DANE: insecure}, false},
		{policy.Event{Kind: policy.DANEChecked, DANE: secure, DANEBefore: insecure}, false},
		{policy.Event{Kind: policy.DANEFailed, DANEBefore: secure}, false},
	} {
		var runs atomic.Int64
		inEnvironment(t, func() error { runs.Add(1); return nil }, func(r *recorder) {
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			before := runs.Load()
			for range 100 {
				r.observe(c.ev)
				time.Sleep(time.Second)
				synctest.Wait()
			}
			if got := runs.Load() - before; !c.probed && got != 0 || c.probed && (got < 1 || got > 3) {
				t.Errorf("%+v: probed %d times in 100 seconds", c.ev, got)
			}
		})
	}
}

// TestEnvironmentWait: the first answer waits until the release is known, and not
// for longer than its limit.
func TestEnvironmentWait(t *testing.T) {
	inEnvironment(t, func() error { return nil }, func(r *recorder) {
		began := time.Now()
		r.waitRelease(context.Background(), time.Hour)
		if time.Since(began) != 0 || !slices.Equal(r.setRelease.all(), []string{"3.10.5<nil>"}) {
			t.Errorf("waited %s, passed on %q", time.Since(began), r.setRelease.all())
		}
		began = time.Now()
		newRecorder("off").waitRelease(context.Background(), time.Second)
		if took := time.Since(began); took != time.Second {
			t.Errorf("waited %s", took)
		}
	})
}

// TestProbeConfig: without DANE only the release is probed, and the results for a
// resolver do not outlive a change of its settings.
func TestProbeConfig(t *testing.T) {
	cfg := config.Default()
	cfg.Postfix.ConfigDirectory = "/etc/postfix-out"
	on := probeConfig(&cfg, new(resolver.Resolver))
	if on.Validating == nil || on.DNSSEC != "auto" || on.Release != "auto" || on.ConfigDirectory != "/etc/postfix-out" || on.ResolverTimeout != cfg.DNS.Timeout {
		t.Errorf("%+v", on)
	}
	cfg.DNS.TrustAD = "yes"
	if other := probeConfig(&cfg, new(resolver.Resolver)); other.ResolverKey == on.ResolverKey {
		t.Error("dns.trust_ad does not matter")
	}
	cfg.DNS.TrustAD, cfg.DNS.Servers = "auto", []string{"192.0.2.1"}
	if other := probeConfig(&cfg, new(resolver.Resolver)); other.ResolverKey == on.ResolverKey {
		t.Error("dns.servers does not matter")
	}
	cfg.DANE.Mode = "off"
	if off := probeConfig(&cfg, nil); off.Validating != nil || off.DNSSEC != "" || off.Release != "auto" {
		t.Errorf("%+v", off)
	}
}
