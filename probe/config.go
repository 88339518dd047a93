package probe

import (
	"context"
	"errors"
	"fmt"
	"time"

	"stsmap/postfix/postconf"
	"stsmap/resolver"
)

const (
	// resolverInterval is between two probes of a resolver that validates, and
	// recoveryInterval of one that does not: it may have been restarted just then,
	// and mail goes without DANE meanwhile.
	resolverInterval = time.Hour
	recoveryInterval = time.Minute
	postfixInterval  = 10 * time.Minute
	// resolverRetry and postfixRetry are how soon a probe runs again after it
	// had no result.
	resolverRetry = 10 * time.Second
	postfixRetry  = time.Minute
	// postfixTimeout is long for postconf: it waits until a main.cf that was
	// just written is two seconds old.
	postfixTimeout = 10 * time.Second
	// recheckInterval is the shortest time between two probes of the resolver
	// that RecheckResolver asks for.
	recheckInterval = time.Minute
)

// A Config says what to probe.
type Config struct {
	// Validating probes the resolver, as resolver.Resolver.Validating does; nil
	// switches that probe off.
	Validating func(context.Context) error
	// ResolverKey names the settings of the resolver. Results for another key
	// are dropped.
	ResolverKey string
	// ResolverTimeout bounds one probe of the resolver. It must be set if
	// Validating is.
	ResolverTimeout time.Duration
	// DNSSEC is postfix.dnssec: "yes" and "no" are results, "auto" asks postconf,
	// and "" switches the probe off.
	DNSSEC string
	// Release is postfix.release: "auto" asks postconf, anything else is the
	// result.
	Release string
	// ConfigDirectory is that of Postfix; empty means the default of postconf.
	ConfigDirectory string
}

// A spec says how to run a probe. Without run there is only the fixed result.
type spec struct {
	key             string // results for another key are dropped
	run             func(context.Context) (Result, error)
	fixed           Result
	timeout         time.Duration
	interval, retry time.Duration // to the next run after a result, and after none
	recovery        time.Duration // to the next run after the result "no"; 0: interval
}

type specs struct{ resolver, dnssec, release spec }

// A reason is why the result of a probe is no.
type reason string

// Error implements error.
func (r reason) Error() string { return string(r) }

func (c Config) specs() specs {
	var s specs
	if c.Validating != nil {
		s.resolver = spec{key: c.ResolverKey, run: c.probeResolver, timeout: c.ResolverTimeout, interval: resolverInterval, retry: resolverRetry, recovery: recoveryInterval}
	}
	s.dnssec = spec{key: c.DNSSEC + " " + c.ConfigDirectory, timeout: postfixTimeout, interval: postfixInterval, retry: postfixRetry}
	s.release = spec{key: c.Release + " " + c.ConfigDirectory, timeout: postfixTimeout, interval: postfixInterval, retry: postfixRetry}
	switch c.DNSSEC {
	case "auto":
		s.dnssec.run = c.probeDNSSEC
	case "yes", "no":
		s.dnssec.fixed = Result{Conclusive: true, Configured: true}
		if c.DNSSEC == "no" {
			s.dnssec.fixed.Reason = reason(`Postfix does not look up DNSSEC: postfix.dnssec = "no"`)
		}
	}
	if c.Release == "auto" {
		s.release.run = c.probeRelease
	} else {
		s.release.fixed = Result{Conclusive: true, Configured: true, Release: c.Release}
	}
	return s
}

// Once runs each probe of c once, and returns the results.
func Once(ctx context.Context, c Config) State {
	s := c.specs()
	return State{Resolver: s.resolver.once(ctx), DNSSEC: s.dnssec.once(ctx), Release: s.release.once(ctx)}
}

func (s spec) once(ctx context.Context) Result {
	only := slot{spec: s, result: s.fixed}
	if s.run != nil {
		ctx, cancel := context.WithTimeout(ctx, s.timeout)
		defer cancel()
		result, err := s.run(ctx)
		only.finish(outcome{key: s.key, result: result, err: err})
	}
	return only.result
}

func (c Config) probeResolver(ctx context.Context) (Result, error) {
	err := c.Validating(ctx)
	if errors.Is(err, resolver.ErrNotValidating) {
		return Result{Reason: err}, nil
	}
	return Result{}, err
}

func (c Config) probeDNSSEC(ctx context.Context) (Result, error) {
	found, err := postconf.Detect(ctx, c.ConfigDirectory)
	switch {
	case err != nil:
		return Result{}, fmt.Errorf("%w; set postfix.dnssec", err)
	case !found.DNSSEC:
		return Result{Reason: reason("Postfix does not look up DNSSEC: " + found.Why + "; see stsmap-postfix(7)")}, nil
	}
	return Result{}, nil
}

func (c Config) probeRelease(ctx context.Context) (Result, error) {
	release, err := postconf.DetectRelease(ctx, c.ConfigDirectory)
	if err != nil {
		return Result{}, fmt.Errorf("%w; set postfix.release", err)
	}
	return Result{Release: release}, nil
}
