//go:build !race

package socketmap

// raceEnabled is true if the race detector is on.
const raceEnabled = false
