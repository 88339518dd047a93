package policy

import "time"

const (
	// clockJump is how far the wall clock must be moved for decisions to be
	// made anew: they hold until times on that clock.
	clockJump = time.Second
	// clockStep is by how much it is stepped rather than slewed.
	clockStep = time.Minute
	// agreement is how long the wall clock and the monotonic clock must have
	// run evenly before something is deleted because it has expired.
	agreement = time.Hour
)

// An instant is one moment on both clocks.
type instant struct {
	wall time.Time // without a monotonic reading
	mono int64     // nanoseconds since the Engine began; stops while the machine sleeps
}

// now reads both clocks at once.
func (e *Engine) now() instant {
	t := time.Now()
	now := instant{wall: t.Round(0), mono: int64(t.Sub(e.began))}
	if offset := e.wallOffset.Load(); offset != 0 {
		now.wall = now.wall.Add(time.Duration(offset))
	}
	return now
}

// drift is how far the wall clock is ahead of the monotonic one, in nanoseconds.
// It changes when the wall clock is set.
func (t instant) drift() int64 { return t.wall.UnixNano() - t.mono }

// jumped reports whether the wall clock was set since the drift was that.
func (t instant) jumped(drift int64) bool {
	moved := t.drift() - drift
	return moved > int64(clockJump) || moved < -int64(clockJump)
}

// in returns the monotonic time d after t.
func (t instant) in(d time.Duration) int64 { return t.mono + int64(d) }

// settled reports whether the clock was not set for an hour, or since the start.
func (c *conditions) settled(now instant) bool { return now.mono-c.steady >= int64(agreement) }

// expiredForLong reports whether something that expired at that time on the wall
// clock may be deleted: it has been expired for an hour, and the clock was not
// set within that hour. A clock that is wrong for a moment deletes nothing.
func (c *conditions) expiredForLong(expires time.Time, now instant) bool {
	return c.settled(now) && now.wall.Sub(expires) >= agreement
}
