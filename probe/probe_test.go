package probe

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A bench is a bubble with a Prober in it. The test holds the mutex, except while
// time passes.
type bench struct {
	*Prober
	mu     sync.Mutex
	state  State // as last passed to apply
	resolv fake
	dnssec fake
	which  fake // release
	most   int  // runs of dnssec and which at one time
	now    int
}

// A fake is a probe that takes a second.
type fake struct {
	bench    *bench
	postconf bool
	result   Result
	err      error
	runs     int
}

func (f *fake) run(context.Context) (Result, error) {
	b := f.bench
	b.mu.Lock()
	f.runs++
	if f.postconf {
		b.now++
		b.most = max(b.most, b.now)
	}
	b.mu.Unlock()
	time.Sleep(time.Second)
	b.mu.Lock()
	defer b.mu.Unlock()
	if f.postconf {
		b.now--
	}
	return f.result, f.err
}

// inBench runs test in a bubble.
func inBench(t *testing.T, test func(*bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := new(bench)
		b.resolv.bench = b
		b.dnssec = fake{bench: b, postconf: true}
		b.which = fake{bench: b, postconf: true, result: Result{Release: "3.7.11"}}
		b.Prober = New(func(s State) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.state = s
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan bool)
		go func() {
			b.Run(ctx)
			close(ended)
		}()
		b.mu.Lock()
		test(b)
		b.mu.Unlock()
		cancel()
		<-ended
		if b.most > 1 {
			t.Errorf("%d postconf at one time", b.most)
		}
	})
}

// specs are those of an ordinary configuration, with the fakes.
func (b *bench) specs(key string) specs {
	return specs{
		resolver: spec{key: key, run: b.resolv.run, timeout: time.Minute, interval: resolverInterval, retry: resolverRetry, recovery: recoveryInterval},
		dnssec:   spec{run: b.dnssec.run, timeout: time.Minute, interval: postfixInterval, retry: postfixRetry},
		release:  spec{run: b.which.run, timeout: time.Minute, interval: postfixInterval, retry: postfixRetry},
	}
}

// pass lets time pass, and what is then due happen.
func (b *bench) pass(d time.Duration) {
	b.mu.Unlock()
	defer b.mu.Lock()
	time.Sleep(d)
	synctest.Wait()
}

// started is the time that all probes of a bench take: the resolver and one
// postconf at the same time, then the other postconf.
const started = 3 * time.Second

// TestIntervals: each probe runs at its intervals, and a changed result is passed
// on.
func TestIntervals(t *testing.T) {
	inBench(t, func(b *bench) {
		b.replace(b.specs(""))
		b.pass(0)
		if s := b.state; !s.Resolver.Pending() || !s.DNSSEC.Pending() || !s.Release.Pending() {
			t.Errorf("before a run ended: %+v", s)
		}
		b.pass(started)
		if s := b.state; !s.Resolver.Conclusive || !s.DNSSEC.Conclusive || s.Release.Release != "3.7.11" || s.Resolver.At.IsZero() {
			t.Errorf("at the start: %+v", s)
		}
		b.pass(3*time.Hour + time.Minute) // between two runs
		if b.resolv.runs < 3 || b.resolv.runs > 4 || b.dnssec.runs < 17 || b.dnssec.runs > 19 || b.which.runs < 17 || b.which.runs > 19 {
			t.Errorf("in three hours, %d runs for the resolver, %d for DNSSEC, %d for the release", b.resolv.runs, b.dnssec.runs, b.which.runs)
		}
		b.dnssec.result.Reason, b.resolv.result.Reason, b.which.result.Release = errors.New("p"), errors.New("r"), "3.10.13"
		b.pass(11 * time.Minute)
		if s := b.state; s.DNSSEC.Reason == nil || s.Release.Release != "3.10.13" || s.Resolver.Reason != nil {
			t.Errorf("Postfix was changed: %+v", s)
		}
		b.pass(time.Hour)
		if s := b.state; s.DNSSEC.Reason == nil || s.Resolver.Reason == nil {
			t.Errorf("so was the resolver: %+v", s)
		}
		runs := b.resolv.runs
		b.pass(10 * time.Minute)
		if n := b.resolv.runs - runs; n < 8 || n > 10 {
			t.Errorf("a resolver that does not validate was probed %d times in ten minutes", n)
		}
		b.resolv.result.Reason = nil
		b.pass(recoveryInterval + started)
		if s := b.state; s.Resolver.Reason != nil {
			t.Errorf("a minute after the resolver validates again: %+v", s)
		}
		b.dnssec.result.Reason = nil
		b.pass(2 * time.Hour)
		if s := b.state; s.DNSSEC.Reason != nil || s.Resolver.Reason != nil {
			t.Errorf("and back: %+v", s)
		}
	})
}

