package policy

import (
	"time"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/sts"
)

// An EventKind says what happened.
type EventKind uint8

// The kinds of events, and the fields that each sets beside Kind and Domain.
const (
	// Lookup: a decision was given as an answer. Decision, First, Source.
	Lookup EventKind = iota
	// PolicyNew: a policy was downloaded where none was known. After, Trigger,
	// Kept.
	PolicyNew
	// PolicyChanged: a policy was replaced by another text. Before, After,
	// Trigger, Kept, and Weaker if it protects less than before.
	PolicyChanged
	// PolicyRenewed: the same policy was downloaded again. Before, After,
	// Trigger, Kept.
	PolicyRenewed
	// PolicyGone: an expired policy was dropped. Before, After.
	PolicyGone
	// RecordAbsent: there is no record. After.
	RecordAbsent
	// RecordInvalid: there are records, but none that counts. After, Err.
	RecordInvalid
	// RecordFailed: the record could not be looked up. After, Err.
	RecordFailed
	// PolicyFailed: the policy could not be downloaded. Before, After, Err,
	// Trigger.
	PolicyFailed
	// StoreFailed: the store could not be read or written. Err, Op.
	StoreFailed
	// Panicked: a retrieval ended by a panic, which is a bug. Err, Stack.
	Panicked
	// DANEOn: from now on DANE goes before policies. No Domain.
	DANEOn
	// DANEOff: from now on policies are in force even where DANE may apply.
	// Err tells why. No Domain.
	DANEOff
	// DANEChecked: it was found out whether DANE applies to a next-hop of the
	// domain. DANE, DANEBefore.
	DANEChecked
	// DANEFailed: it could not be found out. Err, DANEBefore, and DANE if an
	// earlier result stays in force.
	DANEFailed
	// OverrideUsed: an override has decided an answer, for the first time in
	// this hour. Decision.
	OverrideUsed
	// Recovered: a failure of a domain is over, and nothing else has changed.
	// Before, After.
	Recovered
	// PolicyExpiring: the policy of the PolicyFailed just before stays in force,
	// but expires within a day. It comes once, until the policy is downloaded
	// again. Before, After, Err.
	PolicyExpiring
	// FetchEnded: a fetch was given up for reasons that are not the domain's:
	// too many were under way at once. Err.
	FetchEnded
	// ResourcesShort: this host had too few descriptors or too little memory for
	// a fetch. Err.
	ResourcesShort
)

// An Event is one thing that happened. Logs, metrics and pages are made of
// events and of nothing else. It is small, because there is one for each
// answer.
type Event struct {
	Kind   EventKind
	Domain string // Domain is the policy domain; empty if it is about none.

	Decision *Decision // Decision is the answer of a Lookup, or the one an override has made.
	First    bool      // First is true the first time that this is the answer since it was another one.
	Source   Source    // Source is what had to be done for the answer.

	Before *cache.Entry // Before is what was known; without policy, if none was.
	After  *cache.Entry // After is what is cached now.
	Err    error        // Err is the reason of a failure.
	Op     Op           // Op is what the store was to do.

	Trigger Trigger         // Trigger is why a policy was asked for.
	Kept    bool            // Kept tells that the store has taken After.
	Weaker  []sts.Weakening // Weaker is in which ways After protects less than Before.

	DANE       *dane.Result // DANE is what counts now.
	DANEBefore *dane.Result // DANEBefore is what counted before; nil if nothing was known.

	Stack []byte        // Stack is where a panic happened.
	Took  time.Duration // Took is how long a retrieval lasted.
}

// A Source is what had to be done for an answer.
type Source uint8

// The sources of answers.
const (
	// Fresh: nothing, what was known still counted.
	Fresh Source = iota
	// Stale: nothing, what was known still counted; but a look at the domain
	// was due, and began behind the answer (RFC 8461, Section 5.1).
	Stale
	// Missed: the domain was fetched, by this lookup or one before it.
	Missed
)

// A Trigger is why a policy was asked for.
type Trigger uint8

// The triggers of downloads.
const (
	// OnMiss: no policy was in force, and mail was to go there.
	OnMiss Trigger = iota
	// OnID: the record has another id than the policy that is known.
	OnID
	// OnRefresh: it was time to, whatever the record says (RFC 8461, Section
	// 10.2).
	OnRefresh
	// OnRequest: an administrator wanted it.
	OnRequest
)

// String returns the word for t that metrics use.
func (t Trigger) String() string { return [...]string{"miss", "id", "refresh", "manual"}[t] }

// An Op is an operation of a store.
type Op uint8

// The operations of a store that can fail.
const (
	// OpOther: one that the store did by itself.
	OpOther Op = iota
	// OpGet: to read the entry of a domain.
	OpGet
	// OpPut: to keep what was learned.
	OpPut
	// OpTouch: to note that a domain is in use.
	OpTouch
	// OpDelete: to forget a domain.
	OpDelete
	// OpDue: to tell what is to be refreshed.
	OpDue
)

// String returns the word for op that metrics use.
func (op Op) String() string {
	return [...]string{"other", "get", "put", "touch", "delete", "due"}[op]
}
