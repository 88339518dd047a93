package check

import (
	_ "embed"
	"strings"
)

// prefix begins every ID; the letter after it is the group.
const prefix = "STS-"

//go:embed catalogue.txt
var catalogue string

// An Entry explains one check.
type Entry struct {
	// ID never changes, and never means something else.
	ID string
	// Title is what should be so, in a few words.
	Title string
	// Text says what is looked at, why, and what to do, in paragraphs separated
	// by empty lines.
	Text string
}

// Catalogue returns all checks, in the order of a report.
func Catalogue() []Entry {
	var all []Entry
	for line := range strings.Lines(catalogue) {
		line = strings.TrimRight(line, "\n")
		if id, title, ok := strings.Cut(line, " "); ok && strings.HasPrefix(id, prefix) {
			all = append(all, Entry{ID: id, Title: strings.TrimSpace(title)})
		} else if n := len(all); n > 0 {
			all[n-1].Text += line + "\n"
		}
	}
	for i := range all {
		all[i].Text = strings.TrimSpace(all[i].Text)
	}
	return all
}

// Lookup returns the check with an ID, in any case of letters and with or
// without "STS-".
func Lookup(id string) (Entry, bool) {
	id = strings.ToUpper(id)
	for _, e := range Catalogue() {
		if e.ID == id || e.ID == prefix+id {
			return e, true
		}
	}
	return Entry{}, false
}

// Group returns what the checks of a group, which the ID of each names, are
// about.
func Group(id string) string {
	switch strings.TrimPrefix(id, prefix)[0] {
	case 'A':
		return "domain and MX hosts"
	case 'D':
		return "record"
	case 'H':
		return "policy host"
	case 'P':
		return "policy"
	case 'M':
		return "MX hosts in the policy"
	case 'S':
		return "SMTP"
	case 'N':
		return "DANE"
	case 'T':
		return "TLS reports"
	}
	return "mail from here"
}
