package bolt

import (
	"cmp"
	"context"
	"hash/maphash"
	"maps"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/net/publicsuffix"
)

const (
	// evictEvery is how often the bound is checked. It is also checked when the
	// file has grown by 1/evictGrowth of it.
	evictEvery  = time.Hour
	evictGrowth = 8
	// headroomPart: 1/headroomPart of MaxBytes is free after an eviction, so that
	// the next check does not evict again.
	headroomPart = 10
	// An owner may have 1/minSharePart of MaxBytes, and at least minShare, before
	// other owners' use counts less. Of 4 GiB that is 4 MiB, about ten thousand
	// normal policies. minShare is two of the largest.
	minSharePart = 1024
	minShare     = 128 << 10
	// evictStep is how many entries are evicted in one transaction.
	evictStep = 256
	// ownerGroups is how many counters the owners share in a first pass, by their
	// hash: there can be millions of owners, and only the large ones need an exact
	// count.
	ownerGroups = 1 << 16
)

// requestEviction wakes the evictor, and does not wait for it.
func (s *Store) requestEviction() {
	select {
	case s.crowded <- struct{}{}:
	default: // it has been woken already
	}
}

// evict checks the bound once. It reports no error: those are failures of the
// disk, which callers of Put get, too. The next check tries again.
func (s *Store) evict(ctx context.Context) {
	policies, _ := s.makeRoom(ctx, time.Now())
	s.evictAt.Store(max(s.inUse.Load(), s.options.MaxBytes) + s.options.MaxBytes/evictGrowth)
	if policies > 0 && s.options.OnEvict != nil {
		s.options.OnEvict(policies)
	}
}

// makeRoom evicts entries, if they take more than MaxBytes, until headroom is
// free. It returns how many of them were unexpired policies.
func (s *Store) makeRoom(ctx context.Context, now time.Time) (policies int, err error) {
	if s.inUse.Load() <= s.options.MaxBytes {
		return 0, nil // entries cannot take more than the pages they are on
	}
	p, err := s.plan(ctx, now)
	if p == nil || err != nil {
		return 0, err
	}
	var victims []victim
	flush := func() error {
		n, err := s.evictRows(ctx, victims)
		policies += n
		victims = victims[:0]
		return err
	}
	for r, err := range s.walk(ctx) {
		if err != nil {
			return policies, err
		}
		if !p.evicts(r, now) {
			continue
		}
		if victims = append(victims, victim{r.domain, r.sum, r.counts(now)}); len(victims) == evictStep {
			if err := flush(); err != nil {
				return policies, err
			}
		}
	}
	err = flush()
	return policies, err
}

// A victim is a row to evict, without its entry: there are many, and large.
type victim struct {
	domain string
	sum    uint32
	policy bool // an unexpired one
}

// evictRows deletes rows in one transaction, unless they have changed since they
// were read. It returns how many unexpired policies were among them.
func (s *Store) evictRows(ctx context.Context, victims []victim) (policies int, err error) {
	if len(victims) == 0 {
		return 0, nil
	}
	err = s.write(ctx, func(tx *bbolt.Tx) (bool, error) {
		policies = 0 // it may be the second attempt
		for _, v := range victims {
			if value := entries(tx).Get([]byte(v.domain)); value == nil || storedSum(value) != v.sum {
				continue
			}
			if err := remove(tx, v.domain); err != nil {
				return true, err
			}
			if v.policy {
				policies++
			}
		}
		return true, nil
	})
	return policies, err
}

// counts reports whether r has an unexpired policy.
func (r row) counts(now time.Time) bool {
	return r.valid && r.entry.Policy != "" && !now.After(r.entry.Expires)
}

// priority orders unexpired policies: those with the lowest are evicted first.
// It is the hour of the last use.
func (r row) priority() int64 { return r.entry.Used.Unix() / 3600 }

// owner returns the registrable domain: the names below it belong to one party.
func (r row) owner() string {
	owner, err := publicsuffix.EffectiveTLDPlusOne(r.domain)
	if err != nil {
		return r.domain // a public suffix itself, or no domain name
	}
	return owner
}

// A threshold selects entries to evict: all below a priority, and rest bytes of
// those with this priority.
type threshold struct {
	priority int64
	rest     int64
}

