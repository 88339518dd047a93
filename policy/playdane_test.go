package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing/synctest"
	"time"

	"stsmap/dane"
	"stsmap/sts"
)

// check is what dane.Check is in earnest.
func (n *fakeDomain) check(ctx context.Context, _ dane.NextHop) (dane.Result, error) {
	n.mu.Lock()
	n.checks++
	r, err, delay := n.result, n.resultErr, n.daneDelay
	n.mu.Unlock()
	if wait := pause(ctx, delay); wait != nil {
		return dane.Result{}, slowness{}
	}
	return r, err
}

// doDANE performs the commands about DANE.
func (n *fakeDomain) doDANE(verb string, args []string) error {
	switch verb {
	case "danedelay":
		d, err := time.ParseDuration(args[0])
		n.set(func(n *fakeDomain) { n.daneDelay = d })
		return err
	case "checked":
		synctest.Wait()
		n.mu.Lock()
		defer n.mu.Unlock()
		got := strconv.Itoa(n.checks)
		n.checks = 0
		if got != args[0] {
			return fmt.Errorf("%s checks", got)
		}
		return nil
	}
	r, err := parseResult(args)
	if f, fails := errors.AsType[failing](err); fails {
		err = f.error
	} else if err != nil {
		return err
	}
	n.set(func(n *fakeDomain) { n.result, n.resultErr = r, err })
	if args[0] == "hangs" {
		n.set(func(n *fakeDomain) { n.daneDelay = time.Hour })
	}
	return nil
}

// retrieve performs the command of that name.
func (s *stage) retrieve(args []string) error {
	known := len(args) > 0 && args[0] == "known"
	if known {
		args = args[1:]
	}
	e, err := s.engine.Retrieve(context.Background(), "example.com", known)
	if err != nil {
		return err
	}
	synctest.Wait()
	got := "none"
	if p, err := sts.ParsePolicy([]byte(e.Policy)); err == nil {
		got = p.Mode.String()
	}
	if want := strings.Join(args[1:], " "); got != args[0] || !strings.Contains(e.Error, want) {
		return fmt.Errorf("%s, %q", got, e.Error)
	}
	return nil
}

// failing is how a check can fail.
type failing struct{ error }

// parseResult reads what DNS says about DANE. The error of a check that fails
// is failing.
func parseResult(words []string) (dane.Result, error) {
	r := dane.Result{MXSecure: true, TTL: time.Hour}
	for i, word := range words {
		h := dane.Host{Name: fmt.Sprintf("mx%d.example.com", i+1)}
		ttl, isTTL := strings.CutPrefix(word, "ttl=")
		switch {
		case isTTL:
			d, err := time.ParseDuration(ttl)
			if err != nil {
				return r, err
			}
			r.TTL = d
			continue
		case word == "insecure":
			r.MXSecure = false
			continue
		case word == "nomail":
			r.NoMail = true
			continue
		case word == "fails":
			return dane.Result{}, failing{errors.New("example.com MX: SERVFAIL")}
		case word == "silent", word == "hangs":
			return dane.Result{}, failing{slowness{}}
		}
		states := []string{"none", "usable", "unusable", "failed", "absent", "unresolved"}
		state := slices.Index(states, word)
		if state < 0 {
			return r, fmt.Errorf("unknown word %q", word)
		}
		switch h.State = dane.State(state); h.State {
		case dane.Failed, dane.Unusable, dane.Unresolved:
			h.Err = fmt.Errorf("%s is %s", h.Name, word)
		}
		r.Hosts = append(r.Hosts, h)
	}
	return r, nil
}
