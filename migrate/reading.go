package migrate

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"stsmap/config"
)

// A reading is what was found out about a document so far.
type reading struct {
	from     string // the program
	problems []config.Problem
	notes    []Note
}

// A section is a mapping that settings are taken from. rest reports the keys that are left.
type section struct {
	r     *reading
	path  string // of the mapping: "server", or empty for the document
	node  *node  // without entries for a section that is not there
	taken []string
}

// A setting is a value that was found, or that was not: then line is 0.
type setting[T any] struct {
	key   string // its path
	line  int
	value T
}

// is reports whether the setting is there.
func (s setting[T]) is() bool { return s.line > 0 }

// in is the path of key.
func (s *section) in(key string) string {
	if s.path == "" {
		return key
	}
	return s.path + "." + key
}

// take returns the value of key and its line. A null value counts as absent: the examples of both programs have keys
// without a value.
func (s *section) take(key string) (n *node, line int) {
	s.taken = append(s.taken, key)
	for _, e := range s.node.entries {
		if e.key == key && e.value.kind != null {
			return e.value, e.line
		}
	}
	return nil, 0
}

// note says something about a setting.
func (r *reading) note(line int, key, text string) {
	r.notes = append(r.notes, Note{Line: line, Key: key, Text: text})
}

// refuse says that the program itself could not start with a setting.
func (r *reading) refuse(line int, key, reason string) {
	r.problems = append(r.problems, config.Problem{Line: line, Key: key, Reason: reason})
}

// rest makes a note of every key that take was not called for.
func (s *section) rest() {
	for _, e := range s.node.entries {
		if !slices.Contains(s.taken, e.key) {
			s.r.note(e.line, printable(s.in(e.key)), "unknown key, which "+s.r.from+" ignores, too")
		}
	}
}

// within takes a mapping. One that is not there is an empty section.
func (s *section) within(key string) *section {
	out := &section{r: s.r, path: s.in(key), node: &node{}}
	n, line := s.take(key)
	switch {
	case n == nil:
	case n.kind != mapping:
		s.r.refuse(line, out.path, "is "+n.kind.String()+", want a mapping")
	default:
		out.node = n
	}
	return out
}

// typed takes a scalar that read accepts; want is what that is.
func typed[T any](s *section, key, want string, read func(*node) (T, bool)) setting[T] {
	n, line := s.take(key)
	if n == nil {
		return setting[T]{key: s.in(key)}
	}
	if n.kind != scalar {
		s.r.refuse(line, s.in(key), "is "+n.kind.String()+", want "+want)
		return setting[T]{key: s.in(key)}
	}
	v, ok := read(n)
	if !ok {
		s.r.refuse(line, s.in(key), "is not "+want)
		return setting[T]{key: s.in(key)}
	}
	return setting[T]{s.in(key), line, v}
}

// text takes a string. White space around it does not count.
func (s *section) text(key string) setting[string] {
	return typed(s, key, "a string", func(n *node) (string, bool) { return strings.TrimSpace(n.text), true })
}

// truth takes a boolean. In Python "false" in quotes is true, so quotes are not accepted.
func (s *section) truth(key string) setting[bool] {
	return typed(s, key, "true or false, without quotes", func(n *node) (is, ok bool) {
		switch strings.ToLower(n.text) {
		case "true", "yes", "on", "y":
			return true, !n.quoted
		case "false", "no", "off", "n":
			return false, !n.quoted
		}
		return false, false
	})
}

// whole takes an integer that is not negative, as YAML 1.1 has them: 0666 is octal.
func (s *section) whole(key string) setting[int64] {
	return typed(s, key, "a whole number, without quotes", func(n *node) (int64, bool) {
		i, err := strconv.ParseInt(n.text, 0, 64)
		return i, err == nil && i >= 0 && !n.quoted
	})
}

// seconds takes a span of time in seconds, to the millisecond. What is longer than a century is one.
func (s *section) seconds(key string) setting[time.Duration] {
	const century = 100 * 365 * 24 * time.Hour
	return typed(s, key, "a number of seconds, without quotes", func(n *node) (time.Duration, bool) {
		f, err := strconv.ParseFloat(n.text, 64)
		if err != nil || n.quoted || math.IsNaN(f) || f < 0 {
			return 0, false
		}
		f = min(f, century.Seconds())
		return time.Duration(math.Round(f*1000)) * time.Millisecond, true
	})
}
