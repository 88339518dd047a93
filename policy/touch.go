package policy

import (
	"sync"
	"time"
)

const (
	// touchers is how many uses are written at once. With one goroutine for
	// each, a thousand domains that are used again in a new hour would be a
	// thousand calls at once, for which no store on a network has connections:
	// those that wait too long would make it look as if it were away.
	touchers = 4
	// mostTouches bounds how many uses wait to be written.
	mostTouches = 8192
)

// touches are uses of domains that the store is yet to be told of.
type touches struct {
	mu      sync.Mutex
	waiting map[string]time.Time // domain to the hour of its use
	writing int                  // goroutines
}

// touch has the store told that a domain is in use. It does not wait. With too
// many that wait already, which a store that does not answer causes, this use is
// forgotten; the next hour has another one.
func (e *Engine) touch(domain string, hour time.Time) {
	t := &e.touches
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) < mostTouches {
		t.waiting[domain] = hour
	}
	if t.writing < touchers && e.begin(e.writeTouches) {
		t.writing++
	}
}

// writeTouches tells the store of uses until none waits.
func (e *Engine) writeTouches() {
	for {
		domain, hour, ok := e.touches.take()
		if !ok {
			return
		}
		if err := e.store.Touch(e.ctx, map[string]time.Time{domain: hour}); err != nil && e.ctx.Err() == nil {
			e.observe(Event{Kind: StoreFailed, Domain: domain, Err: err, Op: OpTouch})
		}
	}
}

// take returns a use that waits, or says that the caller is to end.
func (t *touches) take() (domain string, hour time.Time, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for domain, hour := range t.waiting {
		delete(t.waiting, domain)
		return domain, hour, true
	}
	t.writing--
	return "", time.Time{}, false
}
