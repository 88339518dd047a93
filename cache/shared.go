package cache

import (
	"context"
	"time"
)

// A Shared is a [Store] that several processes use at the same time, on one
// host or on many. They have each other retrieve a domain only once, and tell
// each other what has changed.
type Shared interface {
	Store
	Claims

	// Watch calls changed for each Put and each Delete by any process, including
	// this one, usually within a second. deleted is true for a Delete. It is
	// never true for what the store does by itself: the expiry of an entry,
	// eviction, or the loss of all data.
	//
	// A call is a hint that shortens the time until a change is noticed, and no
	// more: hints may be repeated, and they may be lost. When Watch begins, and
	// when a lost connection is restored, it calls changed with "" and false:
	// any domain may have changed. The caller therefore asks the store again for
	// a copy that is a minute old, whether there was a hint or not. Touches and
	// leases are not changes.
	//
	// If the store is unreachable, Watch tries again until it succeeds. Watch
	// returns when ctx ends or the Store is closed. It calls changed from one
	// goroutine; changed must be fast and must not use the store.
	Watch(ctx context.Context, changed func(domain string, deleted bool))
}

// Claims have those who share a store retrieve a domain one at a time.
type Claims interface {
	// Claim asks for the right to retrieve a domain that nothing is known of.
	// It is refused while another claim counts, be it of this process: ok is
	// false then. A claim counts until the next Put or Delete of the domain,
	// whoever does that, until its Release, and no longer than lease by the
	// clock of the store: whoever dies with one delays others by that much. A
	// lease shorter than a millisecond counts as one. A claim is no lock on the
	// entry, and restrains nobody from reading or writing it.
	Claim(ctx context.Context, domain string, lease time.Duration) (ok bool, err error)

	// Release gives back the claim of this process on the domain. That of
	// another, or none, is left alone and is no error.
	Release(ctx context.Context, domain string) error
}
