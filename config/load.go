package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"stsmap/internal/regular"
)

// A Loaded is a configuration of which it is known where each value comes from.
type Loaded struct {
	// Config is valid as a whole.
	Config
	// origins has the file and line, or the environment variable, of each key that was set, by path.
	origins map[string]string
}

// Load reads the file at path over the defaults, and over that the variables of env, which is as os.Environ returns it.
// An empty path means no file: defaults and environment.
//
// An environment variable is named for its key: STSMAP_DNS_ON_FAILURE for dns.on_failure, STSMAP_LISTEN for listen. The
// elements of a list are separated by commas. The tables of maps cannot come from the environment. STSMAP_CONFIG
// belongs to the command line and is left alone; every other variable that begins with STSMAP_ must be one of these.
//
// If anything is wrong the error is an [*Error] with all of it. If the file cannot be read it is that of regular.ReadFile,
// wrapped; a caller that can do without the file looks for fs.ErrNotExist and calls Load again without a path.
func Load(path string, env []string) (*Loaded, error) {
	l := &loader{path: path, config: Default(), origins: make(map[string]string), vars: make(map[string]string)}
	l.keys = l.config.keys()
	if path != "" {
		data, err := regular.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
		l.file(string(data))
	}
	l.environment(env)
	if len(l.problems) == 0 {
		l.relations()
	}
	if len(l.problems) > 0 {
		l.sort()
		return nil, &Error{Path: path, Problems: l.problems}
	}
	return &Loaded{Config: l.config, origins: l.origins}, nil
}

// A loader is a configuration half read.
type loader struct {
	path     string
	config   Config
	keys     []key // of config, without those of maps
	lines    lines
	origins  map[string]string // see Loaded
	vars     map[string]string // the environment variable by the path of the key it has set
	problems []Problem
}

// fail notes a problem in the file.
func (l *loader) fail(reason string, path ...string) {
	l.problems = append(l.problems, Problem{l.lines.of(path...), toml.Key(path).String(), reason})
}

// sort puts the problems into the order of the file. Those of the environment have no line and come last.
func (l *loader) sort() {
	slices.SortStableFunc(l.problems, func(a, b Problem) int {
		if (a.Line == 0) != (b.Line == 0) {
			return b.Line - a.Line
		}
		return a.Line - b.Line
	})
}

// file reads the file.
func (l *loader) file(data string) {
	var values map[string]any
	if _, err := toml.Decode(data, &values); err != nil {
		l.problems = append(l.problems, syntaxProblem(err, data))
		return
	}
	l.lines = findLines(data)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		v := values[name]
		switch {
		case name == "maps":
			l.maps(v)
		case slices.Contains(sections(l.keys), name):
			l.section(l.keys, v, name)
		default:
			l.value(l.keys, v, name)
		}
	}
}

// syntaxProblem is the one problem of a file that is not TOML. The package stops at the first.
func syntaxProblem(err error, data string) Problem {
	line, reason := 1, err.Error()
	var syntax toml.ParseError
	if errors.As(err, &syntax) {
		line, reason = syntax.Position.Line, syntax.Message
	}
	// At the end of the file the package may count one line more than there is.
	all := strings.Split(strings.TrimSuffix(data, "\n"), "\n")
	line = min(max(line, 1), len(all))
	return Problem{Line: line, Reason: reason + syntaxHint(all[line-1])}
}

// syntaxHint is what to add if a line has the mistake that is made most: a time span without quotes.
func syntaxHint(line string) string {
	_, v, _ := strings.Cut(line, "=")
	v, _, _ = strings.Cut(v, "#")
	v = strings.TrimSpace(v)
	if _, ok := ParseDuration(v); !ok {
		return ""
	}
	return "; a time span needs quotes: " + quote(v)
}

