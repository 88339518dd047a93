package sts

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReadPolicy: ReadPolicy returns what each line is, and every mistake.
// FuzzParsePolicy holds that the first mistake is the error of ParsePolicy.
func TestReadPolicy(t *testing.T) {
	for _, c := range []struct {
		name, body string
		lines      []Line
		mistakes   []string
	}{
		{"empty", "\n\n", nil, []string{"line 1: the policy is empty"}},
		{"right", "version: STSv1\nmode: none\nmax_age: 1\nx: y \nmode: bogus\n", []Line{
			{Number: 1, Name: "version", Value: "STSv1"},
			{Number: 2, Name: "mode", Value: "none"},
			{Number: 3, Name: "max_age", Value: "1"},
			{Number: 4, Name: "x", Value: "y"},
			{Number: 5, Name: "mode", Value: "bogus", Later: true},
		}, nil},
		{"several mistakes", "version: STSv2\n# mine\nmx: a, b\nmx: c.example\n", []Line{
			{Number: 1, Name: "version", Value: "STSv2"},
			{Number: 2},
			{Number: 3, Name: "mx", Value: "a, b"},
			{Number: 4, Name: "mx", Value: "c.example"},
		}, []string{
			`line 1: version: "STSv2" is not "STSv1"`,
			`line 2: "# mine" is a comment, which policies cannot have`,
			`line 3: mx: "a, b" is more than a name: each exchanger needs a line "mx:" of its own`,
			`line 4: mode: is missing`,
			`line 4: max_age: is missing`,
		}},
		{"a bad host is not a missing one", "version: STSv1\nmode: enforce\nmx: *\nmax_age: 1\n", []Line{
			{Number: 1, Name: "version", Value: "STSv1"},
			{Number: 2, Name: "mode", Value: "enforce"},
			{Number: 3, Name: "mx", Value: "*"},
			{Number: 4, Name: "max_age", Value: "1"},
		}, []string{
			`line 3: mx: "*" is not a pattern: "*" can only be the whole of the leftmost label, as in "*.example.com"`,
		}},
	} {
		lines, mistakes := ReadPolicy([]byte(c.body))
		var told []string
		for _, m := range mistakes {
			told = append(told, m.Error())
		}
		if diff := cmp.Diff(c.mistakes, told); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		for i, l := range lines {
			if l.Err != nil && (l.Err.Line != l.Number || l.Err.Error() != told[0]) {
				t.Errorf("%s: line %d: %v", c.name, i+1, l.Err)
			}
			if lines[i].Err = nil; l.Err != nil {
				told = told[1:]
			}
		}
		if diff := cmp.Diff(c.lines, lines); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}
