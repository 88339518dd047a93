// Package cache is the contract of a store of policies ([Store]), of one that
// several processes share ([Shared]), one in memory that is the reference for
// others ([Memory]), and a circuit breaker before one that may fail ([Breaker]).
//
// It does not decide anything. It does not parse policies, does not know when
// one is to be fetched again, and never removes an entry because it has expired:
// it keeps the times it is given and leaves their meaning to its user, package
// policy, which also keeps the entries in use in memory. It has no opinion of
// what a domain name may look like either, beyond its length.
//
// Trust: an attacker able to change what a store returns can switch MTA-STS off for any
// domain, or on with servers of their choice; a store is as much part of the
// mail system's security as Postfix's own configuration. Loss: a lost absence
// costs one DNS question, a lost policy the protection of the first message to
// that domain afterwards (RFC 8461, Section 10.2).
package cache

import (
	"context"
	"errors"
	"iter"
	"time"
)

// ErrNotFound is returned by Get when the store answers, and knows nothing
// about the domain. The caller asks the domain.
var ErrNotFound = errors.New("cache: not found")

// ErrOutdated is returned by Put when the store holds a policy that the entry
// must not displace (see [Entry.Outdates]); nothing was written. The caller
// Gets what is stored and goes by that. If the stored Fetched lies in the
// caller's future, a clock has been set back, and Replace takes its place.
var ErrOutdated = errors.New("cache: a policy fetched later is stored")

// ErrClosed is returned by every method but Close once Close was called.
var ErrClosed = errors.New("cache: store is closed")

// An Entry is all that is remembered about one domain. It holds what the domain
// published, not what was made of it: the policy is kept as served, and parsed
// again by its reader.
//
// An entry with a Policy is called a policy, one without is an absence: the
// domain has none, or retrieving it failed and is not to be repeated yet.
//
// Times are kept to the millisecond, rounded down, and come back in UTC; the
// zero time comes back as the zero time, and always means "never".
type Entry struct {
	Domain string // lower-case A-labels, 1 to 253 bytes; the key
	ID     string // of the record the policy came with
	Policy string // as served; empty: none

	Fetched time.Time // when Policy was last downloaded; zero for an absence
	Expires time.Time // when Policy, or its absence, stops to count
	Checked time.Time // when the record was last looked up
	Recheck time.Time // when the record is to be looked at again on use

	Failures int       // in a row, for FailedID; 0 to 2³¹-1
	FailedID string    // of the record whose policy could not be downloaded
	Error    string    // the last failure, for people
	Result   string    // the last failure, in the words of RFC 8460, Section 4.3
	Retry    time.Time // no download of FailedID before

	Refresh time.Time // when to ask the domain again without being asked; zero: never
	Used    time.Time // when Postfix last asked, to the hour
}

// Outdates reports whether a stored e refuses to be replaced by put. It does if
// and only if all three hold:
//
//   - e has a policy;
//   - e.Fetched is after put.Fetched;
//   - e.Expires is after put.Checked.
//
// So a policy never gives way to one that was downloaded earlier and arrives
// later, nor, until it expires, to an absence: the disappearance of a record or
// of the HTTPS server does not remove a cached policy (RFC 8461, Section 3.3),
// and an absence, having downloaded nothing, has a zero Fetched. A caller that
// keeps a policy and changes other fields carries its Fetched along; with the same
// Fetched the last Put wins. An absence gives way to anything, and so does a
// policy that had expired when put was Checked.
//
// Outdates is meant for implementations of [Store]: each applies it to what is
// stored, in one step with the write.
func (e Entry) Outdates(put Entry) bool {
	return e.Policy != "" &&
		stamp(e.Fetched) > stamp(put.Fetched) &&
		stamp(e.Expires) > stamp(put.Checked)
}

// A Store keeps entries, at most one a domain. Package cachetest holds every
// implementation to what is promised here.
//
// Consistency: all methods may be called concurrently. Each operation on one
// domain takes effect in one step, between its call and its return; what it did
// is seen by every operation that begins after it returned. Nothing is promised
// about the order in which operations on different domains are seen.
//
// Durability: what Put and Delete have done survives the death of the process,
// and for a store on disk that of the machine, as soon as they return nil. A
// store may be bounded, and forget: absences and expired policies first (see
// the implementation's comment).
//
// Errors: [ErrNotFound], [ErrOutdated] and [ErrClosed] are returned so that
// errors.Is finds them. An entry that cannot be encoded (Domain empty or longer
// than 253 bytes, negative Failures, a time outside the years 1 to 9999) is
// refused by Put with an error. Any other error means that the store could not
// be read or written: nothing was learned, and a caller goes on without it.
//
// Contexts: given a context that is already done, a method does nothing and
// returns its error. A context that ends while a method waits ends the waiting:
// whether the operation was, or will be, carried out is then unknown, but it is
// never carried out by half.
type Store interface {
	// Get returns the entry of the domain, expired or not, or ErrNotFound. An
	// entry that is there but cannot be decoded counts as not found.
	Get(ctx context.Context, domain string) (Entry, error)

	// Put stores e in place of what is stored for e.Domain, all fields. It
	// returns ErrOutdated, and has written nothing, if what is stored
	// Outdates e.
	Put(ctx context.Context, e Entry) error

	// Replace is Put, but a stored policy that was Fetched at wrong does not
	// refuse: the caller found that time to lie in its future, so that a clock was
	// set back since. Those who watch a [Shared] are notified that the policy was
	// deleted and e put.
	Replace(ctx context.Context, e Entry, wrong time.Time) error

	// Touch moves Used of each domain's entry forward to the time in uses; it
	// never moves it back. Other fields are not changed. A crash, or a Put at the
	// same time, may undo it. An unknown domain is no error. After an error some
	// of uses may have been written. It does not change or keep uses.
	Touch(ctx context.Context, uses map[string]time.Time) error

	// Delete forgets the domain. An unknown domain is no error.
	Delete(ctx context.Context, domain string) error

	// Due takes entries whose Refresh is not zero and not after now, at most n,
	// the oldest Refresh first. Each is leased: in one step with the taking its
	// stored Refresh is moved to now+lease, so that no one else takes it, and
	// so that it comes again if the taker dies. The returned entries carry the
	// old Refresh. A lease shorter than a millisecond counts as one.
	Due(ctx context.Context, now time.Time, lease time.Duration, n int) ([]Entry, error)

	// All iterates over the entries in no particular order: each that is there
	// throughout exactly once, each that comes or goes meanwhile at most once.
	// No lock is held while the loop body runs, which may use the store. An
	// error is the last thing yielded, with a zero Entry. Entries that cannot
	// be decoded are left out.
	All(ctx context.Context) iter.Seq2[Entry, error]

	// Close waits for what is under way, and makes durable what is not yet. A
	// second Close returns nil and does nothing.
	Close() error
}
