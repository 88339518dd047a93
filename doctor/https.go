package doctor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"stsmap/stsfetch"
)

// checkHTTPS is LOC-08.
func checkHTTPS(ctx context.Context, e *exam) []Result {
	return append(append(e.anchors(), e.retrieve(ctx)...), e.clock()...)
}

// anchors is about the certification authorities for policy hosts.
func (e *exam) anchors() []Result {
	const why = "no policy is ever retrieved"
	if path := e.Settings.Fetch.CAFile; path != "" {
		var read stsfetch.AnchorsRead
		if _, err := stsfetch.FileAnchors(path, func(r stsfetch.AnchorsRead) { read = r }); err != nil {
			return []Result{fail("fetch.ca_file: %v", err).because(why).fix("# in " + e.fileName() + ": remove fetch.ca_file")}
		}
		all := []Result{ok("fetch.ca_file: %s has %s", path, authorities(read.Count))}
		for _, err := range read.Skipped {
			all = append(all, warn("fetch.ca_file: %s: %v", path, err).because("it is ignored").fix("# replace or remove that certificate"))
		}
		return all
	}
	if read := stsfetch.SystemAnchors(nil).Reload(); read.Err != nil {
		return []Result{fail("this system has no certification authorities: %v", read.Err).because(why).fix("# install the package ca-certificates")}
	}
	return []Result{ok("this system has certification authorities")}
}

// retrieve tries policy hosts. One that fails can have itself to blame; if all
// do, it is something here.
func (e *exam) retrieve(ctx context.Context) []Result {
	if len(e.domains) == 0 {
		return []Result{skip("no policy host is known to try; name a domain with a policy: stsmap doctor --domain DOMAIN")}
	}
	errs := make([]error, len(e.domains))
	var trying sync.WaitGroup
	for i, domain := range e.domains {
		trying.Go(func() { _, _, errs[i] = e.Fetcher.Policy(ctx, domain) })
	}
	trying.Wait()
	var worked []string
	var all []Result
	for i, domain := range e.domains {
		if errs[i] == nil {
			worked = append(worked, "mta-sts."+domain)
			continue
		}
		all = append(all, e.judgeFetch(domain, errs[i]))
	}
	if len(worked) > 0 {
		for i := range all { // it is not us
			all[i].Severity, all[i].Fix = Info, ""
		}
		through := ""
		if e.Settings.Fetch.Proxy != "" {
			through = ", through the proxy"
		}
		return append(all, ok("a policy was retrieved over HTTPS%s from %s", through, strings.Join(worked, ", ")))
	}
	if len(all) > 1 {
		for i := range all {
			all[i].Severity = Fail
		}
	}
	return all
}

// judgeFetch says what can be the matter with a retrieval.
func (e *exam) judgeFetch(domain string, err error) Result {
	f := warn("mta-sts.%s: %v", domain, err).because("policies that cannot be retrieved protect nobody; those that are known hold until they expire")
	step := stsfetch.Step("")
	if failure, ok := errors.AsType[*stsfetch.Error](err); ok {
		step = failure.Step
	}
	probe := "curl -v https://mta-sts." + quoted(domain) + "/.well-known/mta-sts.txt"
	switch step {
	case stsfetch.StepCert:
		return f.fix("# is the clock right? It says "+time.Now().UTC().Format(time.RFC3339), probe)
	case stsfetch.StepConnect, stsfetch.StepTimeout:
		if e.Settings.Fetch.Proxy != "" {
			return f.fix("# in "+e.fileName()+": is fetch.proxy right, and lets it names of policy hosts through?", probe)
		}
		return f.fix("# let TCP to port 443 out, or name a proxy in fetch.proxy", probe)
	}
	return f.fix(probe)
}

const (
	// future is how far ahead of the clock the time of a file may be.
	future = 5 * time.Minute
	// unsynchronised is STA_UNSYNC of adjtimex(2).
	unsynchronised = 0x40
)

// clock looks for signs that the clock is wrong: a certificate is valid only for
// some time, and a policy too.
func (e *exam) clock() []Result {
	now := time.Now()
	for _, path := range e.dated() {
		info, err := os.Stat(path)
		if err == nil && info.ModTime().Sub(now) > future {
			return []Result{warn("it is %s here, and %s was changed at %s", now.UTC().Format(time.RFC3339), path, info.ModTime().UTC().Format(time.RFC3339)).
				because("with a wrong clock valid certificates are refused, and policies lapse too early or too late").
				fix("timedatectl status")}
		}
	}
	var t syscall.Timex
	if _, err := syscall.Adjtimex(&t); err == nil && t.Status&unsynchronised != 0 {
		return []Result{info("clock: the kernel does not know whether it is right; it says %s", now.UTC().Format(time.RFC3339))}
	}
	return []Result{ok("clock: no sign that it is wrong; it says %s", now.UTC().Format(time.RFC3339))}
}

// dated are files whose time says something about the clock.
func (e *exam) dated() []string {
	all := []string{e.Program, e.File}
	for _, s := range e.setups {
		if dir, _ := s.Main("config_directory"); dir != "" {
			all = append(all, filepath.Join(dir, "main.cf"))
		}
	}
	if path, bolt := strings.CutPrefix(e.Settings.Cache.Store, "bolt:"); bolt {
		all = append(all, path)
	}
	return all
}