// section reads the table at path, whose keys are among keys.
func (l *loader) section(keys []key, v any, path ...string) {
	table, ok := v.(map[string]any)
	if !ok {
		header := "[" + toml.Key(path).String() + "]"
		if _, ok := v.([]map[string]any); ok {
			l.fail("is an array of tables; write "+header+", once and with single brackets", path...)
		} else {
			l.fail("is "+kind(v)+", want a table: "+header, path...)
		}
		return
	}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		l.value(keys, table[name], append(path[:len(path):len(path)], name)...)
	}
}

// value reads the value of the key at path.
func (l *loader) value(keys []key, v any, path ...string) {
	full := toml.Key(path).String()
	i := slices.IndexFunc(keys, func(k key) bool { return k.path == full })
	if i < 0 {
		section := toml.Key(path[:len(path)-1]).String()
		l.fail(unknownKey(section, path[len(path)-1], keys), path...)
		return
	}
	reasons := keys[i].value.set(v)
	for _, reason := range reasons {
		l.fail(reason, path...)
	}
	if reasons == nil {
		l.origins[full] = fmt.Sprintf("%s:%d", l.path, l.lines.of(path...))
	}
}

// maps reads the tables [maps.NAME].
func (l *loader) maps(v any) {
	tables, ok := v.(map[string]any)
	if !ok {
		l.fail("is "+kind(v)+", want tables: [maps.NAME]", "maps")
		return
	}
	l.config.Maps = make(map[string]Map, len(tables))
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		if _, ok := tables[name].(map[string]any); !ok {
			l.fail("is "+kind(tables[name])+", want a table: [maps.NAME], NAME being that of a socketmap", "maps", name)
			continue
		}
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
			l.fail("cannot be the name of a socketmap: Postfix ends it at a space", "maps", name)
		}
		m := defaultMap(name)
		l.section(m.keys(name), tables[name], "maps", name)
		l.config.Maps[name] = m
	}
}

// environment reads the variables.
func (l *loader) environment(env []string) {
	for _, variable := range env {
		name, s, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, "STSMAP_") || name == "STSMAP_CONFIG" {
			continue
		}
		i := slices.IndexFunc(l.keys, func(k key) bool { return k.variable() == name })
		if i < 0 {
			l.problems = append(l.problems, Problem{Key: name, Reason: unknownVariable(name, l.keys)})
			continue
		}
		k := l.keys[i]
		reasons := k.value.set(k.value.parse(s))
		for _, reason := range reasons {
			l.problems = append(l.problems, Problem{Key: name, Reason: reason})
		}
		if reasons == nil {
			l.origins[k.path] = name
			l.vars[k.path] = name
		}
	}
}

// variable is the name of the environment variable for k.
func (k key) variable() string {
	return "STSMAP_" + strings.ToUpper(strings.ReplaceAll(k.path, ".", "_"))
}

// unknownVariable is the reason for an environment variable that is not for any key.
func unknownVariable(name string, keys []key) string {
	if strings.HasPrefix(name, "STSMAP_MAPS_") {
		return "unknown variable; [maps.NAME] can only be in the file"
	}
	for old, current := range renamed() {
		if name == (key{path: old}).variable() {
			return "unknown variable; did you mean " + (key{path: current}).variable() + "?"
		}
	}
	var all []string
	for _, k := range keys {
		all = append(all, strings.TrimPrefix(k.variable(), "STSMAP_"))
	}
	if m := meant(strings.TrimPrefix(name, "STSMAP_"), all); m != "" {
		return "unknown variable; did you mean STSMAP_" + m + "?"
	}
	return "unknown variable; want STSMAP_SECTION_KEY, such as STSMAP_DNS_TIMEOUT for dns.timeout"
}

// relations checks what no key can say alone.
func (l *loader) relations() {
	path, reason := l.config.relations(func(path string) bool { return l.origins[path] != "" })
	if reason == "" {
		return
	}
	if variable, ok := l.vars[path]; ok {
		l.problems = append(l.problems, Problem{Key: variable, Reason: reason})
		return
	}
	l.fail(reason, strings.Split(path, ".")...)
}
