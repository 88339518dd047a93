package policy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"stsmap/dane"
	"stsmap/sts"
	"stsmap/stsfetch"
)

// A simState is how DNS, a policy host or DANE behaves.
type simState uint8

// The states.
const (
	simWell simState = iota
	simHanging
	simMissing
	simBadCert
	simGarbage
	simFailing // SERVFAIL
	simSilent  // no answer
)

// A simVersion is one text of a policy. The text names its version, so what an
// answer or an entry is made of is known.
type simVersion struct {
	number int
	domain int
	mode   sts.Mode
	maxAge time.Duration
	text   string

	began time.Time // when the last download of it that was completed began
	done  time.Time // when the last download of it was completed
}

// A simDomain is a domain with its DNS, its policy host and its DANE results.
type simDomain struct {
	index int
	name  string

	id         string
	why        error // why the record does not count; nil if it does
	ttl        time.Duration
	dns        simState
	dnsDelay   time.Duration
	policy     *simVersion // what the policy host has; nil if the domain never had MTA-STS
	host       simState
	hostDelay  time.Duration
	dane       dane.Result
	daneHealth simState
	daneDelay  time.Duration

	calm     time.Time // since when nothing of the record, DNS, policy and policy host has changed
	textCalm time.Time // since when the policy has not changed and its host has worked
	dnsWell  time.Time // since when DNS answers; zero: always
	daneCalm time.Time // since when the DANE result has not changed, and DANE has worked
	daneWell time.Time // since when DANE has worked

	failed     time.Time   // when a download failed last, whose fault that was aside
	attempted  time.Time   // when a download began last
	downloaded *simVersion // by the last download that was not in vain
	firstUse   time.Time   // by mail, since the store or a command has lost what was known
	fetches    []*simFetch // downloads under way
}

// A simFetch is a download under way.
type simFetch struct {
	host  int
	life  int // of the host
	began time.Time
	known bool // whether the host or the store had a policy
}

// newVersion makes another policy for d. The lock must be held.
func (w *simWorld) newVersion(d *simDomain, rng *rand.Rand) *simVersion {
	v := &simVersion{number: len(w.versions), domain: d.index}
	v.mode = [...]sts.Mode{sts.Enforce, sts.Enforce, sts.Enforce, sts.Enforce, sts.Testing, sts.None}[rng.IntN(6)]
	ages := []time.Duration{3 * time.Minute, 20 * time.Minute, 2 * time.Hour, 24 * time.Hour, 2 * 24 * time.Hour, 7 * 24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour, 365 * 24 * time.Hour}
	v.maxAge = ages[rng.IntN(len(ages))] + time.Duration(rng.IntN(60))*time.Second
	var b strings.Builder
	fmt.Fprintf(&b, "version: STSv1\nmode: %s\nmx: v%d.%s\nmax_age: %d\n", v.mode, v.number, d.name, int(v.maxAge.Seconds()))
	if rng.IntN(200) == 0 {
		for b.Len() < 60<<10 {
			b.WriteString("x-padding: " + strings.Repeat("x", 500) + "\n")
		}
	}
	v.text = b.String()
	w.versions = append(w.versions, v)
	return v
}

// version returns the version that a text or a pattern names, or nil.
func (w *simWorld) version(text string) *simVersion {
	_, rest, ok := strings.Cut(text, "mx: v")
	if !ok {
		return nil
	}
	number, _, _ := strings.Cut(rest, ".")
	n, err := strconv.Atoi(number)
	if err != nil || n >= len(w.versions) {
		return nil
	}
	return w.versions[n]
}

// newDomain returns the domain with this index, as it is at the beginning.
func (w *simWorld) newDomain(index int) *simDomain {
	rng := rand.New(rand.NewPCG(w.plan.seed, 1000+uint64(index)))
	d := &simDomain{index: index, name: simName(index), ttl: simTTL(rng)}
	if rng.IntN(5) == 0 {
		d.why = sts.ErrNoRecord
	}
	d.id = fmt.Sprintf("i%d", rng.IntN(1000))
	d.policy = w.newVersion(d, rng)
	d.dnsDelay, d.hostDelay, d.daneDelay = simDelay(rng), simDelay(rng), simDelay(rng)
	d.dane = simResult(d.name, rng)
	return d
}

