package override

import (
	"strings"

	"github.com/BurntSushi/toml"
)

// A statement is a header, or a key with its value, with the lines it takes:
// from first up to, but without, end.
type statement struct {
	key        string // empty for a header
	first, end int
}

// A block is a table [[override]] with the lines it takes: from its header up
// to, but without, end, which is after the last of its statements.
type block struct {
	first, end int
	keys       []statement
}

// line is that of a key, from 1, or that of the header if the key is not there.
func (b block) line(key string) int {
	if s, ok := b.find(key); ok {
		return s.first + 1
	}
	return b.first + 1
}

func (b block) find(key string) (statement, bool) {
	for _, s := range b.keys {
		if s.key == key {
			return s, true
		}
	}
	return statement{}, false
}

// maxLines is how many lines one statement may have.
const maxLines = 100

// blocks finds the overrides of a valid file, and the lines of whatever else is
// at its top, from 1; and where a statement begins that is too long, or 0.
//
// The toml package does not tell where things are. So the file is cut into
// statements, and the package says what each has: a statement is complete as
// soon as it can be read alone, since whatever may continue on the next line (a
// list, a string in three quotes) is an error if it does not. Statements are
// bounded because each of their lines is read again with every further one.
func blocks(text string) (all []block, other map[string]int, long int) {
	other = make(map[string]int)
	var statement strings.Builder
	inside, n, first := false, 0, 0
	for line := range strings.Lines(text) {
		if n++; statement.Len() == 0 {
			first = n - 1
		}
		statement.WriteString(line)
		var values map[string]any
		md, err := toml.Decode(statement.String(), &values)
		if err != nil && n-first > maxLines {
			return all, other, first + 1
		}
		if err != nil {
			continue
		}
		source := strings.TrimLeft(statement.String(), " \t\ufeff")
		statement.Reset()
		if len(md.Keys()) == 0 {
			continue // empty, or a comment
		}
		path := md.Keys()[0]
		switch {
		case strings.HasPrefix(source, "[[") && len(path) == 1 && path[0] == table:
			inside = true
			all = append(all, block{first: first, end: n})
		case strings.HasPrefix(source, "[") && len(path) > 1 && path[0] == table && len(all) > 0:
			all[len(all)-1].add(path[1], first, n) // a table in an override, which has none
		case inside && !strings.HasPrefix(source, "["):
			all[len(all)-1].add(path[0], first, n)
		default:
			inside = inside && !strings.HasPrefix(source, "[")
			if _, known := other[path[0]]; !known {
				other[path[0]] = first + 1
			}
		}
	}
	return all, other, 0
}

func (b *block) add(key string, first, end int) {
	b.keys = append(b.keys, statement{key, first, end})
	b.end = end
}
