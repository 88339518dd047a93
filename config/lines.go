package config

import (
	"strings"

	"github.com/BurntSushi/toml"
)

// lines says where in the file each key is; keys by their path.
type lines map[string]int

// of is the line of a key, or of the nearest table around it that is known.
func (l lines) of(path ...string) int {
	for ; len(path) > 0; path = path[:len(path)-1] {
		if n, ok := l[toml.Key(path).String()]; ok {
			return n
		}
	}
	return 1
}

// findLines finds the keys of a valid file. The toml package knows where they are, and does not tell. So
// the file is cut into statements, and the package says what each of them has: a statement is complete
// as soon as it can be read alone, since whatever may continue on the next line (an array, a string in
// three quotes) is an error if it does not. Reading the lines by hand instead would mean to know all the
// ways to write a string.
func findLines(data string) lines {
	found := make(lines)
	var table toml.Key
	var statement strings.Builder
	n, first := 0, 1
	for line := range strings.Lines(data) {
		n++
		if statement.Len() == 0 {
			first = n
		}
		statement.WriteString(line)
		var values map[string]any
		md, err := toml.Decode(statement.String(), &values)
		if err != nil {
			continue
		}
		isTable := strings.HasPrefix(strings.TrimLeft(statement.String(), " \t\ufeff"), "[")
		statement.Reset()
		for _, k := range md.Keys() {
			if isTable {
				table = k
			} else {
				k = append(table[:len(table):len(table)], k...)
			}
			// The tables around it begin here too, unless they have begun before.
			for i := range k {
				path := k[:i+1].String()
				if _, known := found[path]; !known {
					found[path] = first
				}
			}
		}
	}
	return found
}
