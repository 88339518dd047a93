package sts

import (
	"bufio"
	"os"
	"strings"
	"testing"
)

// A testCase is one case of a file in testdata: its keys with all their values.
type testCase struct {
	name   string
	values map[string][]string
}

// one is the last value of a key, or a default.
func (c testCase) one(key, otherwise string) string {
	if v := c.values[key]; len(v) > 0 {
		return v[len(v)-1]
	}
	return otherwise
}

// readCases reads a file of cases; a key that is not among keys fails the test, and so does a case
// without name or with the name of another.
func readCases(t testing.TB, path, keys string) []testCase {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	known := strings.Fields(keys)
	var cases []testCase
	names := make(map[string]bool)
	scanner := bufio.NewScanner(f)
	for n := 1; scanner.Scan(); n++ {
		line := scanner.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, _ := strings.Cut(line, " ")
		if key == "case" {
			name, what, _ := strings.Cut(value, ": ")
			if name == "" || what == "" || names[name] {
				t.Fatalf("%s:%d: a case needs a name of its own, and says what it shows", path, n)
			}
			names[name] = true
			cases = append(cases, testCase{name: name, values: make(map[string][]string)})
			continue
		}
		ok := false
		for _, k := range known {
			ok = ok || k == key
		}
		if !ok || len(cases) == 0 {
			t.Fatalf("%s:%d: unknown key %q", path, n, key)
		}
		values := cases[len(cases)-1].values
		values[key] = append(values[key], value)
	}
	if err := scanner.Err(); err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Fatalf("%s: no cases", path)
	}
	return cases
}
