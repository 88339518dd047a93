package policy

import (
	"time"

	"stsmap/cache"
	"stsmap/dane"
)

// An EventKind says what happened.
type EventKind uint8

// The kinds of events, and the fields that each sets beside Kind and Domain.
const (
	// Lookup: a decision was given as an answer. Decision, First.
	Lookup EventKind = iota
	// PolicyNew: a policy was downloaded where none was known. After.
	PolicyNew
	// PolicyChanged: a policy was replaced by another text. Before, After.
	PolicyChanged
	// PolicyRenewed: the same policy was downloaded again. Before, After.
	PolicyRenewed
	// PolicyGone: an expired policy was dropped. Before, After.
	PolicyGone
	// RecordAbsent: there is no record. After.
	RecordAbsent
	// RecordInvalid: there are records, but none that counts. After, Err.
	RecordInvalid
	// RecordFailed: the record could not be looked up. After, Err.
	RecordFailed
	// PolicyFailed: the policy could not be downloaded. After, Err.
	PolicyFailed
	// StoreFailed: the store could not be read or written. Err.
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
)

// An Event is one thing that happened. Logs, metrics and pages are made of
// events and of nothing else. It is small, because there is one for each
// answer.
type Event struct {
	Kind   EventKind
	Domain string // Domain is the policy domain; empty if it is about none.

	Decision *Decision // Decision is the answer of a Lookup, or the one an override has made.
	First    bool      // First is true the first time that this is the answer since it was another one.

	Before *cache.Entry // Before is what was known; without policy, if none was.
	After  *cache.Entry // After is what is known now.
	Err    error        // Err is the reason of a failure.

	DANE       *dane.Result // DANE is what counts now.
	DANEBefore *dane.Result // DANEBefore is what counted before; nil if nothing was known.

	Stack []byte        // Stack is where a panic happened.
	Took  time.Duration // Took is how long a retrieval lasted.
}
