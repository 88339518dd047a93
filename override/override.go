// Package override reads the administrator's exceptions for single domains,
// finds the one that applies to a domain, and edits the file they are in.
//
// It does not decide what an exception means for mail, which is the work of
// package policy. It does not know the syntax of Postfix's replies, which
// package postfix does. It reads the file only when it is called.
package override

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// An Action is what an override does to a domain.
type Action uint8

// The actions.
const (
	// Exempt has the domain treated as if it had no policy: Postfix's own
	// level decides.
	Exempt Action = iota
	// Reply has a text of the administrator answered.
	Reply
	// Enforce has a policy in mode testing put into force. Whatever else is
	// known of the domain it leaves as it is.
	Enforce
	// Defer makes mail wait.
	Defer
)

// String returns the word for a in the file.
func (a Action) String() string { return actions()[a] }

func actions() []string { return []string{"exempt", "reply", "enforce", "defer"} }

// An Override is one exception. It is not changed once it is in a Table.
type Override struct {
	// Domain is a name in lower-case A-label form; with a dot before, it stands
	// for everything below that name and not for the name itself.
	Domain string
	// Action is what is done.
	Action Action
	// Text is what Reply answers, in Postfix's words.
	Text string
	// Until is when the override stops to count; zero means never.
	Until time.Time
	// Reason is a comment of the administrator; it can be empty.
	Reason string
	// Line is where it begins in its file, from 1.
	Line int

	use *use
}

// A use is how often an override has decided an answer. It outlives the Table
// that the override was read into.
type use struct {
	count atomic.Int64
	hour  atomic.Int64 // since 1970, in which Use last returned true
}

// Expired reports whether o does not count any more.
func (o *Override) Expired(now time.Time) bool {
	return !o.Until.IsZero() && !now.Before(o.Until)
}

// Use counts one answer, and reports whether it is the first in its hour, which
// is how often people want to hear of it. It does not allocate, and may be
// called concurrently.
func (o *Override) Use(now time.Time) (news bool) {
	o.use.count.Add(1)
	hour := now.Unix() / 3600
	return o.use.hour.Load() != hour && o.use.hour.Swap(hour) != hour
}

// Uses is how many answers o has decided since the program began.
func (o *Override) Uses() int64 { return o.use.count.Load() }

// same reports whether o and other do the same, so that what was counted of one
// belongs to the other.
func (o *Override) same(other *Override) bool {
	return o.Domain == other.Domain && o.Action == other.Action && o.Text == other.Text
}

// A Table is what one file has. It is not changed, and may be used
// concurrently. A nil *Table is empty.
type Table struct {
	all    []*Override
	byName map[string]*Override
}

// newTable returns a Table of overrides with different domains.
func newTable(all []*Override) *Table {
	t := &Table{all: all, byName: make(map[string]*Override, len(all))}
	for _, o := range all {
		o.use = new(use)
		t.byName[o.Domain] = o
	}
	return t
}

// All returns the overrides in the order of the file, expired ones among them.
func (t *Table) All() []*Override {
	if t == nil {
		return nil
	}
	return t.all
}

// Inherit takes over what was counted of the overrides in old that are also in
// t. It must be called before t is used.
func (t *Table) Inherit(old *Table) {
	for _, o := range t.All() {
		if old == nil {
			return
		}
		if last := old.byName[o.Domain]; last != nil && last.same(o) {
			o.use = last.use
		}
	}
}

// Find returns the override that counts for a domain at the time now, or nil.
// The most specific one does: that of the name itself, then those of what is
// around it, the longest first. One that has expired hides no other. The domain
// is in lower-case A-label form.
func (t *Table) Find(domain string, now time.Time) *Override {
	if t == nil {
		return nil
	}
	for name := domain; name != ""; {
		if o := t.byName[name]; o != nil && !o.Expired(now) {
			return o
		}
		dot := strings.IndexByte(name[1:], '.')
		if dot < 0 {
			return nil
		}
		name = name[1+dot:]
	}
	return nil
}

// Equal reports whether t and other have the same overrides in the same order,
// wherever these stand in their files.
func (t *Table) Equal(other *Table) bool {
	return slices.EqualFunc(t.All(), other.All(), func(a, b *Override) bool {
		return a.same(b) && a.Until.Equal(b.Until) && a.Reason == b.Reason
	})
}