// TestFailures: after a failed run the next one follows soon, and the last
// result stays.
func TestFailures(t *testing.T) {
	inBench(t, func(b *bench) {
		b.resolv.err, b.which.err = errors.New("timeout"), errors.New("fatal")
		b.replace(b.specs(""))
		b.pass(started)
		if r := b.state.Resolver; r.Conclusive || r.Pending() || r.Err.Error() != "timeout" {
			t.Errorf("at the start: %+v", r)
		}
		b.pass(time.Minute)
		if b.resolv.runs < 5 || b.which.runs != 2 {
			t.Errorf("in a minute, %d runs for the resolver and %d for the release", b.resolv.runs, b.which.runs)
		}
		b.resolv.err, b.which.err = nil, nil
		b.pass(resolverRetry + 2*time.Second)
		if r := b.state.Resolver; !r.Conclusive || r.Err != nil {
			t.Errorf("it answers: %+v", r)
		}
		b.pass(postfixRetry)
		b.resolv.err, b.dnssec.err, b.which.err = errors.New("timeout"), errors.New("gone"), errors.New("fatal")
		b.pass(2 * time.Hour)
		if r := b.state.Resolver; !r.Conclusive || r.Reason != nil || r.Err.Error() != "timeout" || time.Since(r.At) < time.Hour {
			t.Errorf("it does not: %+v", r)
		}
		if r := b.state.Release; r.Release != "3.7.11" || r.Err.Error() != "fatal" {
			t.Errorf("the release: %+v", r)
		}
	})
}

// TestConfigure: another configuration is probed at once, and results for the old
// one are dropped; those for the same settings stay.
func TestConfigure(t *testing.T) {
	inBench(t, func(b *bench) {
		b.replace(b.specs("a"))
		b.pass(0)
		b.replace(specs{release: b.specs("").release}) // while runs are under way
		b.pass(started)
		if s := b.state; !s.Resolver.Pending() || !s.DNSSEC.Pending() || !s.Release.Conclusive {
			t.Errorf("off during a run: %+v", s)
		}
		runs := b.resolv.runs + b.dnssec.runs
		b.pass(24 * time.Hour)
		if b.resolv.runs+b.dnssec.runs != runs {
			t.Error("probes that are off run")
		}
		b.replace(b.specs("a"))
		b.pass(started)
		b.resolv.err = errors.New("timeout")
		b.replace(b.specs("a"))
		b.pass(started)
		if r := b.state.Resolver; !r.Conclusive || r.Err == nil {
			t.Errorf("the same resolver: %+v", r)
		}
		b.resolv.err = nil
		b.replace(b.specs("a"))
		b.pass(0)
		b.resolv.err = errors.New("timeout")
		b.replace(b.specs("b")) // during a run that would have a result for "a"
		b.pass(started)
		if r := b.state.Resolver; r.Conclusive || r.Err == nil {
			t.Errorf("another resolver: %+v", r)
		}
	})
}

// TestStorm: reloads while postconf runs have each probe run once more after it,
// and no postconf beside it.
func TestStorm(t *testing.T) {
	inBench(t, func(b *bench) {
		b.replace(b.specs(""))
		for range 500 {
			b.pass(time.Millisecond)
			b.replace(b.specs(""))
		}
		b.pass(time.Minute)
		if b.which.runs != 2 || b.dnssec.runs != 1 || b.resolv.runs != 2 {
			t.Errorf("a storm of half a second had %d, %d and %d runs, want 2 of the release and of the resolver, and 1 for DNSSEC, which had not begun",
				b.which.runs, b.dnssec.runs, b.resolv.runs)
		}
		for range 60_000 {
			b.pass(time.Millisecond)
			b.replace(b.specs(""))
		}
		if b.which.runs < 25 || b.dnssec.runs < 25 {
			t.Errorf("in a storm of a minute, %d runs of the release and %d for DNSSEC: one keeps the other from running", b.which.runs, b.dnssec.runs)
		}
	})
}

// TestRecheck: the resolver is probed again when asked for, but not all the time,
// and not if that probe is off.
func TestRecheck(t *testing.T) {
	inBench(t, func(b *bench) {
		b.RecheckResolver() // before there is a configuration
		b.pass(time.Second)
		b.replace(b.specs(""))
		b.pass(10 * time.Minute)
		before := b.resolv.runs
		for range 100 {
			b.RecheckResolver()
			b.pass(time.Second)
		}
		if got := b.resolv.runs - before; got < 1 || got > 3 {
			t.Errorf("%d runs in 100 seconds", got)
		}
		b.replace(specs{release: b.specs("").release})
		b.pass(time.Hour)
		before = b.resolv.runs
		b.RecheckResolver()
		b.pass(time.Hour)
		if b.resolv.runs != before {
			t.Error("a probe that is off runs")
		}
	})
}
