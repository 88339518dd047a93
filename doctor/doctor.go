// Package doctor looks at the mail server it runs on and finds what keeps
// Postfix from being answered, policies from being retrieved, and answers from
// having the effect that they should have. Each finding says what was seen, why
// it matters, and the line to paste.
//
// It changes nothing, neither in Postfix nor in the daemon, and it does not look
// at domains, which is the work of package check. What it cannot see it says to
// have skipped, with the reason.
package doctor

import (
	"context"
	"slices"
	"sync"
	"time"

	"stsmap/admin"
	"stsmap/config"
	"stsmap/postfix/postconf"
	"stsmap/resolver"
	"stsmap/stsfetch"
)

const (
	// checkLimit bounds each check, and collecting what several of them need.
	// It is long for postconf, which waits until a main.cf that was just
	// written is two seconds old.
	checkLimit = 20 * time.Second
	// askLimit bounds one question to the daemon that needs nothing but itself.
	askLimit = 5 * time.Second
	// maxInstances bounds how many instances of Postfix are looked at.
	maxInstances = 32
)

// Config says what to look at, and with what.
type Config struct {
	// Settings are those of the daemon. They must be set.
	Settings *config.Config
	// File is where they were read; empty if there is no file.
	File string
	// Version is that of this program.
	Version string
	// Resolver and Fetcher are what the daemon would ask with. They must be set.
	Resolver *resolver.Resolver
	Fetcher  *stsfetch.Fetcher
	// Program is the path of this program, and Look the words of the command
	// that calls Look, which is how something is seen as another user sees it.
	Program string
	Look    []string
	// Domain is a domain with a policy, for trial lookups; empty means a cached
	// one.
	Domain string
	// Only are the checks to make, by ID; nil means all.
	Only []string
}

// A Check is one of those there are.
type Check struct {
	// ID is what its findings are called, "LOC-05".
	ID string
	// Title says what is looked at.
	Title string

	make func(context.Context, *exam) []Result
}

// Checks returns all there are, in the order of their IDs.
func Checks() []Check {
	return []Check{
		{"LOC-01", "the daemon answers, and has the configuration that it should have", checkDaemon},
		{"LOC-02", "Postfix asks stsmap, and in the right order", checkTables},
		{"LOC-03", "the security level of Postfix, and whether it looks up DNSSEC", checkLevel},
		{"LOC-04", "the certification authorities that Postfix trusts", checkTrust},
		{"LOC-05", "smtp(8) reaches the socket, from its chroot and as its user", checkSocket},
		{"LOC-06", "the release of Postfix, and the words in which it is answered", checkRelease},
		{"LOC-07", "the DNS resolver, and whether Postfix uses the same", checkResolver},
		{"LOC-08", "HTTPS to policy hosts, and the clock", checkHTTPS},
		{"LOC-09", "the store of policies", checkStore},
		{"LOC-10", "the units of systemd, and other daemons of the kind", checkUnits},
		{"LOC-11", "mail.log shows whether policies are applied", checkLog},
		{"LOC-12", "a lookup from end to end", checkLookup},
	}
}

// Examine makes the checks and returns what was found, in the order of their
// IDs; each has at least one finding. It ends when ctx does, and takes no longer
// than a minute whatever hangs.
func Examine(ctx context.Context, c Config) []Result {
	e := &exam{Config: c}
	e.collect(ctx)
	checks := Checks()
	found := make([][]Result, len(checks))
	var making sync.WaitGroup
	for i, check := range checks {
		if c.Only != nil && !slices.Contains(c.Only, check.ID) {
			continue
		}
		making.Go(func() {
			once, cancel := context.WithTimeout(ctx, checkLimit)
			defer cancel()
			found[i] = check.make(once, e)
			for j := range found[i] {
				found[i][j].finish(check.ID)
			}
		})
	}
	making.Wait()
	return slices.Concat(found...)
}

// An exam is what all checks see. It is only read once they begin.
type exam struct {
	Config

	setups  []*postconf.Setup // of each instance of Postfix
	setupBy error             // why that of the first is not known; then there are none

	status   *admin.Status // of the daemon; nil if it says nothing
	statusBy error         // why not
	stats    *admin.Stats  // likewise
	statsBy  error

	domains []string // with policies, to try things out with; a few
}

// maxDomains is how many policy hosts are tried.
const maxDomains = 3

// collect learns what several checks need.
func (e *exam) collect(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	var asking sync.WaitGroup
	defer asking.Wait()
	asking.Go(func() { e.readSetups(ctx) })
	asking.Go(func() { e.askDaemon(ctx) })
}

// readSetups asks for the setup of each instance (MULTI_INSTANCE_README).
func (e *exam) readSetups(ctx context.Context) {
	first, err := postconf.ReadSetup(ctx, e.Settings.Postfix.ConfigDirectory)
	if err != nil {
		e.setupBy = err
		return
	}
	e.setups = []*postconf.Setup{first}
	more, _ := first.Main("multi_instance_directories")
	if on, _ := first.Main("multi_instance_enable"); on != "yes" && more == "" {
		return
	}
	for _, t := range postconf.Tables(more) {
		if len(e.setups) >= maxInstances {
			return
		}
		s, err := postconf.ReadSetup(ctx, t.Text)
		if err != nil {
			e.setupBy = err
			continue
		}
		if on, _ := s.Main("multi_instance_enable"); on != "yes" {
			continue // it is not started
		}
		e.setups = append(e.setups, s)
	}
}

// askDaemon asks over the control socket.
func (e *exam) askDaemon(ctx context.Context) {
	if e.Domain != "" {
		e.domains = []string{e.Domain}
	}
	if e.Settings.Admin.Socket == "" {
		e.statusBy, e.statsBy = errNoSocket, errNoSocket
		return
	}
	client := admin.NewClient(e.Settings.Admin.Socket)
	once, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	status, err := client.Status(once)
	if err != nil {
		e.statusBy, e.statsBy = err, err
		return
	}
	e.status = &status
	stats, err := client.Stats(ctx) // which goes through the whole store
	if e.statsBy = err; err == nil {
		e.stats = &stats
	}
	if e.Domain != "" {
		return
	}
	for record, err := range client.List(ctx, admin.Filter{Mode: "enforce"}) {
		if err != nil || len(e.domains) >= maxDomains {
			break
		}
		if record.Failures == 0 {
			e.domains = append(e.domains, record.Domain)
		}
	}
	slices.Sort(e.domains) // part of the list is in the order of the store
}
