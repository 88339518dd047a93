package cache

import (
	"sync"
	"time"
)

// minPause and maxPause bound the pause after a failure; the pause doubles with
// every failure in a row.
const (
	minPause = 500 * time.Millisecond
	maxPause = 5 * time.Second
)

// A Condition is whether the backend of a [Breaker] works for reading, or for
// writing. The zero value is that of a backend that has always worked.
type Condition struct {
	// Err is the latest failure; nil if the backend works.
	Err error
	// Since is when this state began; zero if it never changed.
	Since time.Time
}

// A circuit is the state of a backend for reading or for writing.
type circuit struct {
	what string

	mu        sync.Mutex
	err       error         // the latest failure; nil if the backend works
	since     time.Time     // when that state began
	retry     time.Time     // when to try again
	pause     time.Duration // before retry
	trying    bool          // an operation is the trial
	hung      int           // operations that outlived the patience and still run
	reported  error         // the state that OnState was called with last
	reporting bool          // OnState is being called
}

// enter returns why the backend is not to be used now, or nil; then record or
// abandon must be called.
func (c *circuit) enter(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		return nil
	}
	// A retry further away than any pause was planned before the clock was set
	// back.
	if c.trying || c.hung > 0 || now.Before(c.retry) && c.retry.Sub(now) <= maxPause {
		return unreachable(c.err)
	}
	c.trying = true
	return nil
}

// record notes the result of an operation: err is nil if the backend works.
func (c *circuit) record(err error, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || c.hung <= 0 { // a success may have begun before what hangs
		c.set(err, now)
	}
}

// set changes the state. The lock is held.
func (c *circuit) set(err error, now time.Time) {
	if (c.err == nil) != (err == nil) {
		c.since = now
	}
	c.err, c.trying = err, false
	if err == nil {
		c.pause = 0
		return
	}
	c.pause = min(max(2*c.pause, minPause), maxPause)
	c.retry = now.Add(c.pause)
}

// expire is record for an operation that outlived the patience and still runs;
// returned must be called when it ends.
func (c *circuit) expire(err error, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hung++
	c.set(err, now)
}

// returned notes the end of an operation that outlived the patience, and
// whether it was an answer.
func (c *circuit) returned(answer bool, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hung--
	if answer && c.hung <= 0 {
		c.set(nil, now)
	}
}

// abandon ends an operation without a result.
func (c *circuit) abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trying = false
}

func (c *circuit) condition() Condition {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Condition{Err: c.err, Since: c.since}
}
