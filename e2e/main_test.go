package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"stsmap/e2e/site"
)

// hang is the time after which a neighbour is taken to hang. Nothing is expected to take long.
const hang = 60 * time.Second

func TestMain(m *testing.M) {
	if site.Dir() == "" { // with the network of this machine
		wanted := suites()
		if slices.Contains(wanted, "machine") {
			wanted = append(wanted, allSuites()...) // its Postfix is upgraded to the others
		}
		for _, suite := range wanted {
			if _, err := root(context.Background(), suite); err != nil {
				fmt.Fprintf(os.Stderr, "e2e: error: %v\n", err)
				os.Exit(1)
			}
		}
	}
	os.Exit(site.Inside(m.Run))
}

// suites are the releases of Debian whose Postfix all scenarios are played with; "machine" is that of this machine.
func suites() []string {
	if only := os.Getenv("E2E_SUITES"); only != "" {
		return strings.Fields(only)
	}
	return allSuites()
}

func allSuites() []string { return []string{"machine", "trixie", "testing"} }

func root(ctx context.Context, suite string) (*site.Root, error) {
	if suite == "machine" {
		return nil, nil
	}
	return site.MakeRoot(ctx, suite)
}

// TestScenarios plays every directory below scenarios, once with the Postfix of each suite.
func TestScenarios(t *testing.T) {
	scenarios := load(t, "scenarios")
	ctx, cancel := context.WithTimeout(t.Context(), 10*hang) // a build from nothing is among it
	defer cancel()
	// An installed one can be tested as well.
	binary := os.Getenv("E2E_BINARY")
	if binary == "" {
		var err error
		if binary, err = site.Build(ctx); err != nil {
			t.Fatal(err)
		}
	}
	m := newMatrix(scenarios)
	for _, suite := range suites() {
		t.Run(suite, func(t *testing.T) { playAll(t, ctx, binary, suite, scenarios, m) })
	}
	if err := m.print(); err != nil {
		t.Error(err)
	}
}

// playAll plays the scenarios with the Postfix of one suite. They share it and one Unbound, and each has a world and a
// daemon of its own, and zones that are signed if it wants some.
func playAll(t *testing.T, ctx context.Context, binary, suite string, scenarios []scenario, m *matrix) {
	m.column(suite)
	r, err := root(ctx, suite)
	if err != nil {
		t.Fatal(err)
	}
	s, err := site.Start(ctx, "", binary, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	version, err := s.Postfix.Release()
	if err != nil {
		t.Fatal(err)
	}
	m.is(version)
	this, err := parseRelease(version)
	if err != nil {
		t.Fatal(err)
	}
	collector, err := site.Collect(s.Postfix)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := collector.Close(); err != nil {
			t.Error(err)
		}
	})
	if this.reports() {
		if err := s.Postfix.Configure(site.ReportTo()...); err != nil {
			t.Fatal(err)
		}
	}
	original, err := s.Postfix.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	home := roots(s)
	if r != nil {
		home = nil // a process cannot leave the root that it has changed to
	}
	for _, c := range scenarios {
		t.Run(c.name, func(t *testing.T) {
			p := &play{
				t: t, site: s, collector: collector, scenario: c, world: c.files["world.txtar"],
				mark: s.Postfix.Log.Mark(), questions: s.Unbound.Log.Mark(), release: this, now: this, home: home,
			}
			defer func() {
				p.end()
				if err := s.Postfix.Restore(original); err != nil {
					t.Error(err)
				}
				p.failed = t.Failed()
				m.enter(c.name, p)
			}()
			p.begin()
			for _, l := range c.lines {
				p.step(l)
			}
		})
	}
}

// roots returns what says where in a site the root of a suite is. It mounts each once.
func roots(s *site.Site) func(ctx context.Context, suite string) (string, error) {
	mounted := make(map[string]string)
	return func(ctx context.Context, suite string) (string, error) {
		if dir, ok := mounted[suite]; ok {
			return dir, nil
		}
		r, err := root(ctx, suite)
		if err != nil {
			return "", err
		}
		dir, err := s.Enter(r)
		mounted[suite] = dir
		return dir, err
	}
}

// scenario is what a directory says.
type scenario struct {
	name  string
	lines []line            // of the file "play"
	files map[string]string // the others, by name
}

// line is one step of a play, with its place in the file.
type line struct {
	number     int
	when       span // the releases of Postfix that it is for
	verb, rest string
}

// load reads all scenarios. A file with an unknown name fails the test, as does a missing file.
func load(t *testing.T, root string) []scenario {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(root, "[0-9][0-9]-*"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) != len(dirs)+1 { // README.md
		t.Fatalf("%s has %d entries, of which %d are scenarios: %v", root, len(entries), len(dirs), err)
	}
	var all []scenario
	for _, dir := range dirs {
		c, err := read(dir)
		if err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		all = append(all, c)
	}
	return all
}

func read(dir string) (scenario, error) {
	c := scenario{name: filepath.Base(dir), files: make(map[string]string)}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return c, err
	}
	for _, e := range entries {
		name := e.Name()
		if name != "README" && name != "play" && name != "daemon.toml" && name != "main.cf" && !strings.HasSuffix(name, ".txtar") {
			return c, errors.New("file that nobody reads: " + name)
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return c, err
		}
		if c.files[name], err = repeated(string(data)); err != nil {
			return c, err
		}
	}
	for _, name := range []string{"README", "play", "world.txtar"} {
		if strings.TrimSpace(c.files[name]) == "" {
			return c, errors.New("file missing or empty: " + name)
		}
	}
	number := 0
	for text := range strings.Lines(c.files["play"]) {
		number++
		text = strings.TrimSpace(text)
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		when, text, err := condition(text)
		if err != nil {
			return c, fmt.Errorf("play:%d: %w", number, err)
		}
		verb, rest, _ := strings.Cut(text, " ")
		c.lines = append(c.lines, line{number, when, verb, strings.TrimSpace(rest)})
	}
	return c, c.unread()
}

// repeated writes out the lines "!repeat N TEXT": TEXT N times, with the number of each for every # in it. Large policies
// would be hard to read otherwise.
func repeated(text string) (string, error) {
	if !strings.Contains(text, "!repeat ") {
		return text, nil
	}
	var b strings.Builder
	for l := range strings.Lines(text) {
		arguments, found := strings.CutPrefix(l, "!repeat ")
		if !found {
			b.WriteString(l)
			continue
		}
		number, rest, _ := strings.Cut(arguments, " ")
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 || strings.TrimSpace(rest) == "" {
			return "", errors.New("wants !repeat N TEXT: " + l)
		}
		for i := range n {
			b.WriteString(strings.ReplaceAll(rest, "#", strconv.Itoa(i+1)))
		}
	}
	return b.String(), nil
}

// unread finds a further world that no step turns to, which could be a zones.txtar that was misspelt.
func (c *scenario) unread() error {
	for name := range c.files {
		if !strings.HasSuffix(name, ".txtar") || name == "world.txtar" || name == "zones.txtar" {
			continue
		}
		if !slices.ContainsFunc(c.lines, func(l line) bool { return l.verb == "world" && l.rest == name }) {
			return errors.New("file that nobody reads: " + name)
		}
	}
	return nil
}
