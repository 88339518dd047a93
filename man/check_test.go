package man

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"stsmap/check"
)

// TestChecks: stsmap-check(1) has every check, in the order and the words of the
// catalogue, and no other.
func TestChecks(t *testing.T) {
	item := regexp.MustCompile(`^\.It Sy (STS-\S+) No (.*)$`)
	var ids, texts []string
	for _, line := range section(t, "stsmap-check.1", "CHECKS") {
		m := item.FindStringSubmatch(line)
		switch {
		case m != nil:
			ids = append(ids, m[1])
			texts = append(texts, unescape(m[2]))
		case strings.HasPrefix(line, ".Ss ") || strings.HasPrefix(line, ".El"):
			texts = append(texts, "")
		case len(texts) > 0 && !strings.HasPrefix(line, "."):
			texts[len(texts)-1] += " " + unescape(line)
		}
	}
	texts = slices.DeleteFunc(texts, func(s string) bool {
		return !slices.ContainsFunc(check.Catalogue(), func(e check.Entry) bool { return strings.HasPrefix(s, e.Title) })
	})
	all := check.Catalogue()
	if len(all) < 60 || len(ids) != len(all) || len(texts) != len(all) {
		t.Fatalf("stsmap-check.1 has %d checks with %d texts, the catalogue %d", len(ids), len(texts), len(all))
	}
	for i, e := range all {
		if want := strings.Join(strings.Fields(e.Title+" "+e.Text), " "); ids[i] != e.ID || texts[i] != want {
			t.Errorf("check %d is %s: %s\nstsmap-check.1 has %s: %s", i+1, e.ID, want, ids[i], texts[i])
		}
	}
}

// TestJSON: stsmap-check(1) has every name of a report in JSON.
func TestJSON(t *testing.T) {
	names := make(map[string]bool)
	namesOf(reflect.TypeFor[check.Report](), names)
	if len(names) < 30 {
		t.Fatalf("only %d names were found: the search is broken", len(names))
	}
	told := make(map[string]bool)
	for _, line := range section(t, "stsmap-check.1", "JSON") {
		for _, macro := range []string{".Ic ", ".It Ic "} {
			if rest, ok := strings.CutPrefix(line, macro); ok {
				for word := range strings.FieldsSeq(rest) {
					told[word] = true
				}
			}
		}
	}
	for name := range names {
		if !told[name] {
			t.Errorf("stsmap-check.1 does not have %q", name)
		}
	}
	for word := range told {
		if !names[word] && strings.Trim(word, ",.;:") != "" {
			t.Errorf("stsmap-check.1 has %q, which no report has", word)
		}
	}
}

// namesOf collects the names of a type in JSON, and of those in it.
func namesOf(typ reflect.Type, names map[string]bool) {
	switch typ.Kind() {
	case reflect.Pointer, reflect.Slice:
		namesOf(typ.Elem(), names)
	case reflect.Struct:
		for i := range typ.NumField() {
			if name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ","); name != "" {
				names[name] = true
				namesOf(typ.Field(i).Type, names)
			}
		}
	}
}