func simTTL(rng *rand.Rand) time.Duration {
	return [...]time.Duration{0, 60 * time.Second, 300 * time.Second, time.Hour, 24 * time.Hour}[rng.IntN(5)]
}

// simDelay draws how long an answer takes: most are fast, some take seconds.
func simDelay(rng *rand.Rand) time.Duration {
	if rng.IntN(3) > 0 {
		return time.Duration(1+rng.IntN(200)) * time.Millisecond
	}
	return time.Duration(rng.IntN(6000)) * time.Millisecond
}

// simResult draws what DNS says about DANE. Most domains have none.
func simResult(name string, rng *rand.Rand) dane.Result {
	r := dane.Result{TTL: simTTL(rng)}
	n := rng.IntN(10)
	r.MXSecure = n >= 5
	for i := range 1 + rng.IntN(3) {
		h := dane.Host{Name: fmt.Sprintf("mx%d.%s", i, name)}
		switch {
		case n == 9:
			h.State = dane.Usable
		case n == 8 || n == 4:
			h.State = [...]dane.State{dane.None, dane.Usable, dane.Unusable}[rng.IntN(3)]
		case n == 7 && i == 1:
			h.State, h.Err = dane.Failed, errors.New("SERVFAIL")
		case n == 6 && i == 1:
			h.State, h.Err = dane.Unresolved, errors.New("SERVFAIL")
		}
		r.Hosts = append(r.Hosts, h)
	}
	return r
}

// A simFetcher asks the domains for one life of a host. It implements Fetcher.
type simFetcher struct {
	world *simWorld
	host  *simHost
	life  int
}

// flood is the ending of the names of strangers.
const simFloodName = ".flood.example"

