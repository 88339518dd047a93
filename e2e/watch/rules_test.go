package watch

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const share = "../../packaging/share"

// read returns a file.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// write writes a file of the test, and returns its path.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// promtool runs it, and returns what it printed.
func promtool(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("promtool", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestRules: each alert fires on its fault and stays silent otherwise, as far as
// promtool's clock goes; and the tests would notice an alert that does not.
func TestRules(t *testing.T) {
	dir, rules := t.TempDir(), read(t, share+"/alerts.yml")
	write(t, dir, "alerts_test.yml", read(t, "testdata/alerts_test.yml"))
	try := func(text string) (string, error) {
		write(t, dir, "alerts.yml", text)
		if out, err := promtool(t, dir, "check", "rules", "alerts.yml"); err != nil {
			t.Fatalf("%s", out)
		}
		return promtool(t, dir, "test", "rules", "alerts_test.yml")
	}
	if out, err := try(rules); err != nil {
		t.Fatalf("%s", out)
	}
	for _, name := range alerts(t) {
		// One that never fires, and one that always does, in its place.
		for _, expr := range []string{"vector(1) > 1", "vector(1)"} {
			re := regexp.MustCompile(`(?s)(alert: ` + name + `\n +expr:).*?(\n +(?:for|labels):)`)
			if out, err := try(re.ReplaceAllString(rules, "${1} "+expr+"${2}")); err == nil {
				t.Errorf("%s can be %s, and no test notices:\n%s", name, expr, out)
			}
		}
	}
}

// alerts are the names of all alerts.
func alerts(t *testing.T) (names []string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatch(read(t, share+"/alerts.yml"), -1) {
		names = append(names, m[1])
	}
	if len(names) < 10 {
		t.Fatalf("only %v were found: the search is broken", names)
	}
	return names
}

// TestRunbooks: each alert has a page, and names it; and no page is of an alert
// that there is not.
func TestRunbooks(t *testing.T) {
	rules, names := read(t, share+"/alerts.yml"), alerts(t)
	var pages []string
	for _, m := range regexp.MustCompile(`(?m)^## (Stsmap\w+)$`).FindAllStringSubmatch(read(t, "../../docs/runbooks.md"), -1) {
		pages = append(pages, m[1])
	}
	if !slices.Equal(pages, names) {
		t.Errorf("docs/runbooks.md has %v, and the alerts are %v", pages, names)
	}
	for _, name := range names {
		if !strings.Contains(rules, "runbooks.md#"+strings.ToLower(name)+"\n") {
			t.Errorf("%s does not name its page", name)
		}
	}
}

// A query is one of a panel.
type query struct{ panel, expr string }

// dashboard returns the queries of the dashboard, with what Grafana puts in put
// in, and its annotations.
func dashboard(t *testing.T) (panels, annotations []query) {
	t.Helper()
	var d struct {
		SchemaVersion int
		Annotations   struct{ List []struct{ Name, Expr string } }
		Panels        []struct {
			Type, Title string
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, share+"/dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("$__rate_interval", "30s", "$job", ".*", "$instance", ".*").Replace
	for _, p := range d.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %s has no query", p.Title)
		}
		for _, target := range p.Targets {
			panels = append(panels, query{p.Title, fill(target.Expr)})
		}
	}
	for _, a := range d.Annotations.List {
		if a.Expr != "" {
			annotations = append(annotations, query{a.Name, fill(a.Expr)})
		}
	}
	if d.SchemaVersion < 39 || len(panels) < 30 || len(annotations) < 3 {
		t.Fatalf("schema %d, %d panels, %d annotations: the search is broken", d.SchemaVersion, len(panels), len(annotations))
	}
	return panels, annotations
}

// TestKnownMetrics: alerts and dashboard ask only for metrics that there are, and
// each metric is on the dashboard or part of an alert.
func TestKnownMetrics(t *testing.T) {
	have := make(map[string]bool)
	for _, m := range regexp.MustCompile("(?m)^\\| `(stsmap_\\w+)` \\|").FindAllStringSubmatch(read(t, "../../docs/metrics.md"), -1) {
		have[m[1]] = true
	}
	asked := make(map[string]bool)
	for _, file := range []string{"alerts.yml", "dashboard.json"} {
		for _, name := range regexp.MustCompile(`\bstsmap_\w+`).FindAllString(read(t, share+"/"+file), -1) {
			name = strings.TrimSuffix(name, "_bucket")
			asked[name] = true
			if !have[name] {
				t.Errorf("%s asks for %s, which there is not", file, name)
			}
		}
	}
	delete(have, "stsmap_cache_survey_timestamp_seconds") // for who doubts the others
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if !asked[name] {
			t.Errorf("nobody asks for %s", name)
		}
	}
	// How much fits is for the metrics to say.
	if m := regexp.MustCompile(`\b[0-9]{4,}\b`).FindString(strings.Join(exprs(t), "\n")); m != "" {
		t.Errorf("a query of the dashboard has the number %s", m)
	}
}

func exprs(t *testing.T) (all []string) {
	panels, annotations := dashboard(t)
	for _, q := range append(panels, annotations...) {
		all = append(all, fmt.Sprint(q.expr))
	}
	return all
}
