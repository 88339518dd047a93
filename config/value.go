package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// A value is the field of a Config that a key sets.
type value interface {
	// set takes what the file has, as the toml package decodes it into an any. It returns everything
	// that is wrong with it, and then leaves the field as it was.
	set(v any) (reasons []string)
	// parse turns the text of an environment variable into what the file would have for it.
	parse(s string) any
	// text is the field as TOML. It is fit to be shown: a password is not in it.
	text() string
}

// A text is a string with rules.
type text struct {
	p     *string
	check func(string) (reason string)
	show  func(string) string // may hide a part; nil: as it is
}

func (t *text) set(v any) []string {
	s, ok := v.(string)
	if !ok {
		return []string{"is " + kind(v) + ", want a string"}
	}
	if reason := t.check(s); reason != "" {
		return []string{reason}
	}
	*t.p = s
	return nil
}

func (t *text) parse(s string) any { return s }

func (t *text) text() string {
	if t.show != nil {
		return quote(t.show(*t.p))
	}
	return quote(*t.p)
}

// oneOf is a string that must be one of words.
func oneOf(p *string, words ...string) *text {
	return &text{p: p, check: func(s string) string {
		var quoted []string
		for _, w := range words {
			if s == w {
				return ""
			}
			quoted = append(quoted, strconv.Quote(w))
		}
		last := len(quoted) - 1
		return strconv.Quote(s) + " is not allowed; want " + strings.Join(quoted[:last], ", ") + " or " + quoted[last]
	}}
}

// A boolean is true or false.
type boolean struct{ p *bool }

func (b *boolean) set(v any) []string {
	is, ok := v.(bool)
	if !ok {
		return []string{"is " + kind(v) + ", want true or false"}
	}
	*b.p = is
	return nil
}

func (b *boolean) parse(s string) any {
	switch s {
	case "true":
		return true
	case "false":
		return false
	}
	return s
}

func (b *boolean) text() string { return strconv.FormatBool(*b.p) }

// A number is an integer with bounds.
type number struct {
	p     *int
	check func(int64) (reason string)
}

func (n *number) set(v any) []string {
	i, ok := v.(int64)
	if !ok {
		return []string{"is " + kind(v) + ", want a whole number"}
	}
	if reason := n.check(i); reason != "" {
		return []string{fmt.Sprintf("%d %s", i, reason)}
	}
	*n.p = int(i)
	return nil
}

func (n *number) parse(s string) any {
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return i
	}
	return s
}

func (n *number) text() string { return strconv.Itoa(*n.p) }

// A duration is a string in the file, because a number would not say of what.
type duration struct {
	p     *time.Duration
	check func(time.Duration) (reason string)
}

func (d *duration) set(v any) []string {
	const want = `want a string with a unit, such as "30s", "5m", "24h" or "90d"`
	s, ok := v.(string)
	if !ok {
		return []string{"is " + kind(v) + ", " + want}
	}
	parsed, ok := ParseDuration(s)
	if !ok {
		return []string{strconv.Quote(s) + " is not a time span; " + want}
	}
	if reason := d.check(parsed); reason != "" {
		return []string{s + " " + reason}
	}
	*d.p = parsed
	return nil
}

func (d *duration) parse(s string) any { return s }

func (d *duration) text() string { return quote(formatDuration(*d.p)) }

// A list is an array of strings with rules.
type list struct {
	p     *[]string
	check func(string) (reason string)
}

func (l *list) set(v any) (reasons []string) {
	elements, reasons := stringsOf(v)
	for i, s := range elements {
		if reason := l.check(s); reason != "" {
			reasons = append(reasons, reason)
		}
		for _, other := range elements[:i] {
			if s == other {
				reasons = append(reasons, strconv.Quote(s)+" is there twice")
				break
			}
		}
	}
	if reasons == nil {
		*l.p = elements
	}
	return reasons
}

func (l *list) parse(s string) any { return splitList(s) }

func (l *list) text() string { return quoteList(*l.p) }

// prefixes is an array of networks.
type prefixes struct{ p *[]netip.Prefix }

func (p *prefixes) set(v any) (reasons []string) {
	elements, reasons := stringsOf(v)
	var nets []netip.Prefix
	for _, s := range elements {
		n, reason := parsePrefix(s)
		if reason != "" {
			reasons = append(reasons, reason)
		}
		nets = append(nets, n)
	}
	if reasons == nil {
		*p.p = nets
	}
	return reasons
}

func (p *prefixes) parse(s string) any { return splitList(s) }

func (p *prefixes) text() string {
	var elements []string
	for _, n := range *p.p {
		elements = append(elements, n.String())
	}
	return quoteList(elements)
}

// stringsOf reads an array of strings. None is nil, like that of the default configuration.
func stringsOf(v any) (elements, reasons []string) {
	array, ok := v.([]any)
	if !ok {
		hint := "is " + kind(v) + ", want an array of strings"
		if s, ok := v.(string); ok {
			hint += `: ["` + s + `"]`
		}
		return nil, []string{hint}
	}
	for i, e := range array {
		s, ok := e.(string)
		if !ok {
			reasons = append(reasons, fmt.Sprintf("element %d is %s, want a string", i+1, kind(e)))
			continue
		}
		elements = append(elements, s)
	}
	return elements, reasons
}

// splitList reads a list from an environment variable: elements separated by commas, white space around
// them not counting, and nothing at all for the empty list.
func splitList(s string) any {
	list := []any{}
	if strings.TrimSpace(s) == "" {
		return list
	}
	for e := range strings.SplitSeq(s, ",") {
		list = append(list, strings.TrimSpace(e))
	}
	return list
}

// kind names the TOML type of a decoded value, with its article.
func kind(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int64:
		return "a number"
	case float64:
		return "a number with a fraction"
	case bool:
		return "true or false"
	case time.Time:
		return "a date"
	case []any:
		return "an array"
	case map[string]any, []map[string]any:
		return "a table"
	}
	return "something else"
}

// quote is s as a TOML string. strconv.Quote would not do: it knows escapes that TOML does not.
func quote(s string) string {
	b, err := toml.Marshal(map[string]string{"k": s})
	if err != nil {
		return strconv.Quote(s) // cannot be: a map of strings can be encoded
	}
	return strings.TrimSuffix(strings.TrimPrefix(string(b), "k = "), "\n")
}

// quoteList is an array of strings as TOML.
func quoteList(elements []string) string {
	var quoted []string
	for _, e := range elements {
		quoted = append(quoted, quote(e))
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