// Record implements Fetcher.
func (f *simFetcher) Record(ctx context.Context, name string) (stsfetch.Record, error) {
	if strings.HasSuffix(name, simFloodName) {
		return stsfetch.Record{ID: "F", TTL: time.Hour}, nil
	}
	w := f.world
	w.mu.Lock()
	d := w.byName[name]
	w.askedRecord(f.host, d)
	state, delay := d.dns, d.dnsDelay
	w.mu.Unlock()
	if state == simSilent {
		delay = 5 * time.Second
	}
	if err := pause(ctx, delay); err != nil {
		return stsfetch.Record{}, slowness{}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	// What DNS says is what it says when it answers, not when it was asked.
	r := stsfetch.Record{TTL: d.ttl}
	f.host.seen[d.index] = ""
	switch {
	case state == simFailing:
		return stsfetch.Record{}, errors.New("SERVFAIL")
	case state == simSilent:
		return stsfetch.Record{}, slowness{}
	case d.why != nil:
		r.Why = d.why
	default:
		r.ID = d.id
		f.host.seen[d.index] = d.id
	}
	w.learnedRecord(f.host, d)
	return r, nil
}

// Policy implements Fetcher.
func (f *simFetcher) Policy(ctx context.Context, name string) (string, *sts.Policy, error) {
	if strings.HasSuffix(name, simFloodName) {
		text := "version: STSv1\nmode: enforce\nmx: mx.flood.example\nmax_age: 604800\n" + strings.Repeat("x-padding: "+strings.Repeat("x", 500)+"\n", 100)
		p, err := sts.ParsePolicy([]byte(text))
		return text, p, err
	}
	w := f.world
	w.mu.Lock()
	d := w.byName[name]
	fetch := w.beganFetch(f, d)
	state, delay := d.host, d.hostDelay
	w.mu.Unlock()
	if state == simHanging {
		<-ctx.Done()
	}
	wait := pause(ctx, delay)
	w.mu.Lock()
	defer w.mu.Unlock()
	v := d.policy
	if err := simFailure(name, state, wait); err != nil {
		w.endedFetch(f, d, fetch, nil, state != simWell && !errors.Is(ctx.Err(), context.Canceled)) // one that is given up is not the domain's fault
		return "", nil, err
	}
	p, err := sts.ParsePolicy([]byte(v.text))
	w.endedFetch(f, d, fetch, v, false)
	return v.text, p, err
}

// simFailure is how a policy host in a state fails; nil if it does not.
func simFailure(name string, state simState, wait error) error {
	switch {
	case state == simHanging || wait != nil:
		return &stsfetch.Error{Domain: name, Step: stsfetch.StepTimeout, Err: errors.New("timeout")}
	case state == simMissing:
		return &stsfetch.Error{Domain: name, Step: stsfetch.StepStatus, Err: errors.New("HTTP status is 404, not 200")}
	case state == simBadCert:
		return &stsfetch.Error{Domain: name, Step: stsfetch.StepCert, Err: errors.New("certificate has expired")}
	case state == simGarbage:
		return &stsfetch.Error{Domain: name, Step: stsfetch.StepSyntax, Err: errors.New("not a policy")}
	}
	return nil
}

// check is dane.Check.
func (f *simFetcher) check(ctx context.Context, hop dane.NextHop) (dane.Result, error) {
	if strings.HasSuffix(hop.Domain, simFloodName) {
		return simFloodResult(), nil
	}
	w := f.world
	w.mu.Lock()
	d := w.byName[hop.Domain]
	r, state, delay := d.dane, d.daneHealth, d.daneDelay
	w.mu.Unlock()
	switch state {
	case simHanging:
		delay = time.Hour
	case simSilent:
		delay = 5 * time.Second
	}
	if wait := pause(ctx, delay); wait != nil || state == simSilent {
		return dane.Result{}, slowness{}
	}
	if state == simFailing {
		return dane.Result{}, errors.New("MX: SERVFAIL")
	}
	return r, nil
}

// simFloodResult is what a stranger can publish to take memory: 33 long names.
func simFloodResult() dane.Result {
	r := dane.Result{TTL: time.Hour}
	for i := range 33 {
		r.Hosts = append(r.Hosts, dane.Host{Name: fmt.Sprintf("%02d%s", i, strings.Repeat(".long-label-of-a-stranger", 8))})
	}
	return r
}

// happen carries out an event about a domain. The lock must be held.
func (w *simWorld) happen(e simEvent) {
	d := w.domains[e.domain]
	rng := rand.New(rand.NewPCG(e.n, 3))
	now := time.Now()
	policyHost := func(m simState) { d.host, d.calm, d.textCalm = m, now, now }
	dns := func(m simState) { d.dns, d.calm, d.dnsWell = m, now, now }
	daneIs := func(m simState) { d.daneHealth, d.daneCalm, d.daneWell = m, now, now }
	record := func(why error) { d.why, d.calm = why, now }
	switch e.kind {
	case simPolicyChanges, simPolicyRepeatsID:
		d.policy = w.newVersion(d, rng)
		d.textCalm = now
		if e.kind == simPolicyChanges {
			d.id, d.calm = fmt.Sprintf("i%d", rng.IntN(1000)), now
		}
	case simRecordVanishes:
		record(sts.ErrNoRecord)
	case simRecordInvalid:
		record(&sts.SyntaxError{Field: "id", Reason: "broken"})
	case simRecordTwice:
		record(sts.ErrManyRecords)
	case simRecordAppears:
		record(nil)
	case simPolicyHangs, simPolicyMissing, simPolicyBadCert, simPolicyGarbage:
		policyHost(simHanging + simState(e.kind-simPolicyHangs))
	case simPolicyReturns:
		policyHost(simWell)
	case simDNSFails:
		dns(simFailing)
	case simDNSSilent:
		dns(simSilent)
	case simDNSReturns:
		dns(simWell)
	case simSlower:
		d.dnsDelay, d.hostDelay, d.daneDelay, d.ttl = simDelay(rng), simDelay(rng), simDelay(rng), simTTL(rng)
		d.calm = now
	case simDANEChanges:
		d.dane, d.daneCalm = simResult(d.name, rng), now
	case simDANEFails:
		daneIs(simFailing)
	case simDANESilent:
		daneIs(simSilent)
	case simDANEHangs:
		daneIs(simHanging)
	case simDANEReturns:
		daneIs(simWell)
	}
	if d.calm.Equal(now) {
		for _, h := range w.hosts {
			h.used[d.index] = simUse{}
		}
	}
}
