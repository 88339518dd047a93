// Package probe periodically probes the environment of the daemon: whether the
// resolver validates DNSSEC, whether Postfix looks up DNSSEC, and which release of
// Postfix sends the lookups. Administrators change these without a word to the
// daemon, so each is probed again and again.
//
// It decides nothing: what a result means for DANE and for replies is up to the
// caller. It never runs more than one postconf(1) at a time.
package probe

import (
	"context"
	"sync"
	"time"
)

// A Result is what a probe knows. The zero Result is that of a probe that is off,
// or has not ended yet.
type Result struct {
	// Conclusive reports that a run had a result. What follows is the last one;
	// it stays if later runs fail.
	Conclusive bool
	// Reason is why the answer is no; nil means yes.
	Reason error
	// Release is that of Postfix, such as "3.7.11"; empty for other probes.
	Release string
	// Configured reports that the result is a setting and nothing was run.
	Configured bool
	// At is when the result was found; zero if Configured.
	At time.Time
	// Err is why the last run had no result; nil if it had one.
	Err error
}

// Pending reports that no run has ended yet, or that the probe is off.
func (r Result) Pending() bool { return !r.Conclusive && r.Err == nil }

// A State has the result of each probe.
type State struct {
	Resolver Result // Resolver is whether the resolver validates.
	DNSSEC   Result // DNSSEC is whether Postfix looks up DNSSEC.
	Release  Result // Release is which release of Postfix is installed.
}

// A Prober runs the probes. Its methods may be used concurrently, except for
// Configure.
type Prober struct {
	apply    func(State)
	changed  chan specs    // holds one, the latest
	recheck  chan struct{} // holds one
	finished chan outcome

	resolver, dnssec, release slot // owned by the goroutine of Run
}

// New returns a Prober without a configuration. Run calls apply after each change
// of the configuration or of a result, and may do so without one.
func New(apply func(State)) *Prober {
	return &Prober{apply: apply, changed: make(chan specs, 1), recheck: make(chan struct{}, 1), finished: make(chan outcome)}
}

// Configure replaces what is probed, and has all of it probed at once, or once
// more after a run that is under way. It does not wait. It may not be called
// concurrently.
func (p *Prober) Configure(c Config) { p.replace(c.specs()) }

func (p *Prober) replace(next specs) {
	select {
	case <-p.changed:
	default:
	}
	p.changed <- next
}

// RecheckResolver has the resolver probed again soon, at most once a minute. It
// does not wait.
func (p *Prober) RecheckResolver() {
	select {
	case p.recheck <- struct{}{}:
	default:
	}
}

// Run probes until ctx is done. It may be called once.
func (p *Prober) Run(ctx context.Context) {
	var runs sync.WaitGroup
	defer runs.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-p.finished:
			o.slot.finish(o)
		case next := <-p.changed:
			p.resolver.configure(next.resolver)
			p.dnssec.configure(next.dnssec)
			p.release.configure(next.release)
		case <-p.recheck:
			p.resolver.hasten(p.resolver.started.Add(recheckInterval))
		case <-timer.C:
		}
		p.apply(State{Resolver: p.resolver.result, DNSSEC: p.dnssec.result, Release: p.release.result})
		timer.Reset(p.start(ctx, &runs))
	}
}

// start begins the runs that are due, and returns the time until the next one is.
func (p *Prober) start(ctx context.Context, runs *sync.WaitGroup) time.Duration {
	wait := p.resolver.start(ctx, p.finished, runs)
	// These run postconf, so they take turns, also with a run that was started
	// for an earlier configuration.
	first, second := &p.release, &p.dnssec
	if second.started.Before(first.started) {
		first, second = second, first
	}
	for _, s := range []*slot{first, second} {
		if !first.running && !second.running {
			wait = min(wait, s.start(ctx, p.finished, runs))
		}
	}
	return wait
}

// A slot is a probe with its result. It outlives configurations, so that a new
// one does not start a second run beside one that is under way.
type slot struct {
	spec
	result  Result
	running bool // a run is under way, maybe that of an earlier spec
	started time.Time
	next    time.Time // of the next run
}

// An outcome is how a run ended.
type outcome struct {
	slot   *slot
	key    string
	result Result
	err    error
}

// start begins a run of s if one is due, and returns the time until the next one
// is.
func (s *slot) start(ctx context.Context, finished chan<- outcome, runs *sync.WaitGroup) time.Duration {
	if s.run == nil || s.running {
		return time.Hour // configure and finish come first
	}
	if left := time.Until(s.next); left > 0 {
		return left
	}
	s.running, s.started, s.next = true, time.Now(), time.Now().Add(s.timeout+s.interval)
	spec := s.spec
	runs.Go(func() {
		within, cancel := context.WithTimeout(ctx, spec.timeout)
		defer cancel()
		result, err := spec.run(within)
		select {
		case finished <- outcome{s, spec.key, result, err}:
		case <-ctx.Done():
		}
	})
	return time.Hour
}

// configure replaces the spec of s. Its result stays if the key does.
func (s *slot) configure(next spec) {
	if next.key != s.key || next.run == nil {
		s.result = next.fixed
	}
	s.spec, s.next = next, time.Now()
}

// finish records the result of a run. A failed run keeps the last result: if
// DNS is down, that does not mean that the resolver stopped validating.
func (s *slot) finish(o outcome) {
	s.running = false
	if s.run == nil || o.key != s.key {
		return // of an earlier configuration; next is the time of the first run of this one
	}
	now := time.Now()
	if s.result.Err = o.err; o.err != nil {
		s.hasten(now.Add(s.retry))
		return
	}
	s.result = o.result
	s.result.Conclusive, s.result.At = true, now
	interval := s.interval
	if s.result.Reason != nil && s.recovery > 0 {
		interval = s.recovery
	}
	s.hasten(now.Add(interval))
}

// hasten moves the next run to at, if it would be later.
func (s *slot) hasten(at time.Time) {
	if at.Before(s.next) {
		s.next = at
	}
}
