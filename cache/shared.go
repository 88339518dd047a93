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

	// Watch calls changed with each domain that is Put or Deleted from when it
	// begins, by whatever process, this one included, within a few seconds of
	// that, also where the store has no way to tell and has to be asked. It may
	// call it more often than there were changes, and with "" where it may have
	// missed some: then any domain may have changed. Touches and leases are no
	// changes. If the store cannot be reached Watch tries again by itself; it
	// returns when ctx ends or the Store is closed. changed is called from one
	// goroutine, must be fast, and must not use the store.
	Watch(ctx context.Context, changed func(domain string))
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
