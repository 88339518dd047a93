package override

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
	"golang.org/x/net/idna"
)

// An Error is every mistake of a file, in the order of the lines. The caller
// shows it and goes on with the overrides it had.
type Error struct {
	Path     string
	Problems []Problem // at least one
}

// A Problem is one mistake.
type Problem struct {
	Line   int    // from 1
	Key    string // such as "until"; empty if it is about no single one
	Reason string // what is wrong, and what is allowed
}

// Error has a line for each problem: `overrides.toml:12: untill: unknown key; did
// you mean "until"?`.
func (e *Error) Error() string {
	var lines []string
	for _, p := range e.Problems {
		lines = append(lines, e.Path+":"+strconv.Itoa(p.Line)+": "+p.text())
	}
	return strings.Join(lines, "\n")
}

// text is p without its line.
func (p Problem) text() string {
	if p.Key == "" {
		return p.Reason
	}
	return p.Key + ": " + p.Reason
}

// A Check says what is wrong with the text of a reply, or nil.
type Check func(text string) error

const (
	// maxBytes bounds the file, which is written by hand.
	maxBytes = 1 << 20
	// longestName is that of a policy domain: "_mta-sts." still fits before it.
	longestName = 253 - len("_mta-sts.")
	table       = "override"
)

// Parse reads the text of a file. If anything in it is wrong the error is an
// *Error with all of it and without a path.
func Parse(text string, check Check) (*Table, error) {
	p := &parser{check: check, seen: make(map[string]int)}
	p.read(text)
	if len(p.problems) == 0 {
		return newTable(p.all), nil
	}
	slices.SortStableFunc(p.problems, func(a, b Problem) int { return a.Line - b.Line })
	return nil, &Error{Problems: p.problems}
}

// A parser is a file half read.
type parser struct {
	check    Check
	blocks   []block
	seen     map[string]int // domains, and the line they were in
	all      []*Override
	problems []Problem
}

func (p *parser) fail(line int, key, reason string) {
	p.problems = append(p.problems, Problem{line, key, reason})
}

func (p *parser) read(text string) {
	if len(text) > maxBytes {
		p.fail(1, "", fmt.Sprintf("the file is longer than %d bytes", maxBytes))
		return
	}
	var values map[string]any
	if _, err := toml.Decode(text, &values); err != nil {
		p.syntax(err, text)
		return
	}
	var other map[string]int
	var long int
	if p.blocks, other, long = blocks(text); long > 0 {
		p.fail(long, "", fmt.Sprintf("has more than %d lines", maxLines))
		return
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if line, ok := other[name]; ok {
			p.fail(line, name, misplaced(name))
		}
	}
	tables, _ := values[table].([]map[string]any)
	if len(tables) != len(p.blocks) {
		return // it was said above
	}
	for i, values := range tables {
		p.override(p.blocks[i], values)
	}
}

// syntax notes the one problem of a file that is not TOML. The package stops at
// the first.
func (p *parser) syntax(err error, text string) {
	line, reason := 1, err.Error()
	var syntax toml.ParseError
	if errors.As(err, &syntax) {
		line, reason = syntax.Position.Line, syntax.Message
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	line = min(max(line, 1), len(lines)) // the package may count one more than there are
	name, value, ok := strings.Cut(lines[line-1], "=")
	value = strings.TrimSpace(value)
	if ok && value != "" && value[0] != '"' && value[0] != '\'' && slices.Contains(keys(), strings.TrimSpace(name)) {
		reason += "; text needs quotes, and a date looks like 2027-01-31"
	}
	p.fail(line, "", reason)
}

// misplaced is the reason for a key that is in no override.
func misplaced(name string) string {
	switch {
	case name == table:
		return "write each one as a table of its own, below [[override]] with two brackets"
	case slices.Contains(keys(), name):
		return "it belongs below [[override]]"
	case meant(name, []string{table}) != "":
		return "unknown key; did you mean [[override]]?"
	}
	return "unknown key; the file has tables [[override]]"
}

// keys are those of an override, in the order in which they are written.
func keys() []string { return []string{"domain", "action", "text", "until", "reason"} }

// override reads one.
func (p *parser) override(b block, values map[string]any) {
	before := len(p.problems)
	o := &Override{Line: b.first + 1}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		reason := ""
		switch name {
		case "domain":
			o.Domain, reason = domain(values[name])
		case "action":
			o.Action, reason = action(values[name])
		case "text":
			o.Text, reason = p.text(values[name])
		case "until":
			o.Until, reason = until(values[name])
		case "reason":
			o.Reason, reason = line(values[name])
		default:
			reason = unknown(name)
		}
		if reason != "" {
			p.fail(b.line(name), name, reason)
		}
	}
	for _, name := range []string{"domain", "action"} {
		if _, ok := values[name]; !ok {
			p.fail(o.Line, name, "is missing")
		}
	}
	if len(p.problems) > before {
		return
	}
	_, has := values["text"]
	switch {
	case o.Action == Reply && o.Text == "":
		p.fail(b.line("action"), "text", `is missing; action "reply" answers it`)
	case o.Action != Reply && has && o.Text != "":
		p.fail(b.line("text"), "text", fmt.Sprintf("has no place with action %q, only with %q", o.Action, Reply))
	}
	if first, twice := p.seen[o.Domain]; twice {
		p.fail(b.line("domain"), "domain", fmt.Sprintf("%s has an override already, in line %d", o.Domain, first))
		return
	}
	p.seen[o.Domain] = b.line("domain")
	p.all = append(p.all, o)
}

