package admin

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"sync"
	"time"

	"stsmap/cache"
)

// A Survey counts the entries of the cache. It lists domains, so only
// administrators may see it.
type Survey struct {
	// At is when the survey was made.
	At time.Time `json:"at"`
	// Modes counts the domains with a valid entry, by Record.Mode; Expired
	// counts those whose policy has expired.
	Modes   map[string]int64 `json:"modes"`
	Expired int64            `json:"expired"`
	// Failing counts the domains whose last fetch failed.
	Failing int64 `json:"failing"`
	// Lapsing is how many policies are in force that expire within 24 hours and
	// could not be refreshed the last time, and Soonest the first of them.
	Lapsing int64     `json:"lapsing"`
	Soonest []Lapsing `json:"soonest"`
}

// A Lapsing is a policy that could not be refreshed and expires soon.
type Lapsing struct {
	Domain  string    `json:"domain"`
	Mode    string    `json:"mode"`
	Expires time.Time `json:"expires"`
	Error   string    `json:"error"`
}

// maxLapsing bounds how many policies are listed.
const maxLapsing = 20

// surveyShare is which part of the time is spent on surveys at most.
const surveyShare = 100

// A Surveyor counts the entries of the cache periodically. Its methods may be
// called concurrently.
type Surveyor struct {
	entries func(context.Context) iter.Seq2[cache.Entry, error]
	every   time.Duration

	mu   sync.Mutex
	last *Survey // nil before the first
}

// NewSurveyor returns a Surveyor of entries, which are gone through that often; if
// there are many, less often, so that it takes a hundredth of the time at most.
func NewSurveyor(entries func(context.Context) iter.Seq2[cache.Entry, error], every time.Duration) *Surveyor {
	return &Surveyor{entries: entries, every: every}
}

// Run counts until ctx ends.
func (v *Surveyor) Run(ctx context.Context) {
	for {
		began := time.Now()
		if s, err := v.count(ctx); err == nil {
			// A walk that broke off tells nothing; what was known is not
			// replaced, and its time stands beside it.
			v.mu.Lock()
			v.last = s
			v.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(v.every, surveyShare*time.Since(began))):
		}
	}
}

// Last returns the last survey, or nil. It is not changed any more.
func (v *Surveyor) Last() *Survey {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.last
}

// count goes through all entries once.
func (v *Surveyor) count(ctx context.Context) (*Survey, error) {
	now := time.Now()
	s := &Survey{At: now, Modes: make(map[string]int64), Soonest: []Lapsing{}}
	for _, m := range modes() {
		s.Modes[m] = 0
	}
	for e, err := range v.entries(ctx) {
		if err != nil {
			return nil, err
		}
		s.add(RecordOf(e), now)
	}
	return s, nil
}

// add counts one record.
func (s *Survey) add(r Record, now time.Time) {
	if r.Failures > 0 || r.Error != "" {
		s.Failing++
	}
	if r.Expired(now) {
		s.Expired++
		return
	}
	s.Modes[r.Mode]++
	if r.Failures == 0 || r.Mode != "enforce" && r.Mode != "testing" || r.Expires.Sub(now) >= soon {
		return
	}
	s.Lapsing++
	s.Soonest = append(s.Soonest, Lapsing{r.Domain, r.Mode, r.Expires, r.Error})
	slices.SortFunc(s.Soonest, func(a, b Lapsing) int {
		return cmp.Or(a.Expires.Compare(b.Expires), cmp.Compare(a.Domain, b.Domain))
	})
	s.Soonest = s.Soonest[:min(len(s.Soonest), maxLapsing)]
}
