package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/resolver"
)

// TestConfigured: a setting is a result, without running anything.
func TestConfigured(t *testing.T) {
	t.Setenv("PATH", fakePostconf(t, "echo >>"+filepath.Join(t.TempDir(), "ran")))
	for _, c := range []struct{ dnssec, release, reason string }{
		{"yes", "3.10.5", ""},
		{"no", "3.4", `Postfix does not look up DNSSEC: postfix.dnssec = "no"`},
	} {
		s := probed(t, Config{DNSSEC: c.dnssec, Release: c.release}, func(State) bool { return true })
		if !s.DNSSEC.Conclusive || !s.DNSSEC.Configured || !s.DNSSEC.At.IsZero() || text(s.DNSSEC.Reason) != c.reason {
			t.Errorf("%+v: %+v", c, s.DNSSEC)
		}
		if s.Release.Release != c.release || !s.Release.Configured || !s.Release.Conclusive || !s.Resolver.Pending() {
			t.Errorf("%+v: %+v", c, s)
		}
	}
	if s := probed(t, Config{Release: "3.4"}, func(State) bool { return true }); !s.DNSSEC.Pending() {
		t.Errorf("a probe that is off: %+v", s.DNSSEC)
	}
}

// A probeCase is a postconf and a resolver, and the results of probing them.
type probeCase struct {
	name, script            string
	validating              error
	release, releaseErr     string
	dnssec, dnssecErr       string // why not
	validates, validatesErr string // why not
}

// TestProbes: what postconf and the resolver say is the result, and the hint with
// an error names the setting.
func TestProbes(t *testing.T) {
	const dnssec = `echo mail_version = 3.10.5; echo smtp_host_lookup = dns; `
	for _, c := range []probeCase{
		{name: "well", script: `case "$*" in *-M*|*-P*) exit;; *-d*) echo mail_version = 3.10.5; exit;; esac; ` + dnssec + `echo smtp_dns_support_level = dnssec`, release: "3.10.5"},
		{name: "not validating", script: `case "$*" in *-M*|*-P*) exit;; *-d*) echo mail_version = 3.10.5; exit;; esac; ` + dnssec + `echo smtp_dns_support_level =`, release: "3.10.5",
			validating: fmt.Errorf("127.0.0.1: %w", resolver.ErrNotValidating), dnssec: "Postfix does not look up DNSSEC: main.cf: smtp_dns_support_level is not set; see stsmap-postfix(7)",
			validates: "127.0.0.1: " + resolver.ErrNotValidating.Error()},
		{name: "failing", script: "echo postconf: fatal: x >&2; exit 1", validating: errors.New("timeout"), validatesErr: "timeout",
			releaseErr: "postconf: fatal: x; set postfix.release", dnssecErr: "postconf: fatal: x; set postfix.dnssec"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("PATH", fakePostconf(t, c.script)+":"+os.Getenv("PATH"))
			config := Config{
				DNSSEC: "auto", Release: "auto", ResolverTimeout: time.Minute,
				Validating: func(context.Context) error { return c.validating },
			}
			s := probed(t, config, func(s State) bool { return !s.Resolver.Pending() && !s.DNSSEC.Pending() && !s.Release.Pending() })
			checkProbes(t, s, c)
			checkProbes(t, Once(t.Context(), config), c)
		})
	}
}

// checkProbes holds s against a case of TestProbes.
func checkProbes(t *testing.T, s State, c probeCase) {
	t.Helper()
	if s.Release.Release != c.release || text(s.Release.Err) != c.releaseErr {
		t.Errorf("release: %+v", s.Release)
	}
	if text(s.DNSSEC.Reason) != c.dnssec || text(s.DNSSEC.Err) != c.dnssecErr {
		t.Errorf("DNSSEC: %+v", s.DNSSEC)
	}
	if text(s.Resolver.Reason) != c.validates || text(s.Resolver.Err) != c.validatesErr {
		t.Errorf("resolver: %+v", s.Resolver)
	}
}

// TestStormOfPostconf: 300 reloads while a real postconf runs start no second one
// beside it, and few afterwards.
func TestStormOfPostconf(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", fakePostconf(t, `cd `+dir+`
mkdir running 2>/dev/null || echo >>overlap
echo >>ran
sleep 0.05
rmdir running
case "$*" in *-M*|*-P*) exit;; *-d*) echo mail_version = 3.10.5; exit;; esac
echo mail_version = 3.10.5; echo smtp_host_lookup = dns; echo smtp_dns_support_level = dnssec`)+":"+os.Getenv("PATH"))
	states := make(chan State, 10_000)
	p := New(func(s State) { states <- s })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan bool)
	go func() {
		p.Run(ctx)
		close(ended)
	}()
	for range 300 {
		p.Configure(Config{DNSSEC: "auto", Release: "auto"})
		time.Sleep(time.Millisecond)
	}
	s := <-states
	for s.DNSSEC.Pending() || s.Release.Pending() {
		s = <-states
	}
	if !s.DNSSEC.Conclusive || !s.Release.Conclusive {
		t.Errorf("after the storm: %+v", s)
	}
	cancel()
	<-ended
	if _, err := os.Stat(filepath.Join(dir, "overlap")); err == nil {
		t.Error("a postconf ran beside another")
	}
	ran, err := os.ReadFile(filepath.Join(dir, "ran"))
	if n := len(ran); err != nil || n > 50 {
		t.Errorf("postconf ran %d times for 300 reloads, %v", n, err)
	}
}

// fakePostconf returns a directory with a postconf that is a shell script.
func fakePostconf(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "postconf"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// probed returns the first state of c that done accepts.
func probed(t *testing.T, c Config, done func(State) bool) State {
	t.Helper()
	states := make(chan State)
	ctx, cancel := context.WithCancel(t.Context())
	p := New(func(s State) {
		select {
		case states <- s:
		case <-ctx.Done():
		}
	})
	ended := make(chan bool)
	go func() {
		p.Run(ctx)
		close(ended)
	}()
	p.Configure(c)
	s := <-states
	for !done(s) {
		s = <-states
	}
	cancel()
	<-ended
	return s
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return strings.TrimSpace(err.Error())
}

// TestResolverRecovers: a resolver that does not validate is probed again soon.
func TestResolverRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var validates atomic.Bool
		var last atomic.Pointer[State]
		p := New(func(s State) { last.Store(&s) })
		p.Configure(Config{ResolverTimeout: time.Second, Validating: func(context.Context) error {
			if !validates.Load() {
				return fmt.Errorf("%w: not yet", resolver.ErrNotValidating)
			}
			return nil
		}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); p.Run(ctx) }()
		time.Sleep(time.Second)
		synctest.Wait()
		if r := last.Load().Resolver; r.Reason == nil {
			t.Errorf("at first: %+v", r)
		}
		validates.Store(true)
		time.Sleep(recoveryInterval)
		synctest.Wait()
		if r := last.Load().Resolver; r.Reason != nil {
			t.Errorf("a minute later: %+v", r)
		}
		cancel()
		<-done
	})
}
