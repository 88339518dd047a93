package override

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// A Change is what Set makes of an override. What is nil stays as it is.
type Change struct {
	Action *Action
	Text   *string
	Reason *string
	Until  *string // a date or time as the file has it; empty for none
}

// Set returns text with the override of a domain changed, or added at the end if
// there is none. Comments, order, and all that is not to be changed stay. The
// text has to be without mistakes, and what is returned may have some: Edit
// looks.
func Set(text, domain string, c Change) (string, error) {
	name, err := Domain(domain)
	if err != nil {
		return "", err
	}
	lines := splitLines(text)
	i := index(text, name)
	if i < 0 {
		if c.Action == nil {
			return "", fmt.Errorf("%s has no override yet: an action is needed", name)
		}
		all, _, _ := blocks(text)
		i, lines = len(all), append(lines, header(lines)...)
		lines = assign(lines, i, "domain", quote(name))
	}
	if c.Action != nil {
		lines = assign(lines, i, "action", quote(c.Action.String()))
		if *c.Action != Reply {
			lines = assign(lines, i, "text", "")
		}
	}
	if c.Text != nil {
		lines = assign(lines, i, "text", quote(*c.Text))
	}
	if c.Reason != nil {
		lines = assign(lines, i, "reason", quote(*c.Reason))
	}
	if c.Until != nil { // the last, since it may be no TOML at all
		lines = assign(lines, i, "until", *c.Until)
	}
	return strings.Join(lines, ""), nil
}

// Remove returns text without the override of a domain, and whether there was
// one. The comments above it stay: they may be about more than this one.
func Remove(text, domain string) (string, bool, error) {
	name, err := Domain(domain)
	if err != nil {
		return "", false, err
	}
	i := index(text, name)
	if i < 0 {
		return text, false, nil
	}
	all, _, _ := blocks(text)
	lines, b := splitLines(text), all[i]
	end := b.end
	if end < len(lines) && strings.TrimSpace(lines[end]) == "" && (b.first == 0 || strings.TrimSpace(lines[b.first-1]) == "") {
		end++ // one empty line is enough between two others
	}
	return strings.Join(slices.Delete(lines, b.first, end), ""), true, nil
}

// index returns which of the blocks of a text without mistakes is that of a
// domain, or -1.
func index(text, name string) int {
	t, err := Parse(text, func(string) error { return nil })
	if err != nil {
		return -1
	}
	return slices.IndexFunc(t.All(), func(o *Override) bool { return o.Domain == name })
}

// splitLines returns the lines of a text with their ends, of which the last one
// has one, too.
func splitLines(text string) []string {
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return slices.Collect(strings.Lines(text))
}

// header begins an override after lines.
func header(lines []string) []string {
	if len(lines) == 0 || strings.TrimSpace(lines[len(lines)-1]) == "" {
		return []string{"[[override]]\n"}
	}
	return []string{"\n", "[[override]]\n"}
}

// quote is s as TOML, for s without control characters.
func quote(s string) string {
	if s == "" {
		return ""
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// assign gives a key of the block with this number a value, which is TOML; an
// empty one takes the key away. A comment after the old value stays, without a key
// as a line of its own.
func assign(lines []string, number int, key, value string) []string {
	all, _, _ := blocks(strings.Join(lines, ""))
	b := all[number]
	s, found := b.find(key)
	switch {
	case !found && value == "":
		return lines
	case !found:
		return slices.Insert(lines, b.place(key), fmt.Sprintf("%-6s = %s\n", key, value))
	}
	old := strings.Join(lines[s.first:s.end], "")
	comment, end := trailing(old), old[len(strings.TrimRight(old, "\r\n")):]
	switch {
	case value != "":
		name, _, _ := strings.Cut(old, "=")
		return slices.Replace(lines, s.first, s.end, name+"= "+value+comment+end)
	case comment == "":
		return slices.Delete(lines, s.first, s.end)
	}
	indent := old[:len(old)-len(strings.TrimLeft(old, " \t"))]
	return slices.Replace(lines, s.first, s.end, indent+strings.TrimLeft(comment, " \t")+end)
}

// place returns the line where a key that b does not have belongs among the
// others.
func (b block) place(key string) int {
	at, rank := b.first+1, slices.Index(keys(), key)
	for _, s := range b.keys {
		if slices.Index(keys(), s.key) < rank {
			at = max(at, s.end)
		}
	}
	return at
}

// trailing is the comment after the value of a statement, with the space before
// it. The package knows which # begins one: the first that can be left out with all
// that follows.
func trailing(statement string) string {
	statement = strings.TrimRight(statement, "\r\n")
	for i := range len(statement) {
		if statement[i] != '#' {
			continue
		}
		var values map[string]any
		if _, err := toml.Decode(statement[:i], &values); err == nil {
			value := strings.TrimRight(statement[:i], " \t")
			return statement[len(value):]
		}
	}
	return ""
}

// Ends returns, as a Change has it, when an override ends that is to count for a
// duration from now on. In whole days that is a date, up to the end of which it
// counts.
func Ends(now time.Time, d time.Duration) string {
	if end := now.Add(d); d%(24*time.Hour) != 0 {
		return end.Truncate(time.Second).Format(time.RFC3339)
	}
	return now.AddDate(0, 0, int(d/(24*time.Hour))).Format(time.DateOnly)
}
