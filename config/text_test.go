package config

import (
	"reflect"
	"strings"
	"testing"
)

// uncomment is a file with all its settings in effect: they are the comments without a space.
func uncomment(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if len(line) > 1 && line[0] == '#' && line[1] != ' ' && line[1] != '\n' {
			line = line[1:]
		}
		b.WriteString(line)
	}
	return b.String()
}

func TestShippedFile(t *testing.T) {
	l, err := Load(write(t, Text()), nil)
	if err != nil || !reflect.DeepEqual(l.Config, Default()) {
		t.Errorf("as it is: %+v, %v", l, err)
	}
	l, err = Load(write(t, uncomment(Text())), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Maps = map[string]Map{"NAME": defaultMap("NAME")}
	if !reflect.DeepEqual(l.Config, want) {
		t.Errorf("uncommented:\n%+v, want\n%+v", l.Config, want)
	}
	for _, s := range l.Settings() {
		if s.Origin == "default" || s.Changed {
			t.Errorf("%s is not in the file as %s", s.Key, s.Value)
		}
	}
}

// A taught key is one as the shipped file explains it.
type taught struct{ prose, example, section string }

// explanations reads the shipped file: what it says of each key, by path.
func explanations(t *testing.T) map[string]taught {
	t.Helper()
	all := make(map[string]taught)
	var k taught
	isDefault := false
	for line := range strings.Lines(Text()) {
		line = strings.TrimSuffix(line, "\n")
		bare := strings.TrimPrefix(line, "#")
		switch {
		case strings.HasPrefix(bare, "["):
			k = taught{section: strings.Trim(bare, "[]")}
		case line == "":
			k = taught{section: k.section}
		case strings.HasPrefix(line, "# Example: "):
			k.example = strings.TrimPrefix(line, "# Example: ")
		case line == "# Default:":
			isDefault = true
			continue
		case strings.HasPrefix(line, "# ") || line == "#":
			k.prose += strings.TrimPrefix(bare, " ") + "\n"
		default:
			name, _, _ := strings.Cut(bare, " = ")
			if !isDefault {
				t.Errorf("%s: no line \"# Default:\" before it", name)
			}
			path := strings.TrimPrefix(k.section+"."+name, ".")
			if _, twice := all[path]; twice {
				t.Errorf("%s is there twice", path)
			}
			all[path] = k
		}
		isDefault = false
	}
	return all
}

func TestShippedFileTeaches(t *testing.T) {
	all := explanations(t)
	c := Default()
	m := defaultMap("NAME")
	keys := append(c.keys(), m.keys("NAME")...)
	if len(all) != len(keys) {
		t.Errorf("%d keys are explained, and there are %d", len(all), len(keys))
	}
	for _, k := range keys {
		e, ok := all[k.path]
		if !ok || len(e.prose) < 60 || e.example == "" {
			t.Errorf("%s is not explained, or has no example", k.path)
			continue
		}
		text := e.example
		if e.section != "" {
			text = "[" + e.section + "]\n" + text
		}
		l, err := Load(write(t, text), nil)
		if err != nil {
			t.Errorf("the example of %s: %v", k.path, err)
			continue
		}
		for _, s := range l.Settings() {
			if s.Changed != (s.Key == k.path) {
				t.Errorf("the example of %s makes %s %s", k.path, s.Key, s.Value)
			}
		}
	}
}

// Lines stay short enough for a terminal, and for a diff.
func TestShippedFileWidth(t *testing.T) {
	n := 0
	for line := range strings.Lines(Text()) {
		if n++; len(line) > 110 {
			t.Errorf("line %d has %d bytes", n, len(line))
		}
	}
}
