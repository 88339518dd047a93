package admin

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A Filter says which records are meant. The zero value means all.
type Filter struct {
	Mode    string        // that of the record; empty: any
	Failing bool          // only those whose last retrieval failed
	Older   time.Duration // only those learned at least as long ago
	Younger time.Duration // only those learned less long ago; 0: any
	Match   string        // only domains that this pattern matches; empty: any
}

// modes are those that a Filter can have.
func modes() []string { return []string{"enforce", "testing", "none", Absent} }

// Check returns what is wrong with f.
func (f Filter) Check() error {
	if f.Mode != "" && !slices.Contains(modes(), f.Mode) {
		return fmt.Errorf("mode %q is none of %s", f.Mode, strings.Join(modes(), ", "))
	}
	return nil
}

// matches reports whether r is meant, at the time now.
func (f Filter) matches(r Record, now time.Time) bool {
	age := now.Sub(r.Learned())
	return (f.Mode == "" || f.Mode == r.Mode) &&
		(!f.Failing || r.Failures > 0 || r.Error != "") &&
		age >= f.Older && (f.Younger == 0 || age < f.Younger) &&
		(f.Match == "" || matchName(f.Match, r.Domain))
}

// matchName reports whether a pattern, in which each * stands for any number of
// any characters, matches a domain.
func matchName(pattern, domain string) bool {
	parts := strings.Split(strings.ToLower(pattern), "*")
	if len(parts) == 1 {
		return parts[0] == domain
	}
	rest, ok := strings.CutPrefix(domain, parts[0])
	last := parts[len(parts)-1]
	for _, part := range parts[1 : len(parts)-1] {
		if ok {
			_, rest, ok = strings.Cut(rest, part)
		}
	}
	return ok && len(rest) >= len(last) && strings.HasSuffix(rest, last)
}

// values is f in a URL.
func (f Filter) values() url.Values {
	v := url.Values{"mode": {f.Mode}, "match": {f.Match}, "older": {f.Older.String()}, "younger": {f.Younger.String()}}
	if f.Failing {
		v.Set("failing", "yes")
	}
	return v
}

// filterOf reads what values has written.
func filterOf(v url.Values) (Filter, error) {
	f := Filter{Mode: v.Get("mode"), Match: v.Get("match"), Failing: v.Get("failing") == "yes"}
	for name, d := range map[string]*time.Duration{"older": &f.Older, "younger": &f.Younger} {
		var err error
		if text := v.Get(name); text != "" {
			if *d, err = time.ParseDuration(text); err != nil {
				return f, err
			}
		}
	}
	return f, f.Check()
}
