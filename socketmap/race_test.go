//go:build race

package socketmap

// raceEnabled is true if the race detector is on. It makes sync.Pool forget at random, so that allocations
// cannot be counted.
const raceEnabled = true
