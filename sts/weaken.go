package sts

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Weakening is one way in which a policy protects mail less than the one before it.
type Weakening struct {
	// Field is what became weaker, by its name in a policy: "mode", "max_age" or "mx".
	Field string
	// Before and After are its values, as a policy spells them. Of "mx", After has what is allowed now
	// and was not before, and Before is empty. They can contain nothing but printable ASCII.
	Before, After string
}

// String is the weakening in one line, such as "mode enforce -> testing" or "mx +*.example.net".
func (w Weakening) String() string {
	if w.Field == "mx" {
		return w.Field + " +" + strings.ReplaceAll(w.After, " ", " +")
	}
	return w.Field + " " + w.Before + " -> " + w.After
}

// Weakened returns in which ways after protects mail less than before; none if it does not. A lower mode and a shorter
// max_age do, and so does a host that could not receive mail before, which an attacker would add to read it. There are
// good reasons, too: a domain that moves has to do all three (RFC 8461, Section 8.3). It needs neither policy's Lines.
func Weakened(before, after *Policy) []Weakening {
	if before.Mode == None {
		return nil // it protected nothing
	}
	var all []Weakening
	if after.Mode < before.Mode {
		all = append(all, Weakening{"mode", before.Mode.String(), after.Mode.String()})
	}
	if after.MaxAge < before.MaxAge {
		all = append(all, Weakening{"max_age", seconds(before.MaxAge), seconds(after.MaxAge)})
	}
	if after.Mode == None {
		return all // its hosts do not matter
	}
	var added []string
	for _, p := range after.MX {
		if !slices.ContainsFunc(before.MX, p.within) {
			added = append(added, string(p))
		}
	}
	if len(added) > 0 {
		all = append(all, Weakening{Field: "mx", After: strings.Join(added, " ")})
	}
	return all
}

// within reports whether every host that p matches is matched by q.
func (p Pattern) within(q Pattern) bool {
	return p == q || !strings.HasPrefix(string(p), "*") && q.Match(string(p))
}

// seconds is an age as a policy spells it.
func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }
