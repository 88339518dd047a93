package config

import (
	"maps"
	"slices"
	"strings"
)

// A Setting is one key with its value, for showing.
type Setting struct {
	// Key is its path: "dns.timeout".
	Key string
	// Value is TOML. It is fit to be shown: the password of a URL is replaced by "xxxxx".
	Value string
	// Origin is where the value comes from: "default", file and line ("/etc/stsmap/stsmap.toml:12"), or
	// the name of an environment variable.
	Origin string
	// Changed reports whether Value is not the default, whatever its origin.
	Changed bool
}

// Settings returns every key in the order of the file, set or not; those of a map only where it has a
// table.
func (l *Loaded) Settings() []Setting {
	c, standard := l.Config, Default()
	var all []Setting
	changed := func(have, defaults []key) {
		for i, k := range have {
			s := Setting{Key: k.path, Value: k.value.text(), Origin: l.origins[k.path]}
			if s.Origin == "" {
				s.Origin = "default"
			}
			s.Changed = s.Value != defaults[i].value.text()
			all = append(all, s)
		}
	}
	have, defaults := c.keys(), standard.keys()
	i := slices.IndexFunc(have, func(k key) bool { return strings.HasPrefix(k.path, "overrides.") })
	changed(have[:i], defaults[:i])
	for _, name := range slices.Sorted(maps.Keys(c.Maps)) {
		m, d := c.Maps[name], defaultMap(name)
		changed(m.keys(name), d.keys(name))
	}
	changed(have[i:], defaults[i:])
	return all
}