// unknown is the reason for a key that no override has.
func unknown(name string) string {
	if m := meant(name, keys()); m != "" {
		return "unknown key; did you mean " + strconv.Quote(m) + "?"
	}
	return "unknown key; there are " + strings.Join(keys(), ", ")
}

// text reads what is to be answered.
func (p *parser) text(v any) (s, reason string) {
	s, reason = line(v)
	if reason != "" || s == "" {
		return s, reason
	}
	if err := p.check(s); err != nil {
		return "", strconv.Quote(s) + " is nothing that Postfix accepts: " + err.Error()
	}
	return s, ""
}

// ParseAction returns the action that a word means.
func ParseAction(word string) (Action, error) {
	a, reason := action(word)
	if reason != "" {
		return 0, errors.New("action " + reason)
	}
	return a, nil
}

// ParseUntil returns when an override ends of which a file says s; the zero time
// for an empty s, which takes an end away.
func ParseUntil(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if strings.ContainsAny(s, "\r\n#") {
		return time.Time{}, errors.New("it is more than a date")
	}
	var values struct{ Until any }
	if _, err := toml.Decode("until = "+s, &values); err != nil {
		return time.Time{}, err
	}
	t, reason := until(values.Until)
	switch reason {
	case "":
		return t, nil
	case outside:
		return time.Time{}, ErrYear
	}
	return time.Time{}, errors.New(reason)
}

func action(v any) (a Action, reason string) {
	want := "; want " + strings.Join(quoted(actions()), ", ")
	s, ok := v.(string)
	if !ok {
		return 0, "is not a text" + want
	}
	if i := slices.Index(actions(), s); i >= 0 {
		return Action(i), ""
	}
	if m := meant(s, actions()); m != "" {
		return 0, fmt.Sprintf("is %q; did you mean %q?", s, m)
	}
	return 0, fmt.Sprintf("is %q", s) + want
}

func quoted(words []string) []string {
	var all []string
	for _, w := range words {
		all = append(all, strconv.Quote(w))
	}
	return all
}

// CheckLine says why s cannot be the reason or the text of an override, or nil.
func CheckLine(s string) error {
	if _, reason := line(s); reason != "" {
		return errors.New(reason)
	}
	return nil
}

// line reads one line of text.
func line(v any) (s, reason string) {
	s, ok := v.(string)
	switch {
	case !ok:
		return "", "is not a text"
	case !utf8.ValidString(s): // from a command line; a file that has any is none
		return "", "is not in UTF-8"
	case strings.ContainsFunc(s, unicode.IsControl):
		return "", "has a control character, or more than one line"
	}
	return s, ""
}

// domain reads the name of an override.
func domain(v any) (name, reason string) {
	s, ok := v.(string)
	if !ok {
		return "", "is not a text"
	}
	if rest, ok := strings.CutPrefix(s, "*."); ok {
		return "", fmt.Sprintf("is %q; for everything below a name write %q", s, "."+rest)
	}
	name, err := Domain(s)
	if err != nil {
		return "", err.Error()
	}
	return name, ""
}

// Domain returns the form of a domain that an Override has, from the one that
// people write: U-labels, upper case and a dot at the end are understood.
func Domain(s string) (string, error) {
	const want = `; want "example.com", or ".example.com" for everything below it`
	name, below := strings.CutPrefix(s, ".")
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if strings.ContainsFunc(name, func(r rune) bool { return r >= 0x80 }) {
		// As package postfix does it with keys, so that the two meet.
		ascii, err := idna.Lookup.ToASCII(name)
		if err != nil {
			return "", fmt.Errorf("%q is no domain name: %v%s", s, err, want)
		}
		name = ascii
	}
	labels := strings.Split(name, ".")
	good := len(name) <= longestName && (below || len(labels) > 1)
	for _, l := range labels {
		odd := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' }
		good = good && l != "" && len(l) <= 63 && !strings.ContainsFunc(l, odd)
	}
	// A name that ends in a number is an address, or a mistake for one.
	if last := labels[len(labels)-1]; !good || strings.Trim(last, "0123456789") == "" {
		return "", fmt.Errorf("%q is no domain that a policy can be for%s", s, want)
	}
	if below {
		name = "." + name
	}
	return name, nil
}

// The years in which an override can end. What is outside is a mistake, or meant
// to be "never", for which the key is left out; and times after 2262 or before
// 1678 are none that all programs can write and compare.
const firstYear, lastYear = 1970, 2199

// outside is the reason for a year that is none of them.
const outside = "is not between 1970 and 2199; leave until out for an override that does not end"

// ErrYear is returned by ParseUntil for a date that is too far from now to be
// meant. Its text says what to write instead.
var ErrYear = errors.New("the year " + outside)

// until reads when an override ends. A date includes the whole day, as in the
// phrase "until Friday". Dates, and times without a time zone, are in the time
// zone of this machine.
func until(v any) (t time.Time, reason string) {
	const want = ": want a date such as 2027-01-31, or a time such as 2027-01-31T18:00:00Z, without quotes"
	d, ok := v.(time.Time)
	if !ok {
		return t, "is no date" + want
	}
	kind := d.Location().String()
	switch {
	case kind == "time-local":
		return t, "is a time without a date" + want
	case d.Year() < firstYear || d.Year() > lastYear:
		return t, outside
	}
	// The package gives local times the offset of today, which is wrong where
	// the clock is put forward or back until then.
	switch kind {
	case "date-local":
		return time.Date(d.Year(), d.Month(), d.Day()+1, 0, 0, 0, 0, time.Local), ""
	case "datetime-local":
		return time.Date(d.Year(), d.Month(), d.Day(), d.Hour(), d.Minute(), d.Second(), d.Nanosecond(), time.Local), ""
	}
	return d, ""
}
