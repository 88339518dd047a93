package config

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// day is always 24 hours here, since nothing depends on the wall clock.
const day = 24 * time.Hour

// ParseDuration reads what time.ParseDuration reads, and days: "90d", "1d12h". Negative spans have no
// meaning in a configuration, so it reads none. It returns false for what is no time span.
func ParseDuration(s string) (time.Duration, bool) {
	days, rest, found := strings.Cut(s, "d")
	if !found {
		d, err := time.ParseDuration(s)
		return d, err == nil && d >= 0
	}
	n, err := strconv.ParseUint(days, 10, 31)
	if err != nil || n > uint64(math.MaxInt64/day) {
		return 0, false
	}
	d := time.Duration(n) * day
	if rest == "" {
		return d, true
	}
	more, err := time.ParseDuration(rest)
	if err != nil || more < 0 || more > math.MaxInt64-d {
		return 0, false
	}
	return d + more, true
}

// formatDuration writes d as one would have written it: in days from two on if it has no other part,
// and without zeros at the end. ParseDuration reads it back.
func formatDuration(d time.Duration) string {
	if d >= 2*day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
