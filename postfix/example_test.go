package postfix_test

import (
	"os"
	"regexp"
	"testing"

	"stsmap/override"
	"stsmap/postfix"
)

// TestOverridesFile: the file of overrides that comes with the program has none,
// and what it shows is right and has every action.
func TestOverridesFile(t *testing.T) {
	data, err := os.ReadFile("../config/overrides.toml")
	if err != nil {
		t.Fatal(err)
	}
	if table, err := override.Parse(string(data), postfix.CheckText); err != nil || len(table.All()) > 0 {
		t.Errorf("as it is: %v, %v", table.All(), err)
	}
	shown := regexp.MustCompile(`(?m)^#(\[|[a-z]+ +=)`).ReplaceAllString(string(data), "$1")
	table, err := override.Parse(shown, postfix.CheckText)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[override.Action]bool)
	for _, o := range table.All() {
		seen[o.Action] = true
	}
	if len(seen) != 4 {
		t.Errorf("it shows %v", seen)
	}
}
