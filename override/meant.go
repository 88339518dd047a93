package override

import "strings"

// meant finds the word that was probably meant by a wrong one, or none.
func meant(wrong string, words []string) string {
	best, least := "", 1+len(wrong)/4
	for _, w := range words {
		if d := distance(strings.ToLower(wrong), w); d <= least {
			best, least = w, d-1 // the next must be better
		}
	}
	return best
}

// distance is how many letters must be put in, left out or replaced to make a
// into b.
func distance(a, b string) int {
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := append(make([]int, 0, len(b)+1), i+1)
		for j := range len(b) {
			d := last[j]
			if a[i] != b[j] {
				d = min(d, last[j+1], row[j]) + 1
			}
			row = append(row, d)
		}
		last = row
	}
	return last[len(b)]
}
