package cache

import (
	"context"
	"time"
)

// A Shared is a [Store] that several processes use at the same time, on one
// host or on many. The processes fetch a domain once for all of them, and notify
// each other of changes.
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

// Claims let the processes that share a store fetch a domain one at a time.
type Claims interface {
	// Claim requests the right to fetch a domain that is not in the store. ok is
	// false while there is another claim, even of the same process. A claim ends
	// with the next Put or Delete of the domain by any process, with its Release,
	// or when lease has passed by the clock of the store: a process that dies
	// delays the others by that much. A lease shorter than a millisecond counts
	// as one. A claim is not a lock: every process can still read and write the
	// entry.
	Claim(ctx context.Context, domain string, lease time.Duration) (ok bool, err error)

	// Release ends the claim of this process on the domain. The claim of another
	// process stays, and it is no error if there is none.
	Release(ctx context.Context, domain string) error
}
