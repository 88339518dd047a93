package config

import (
	"strconv"
	"strings"
)

// meant finds the word that was probably meant by a wrong one, or none.
func meant(wrong string, words []string) string {
	best, least := "", 1+len(wrong)/4
	for _, w := range words {
		if d := distance(plain(wrong), plain(w)); d <= least {
			best, least = w, d-1 // the next must be better
		}
	}
	return best
}

// plain leaves out what people confuse without thinking: case, hyphens and underscores.
func plain(s string) string {
	return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(s))
}

// distance is how many letters must be put in, left out, replaced or exchanged with their neighbour to
// make a into b.
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			d := min(last[j+1], row[j]) + 1
			if a[i] == b[j] {
				d = min(d, last[j])
			} else {
				d = min(d, last[j]+1)
			}
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				d = min(d, before[j-1]+1)
			}
			row[j+1] = d
		}
		before, last = last, row
	}
	return last[len(b)]
}

// unknownKey is the reason for a key that section (empty: the top of the file) does not have, keys being
// all there are.
func unknownKey(section, name string, keys []key) string {
	var here, elsewhere []string
	for _, k := range keys {
		s, last := splitPath(k.path)
		switch {
		case s == section:
			here = append(here, last)
		case last == name && s == "":
			elsewhere = append(elsewhere, "the top of the file")
		case last == name:
			elsewhere = append(elsewhere, "["+s+"]")
		}
	}
	if section == "" {
		here = append(here, sections(keys)...)
	}
	if current, ok := renamed()[section+"."+name]; ok {
		return "unknown key; did you mean " + current + "?"
	}
	if name == "override" {
		return "unknown key; overrides have a file of their own, see overrides.file"
	}
	if len(elsewhere) > 0 {
		return "unknown key; it belongs in " + strings.Join(elsewhere, " or ")
	}
	if m := meant(name, here); m != "" {
		return "unknown key; did you mean " + strconv.Quote(m) + "?"
	}
	return "unknown key; there are " + strings.Join(here, ", ")
}

// renamed returns the keys of earlier editions, and those that replace them, by path.
func renamed() map[string]string {
	return map[string]string{"fetch.workers": "fetch.concurrency"}
}

// splitPath divides "dns.timeout" into section and key.
func splitPath(path string) (section, last string) {
	i := strings.LastIndexByte(path, '.')
	return path[:max(i, 0)], path[i+1:]
}

// sections has the tables of the file in their order.
func sections(keys []key) []string {
	var all []string
	for _, k := range keys {
		s, _ := splitPath(k.path)
		if s != "" && (len(all) == 0 || all[len(all)-1] != s) {
			all = append(all, s)
		}
	}
	return append(all, "maps")
}