// below reports whether r is evicted, and subtracts it from the rest. Nothing is
// below a nil threshold.
func (t *threshold) below(r row) bool {
	if t == nil || r.priority() > t.priority || r.priority() == t.priority && t.rest <= 0 {
		return false
	}
	if r.priority() == t.priority {
		t.rest -= r.size
	}
	return true
}

// A histogram has the bytes that entries of each priority take. It is short,
// because Used is known to the hour.
type histogram map[int64]int64

// cut returns the threshold that evicts that many bytes.
func (h histogram) cut(bytes int64) *threshold {
	var t *threshold
	for _, priority := range slices.Sorted(maps.Keys(h)) {
		if bytes <= 0 {
			break
		}
		t = &threshold{priority, bytes}
		bytes -= h[priority]
	}
	return t
}

// An evictionPlan selects the entries to evict.
type evictionPlan struct {
	expired int64                 // bytes of expired policies and negative entries
	owners  map[string]*threshold // for the policies of owners with more than a fair share
	all     *threshold            // for all unexpired policies
}

// evicts reports whether r is evicted.
func (p *evictionPlan) evicts(r row, now time.Time) bool {
	if !r.counts(now) {
		if p.expired <= 0 {
			return false
		}
		p.expired -= r.size
		return true
	}
	return p.owners[r.owner()].below(r) || p.all.below(r)
}

// plan returns what to evict; nil if entries take no more than MaxBytes.
func (s *Store) plan(ctx context.Context, now time.Time) (*evictionPlan, error) {
	seed := maphash.MakeSeed()
	group := func(owner string) uint64 { return maphash.String(seed, owner) % ownerGroups }
	var expired, total int64
	groups := make([]int64, ownerGroups)
	for r, err := range s.walk(ctx) {
		if err != nil {
			return nil, err
		}
		total += r.size
		if r.counts(now) {
			groups[group(r.owner())] += r.size
		} else {
			expired += r.size
		}
	}
	if total <= s.options.MaxBytes {
		return nil, nil
	}
	excess := total - (s.options.MaxBytes - s.options.MaxBytes/headroomPart)
	p := &evictionPlan{expired: min(expired, excess)}
	if excess -= p.expired; excess <= 0 {
		return p, nil
	}
	share := max(minShare, s.options.MaxBytes/minSharePart)
	all, large := make(histogram), make(map[string]histogram)
	for r, err := range s.walk(ctx) {
		if err != nil {
			return nil, err
		}
		if !r.counts(now) {
			continue
		}
		all[r.priority()] += r.size
		if owner := r.owner(); groups[group(owner)] > share {
			if large[owner] == nil {
				large[owner] = make(histogram)
			}
			large[owner][r.priority()] += r.size
		}
	}
	p.cutOwners(all, large, share, excess)
	return p, nil
}

// cutOwners plans to evict excess bytes: from the largest owners, down to the same
// level for each, but not below share; then the least recently used of all.
func (p *evictionPlan) cutOwners(all histogram, large map[string]histogram, share, excess int64) {
	size := make(map[string]int64)
	for owner, h := range large {
		for _, bytes := range h {
			size[owner] += bytes
		}
	}
	owners := slices.SortedFunc(maps.Keys(size), func(a, b string) int { return cmp.Compare(size[b], size[a]) })
	// Between the sizes of owners i and i+1, lowering the level by one byte evicts
	// a byte of each of the i+1 largest.
	level, missing := share, excess
	for i, owner := range owners {
		next := share
		if i+1 < len(owners) {
			next = max(share, size[owners[i+1]])
		}
		step := (max(size[owner], share) - next) * int64(i+1)
		if step >= missing {
			level = next + (step-missing)/int64(i+1)
			break
		}
		missing -= step
	}
	p.owners = make(map[string]*threshold)
	for _, owner := range owners {
		t := large[owner].cut(size[owner] - level)
		if t == nil {
			break
		}
		p.owners[owner] = t
		excess -= size[owner] - level
		for priority, bytes := range large[owner] {
			if priority < t.priority {
				all[priority] -= bytes
			} else if priority == t.priority {
				all[priority] -= t.rest
			}
		}
	}
	p.all = all.cut(excess)
}
