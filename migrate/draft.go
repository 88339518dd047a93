package migrate

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"stsmap/config"
)

// A draft is a configuration file that is being written.
type draft struct {
	head   string
	tables []table // in the order of the file
}

// A table is one of TOML; that without a name holds the keys before all tables.
type table struct {
	name  string
	lines []string
}

// newDraft is a draft with nothing but the words at its top.
func newDraft(name, from string) *draft {
	d := &draft{head: fmt.Sprintf("# Made by \"stsmap config import\" from %s, a configuration of %s.\n"+
		"# What is not here has its default; \"stsmap config default\" prints every key and what it does.\n"+
		"# Policies that %s remembers were not imported.\n", printable(name), from, from)}
	for _, name := range []string{"", "dns", "fetch", "cache", "dane", "maps", "log", "admin"} {
		d.tables = append(d.tables, table{name: name})
	}
	return d
}

// table returns the table with that name. One of maps stands where those are in the file as shipped.
func (d *draft) table(name string) *table {
	i := slices.IndexFunc(d.tables, func(t table) bool { return t.name == name })
	if i < 0 {
		i = slices.IndexFunc(d.tables, func(t table) bool { return t.name == "log" })
		d.tables = slices.Insert(d.tables, i, table{name: name})
	}
	return &d.tables[i]
}

// set writes a key, value being TOML, and why it is so. It does not ask whether the value is allowed:
// see refusal.
func (d *draft) set(in, key, value, why string) {
	t := d.table(in)
	t.lines = append(t.lines, comment(why), key+" = "+value+"\n")
}

// say writes a comment where there may be no key.
func (d *draft) say(in, why string) {
	t := d.table(in)
	t.lines = append(t.lines, comment(why))
}

// text is the file.
func (d *draft) text() string {
	var b strings.Builder
	b.WriteString(d.head)
	for _, t := range d.tables {
		if t.lines == nil {
			continue
		}
		b.WriteString("\n")
		if t.name != "" {
			b.WriteString("[" + t.name + "]\n")
		}
		for _, line := range t.lines {
			b.WriteString(line)
		}
	}
	return b.String()
}

// comment wraps s into lines of a comment.
func comment(s string) string {
	const width = 100
	var b strings.Builder
	line := "#"
	for word := range strings.FieldsSeq(s) {
		if len(line)+1+len(word) > width && line != "#" {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
	return b.String()
}

// printable is s as it may stand in a comment or a message: a line feed in the name of a file must not
// end the comment.
func printable(s string) string {
	q := strconv.QuoteToASCII(s)
	if q == `"`+s+`"` && s != "" {
		return s
	}
	return q
}

// quoted is s, which must be UTF-8, as a string of TOML. The escapes of strconv.Quote are not those of
// TOML.
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// span is d as a string of TOML.
func span(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return quoted(s)
}

// refusal says why stsmap would not have value for a key, and is empty if it would; variable is the name
// that the key has in the environment, because that is how package config takes a value alone.
func refusal(variable, value string) string {
	// There a comma separates the elements of a list. Neither an address nor a name can have one, and a
	// path that has one must be written by hand.
	if strings.Contains(value, ",") {
		return strconv.Quote(value) + " contains a comma"
	}
	_, err := config.Load("", []string{variable + "=" + value})
	if err == nil {
		return ""
	}
	if all, ok := errors.AsType[*config.Error](err); ok {
		return all.Problems[0].Reason
	}
	return err.Error()
}
