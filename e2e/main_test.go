package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"stsmap/e2e/site"
)

// hang is the time after which a neighbour is taken to hang. Nothing is expected to take long.
const hang = 60 * time.Second

func TestMain(m *testing.M) {
	if site.Dir() == "" { // with the network of this machine
		for _, suite := range suites() {
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
	return []string{"machine", "trixie", "testing"}
}

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
	for _, suite := range suites() {
		t.Run(suite, func(t *testing.T) { playAll(t, ctx, binary, suite, scenarios) })
	}
}

// playAll plays the scenarios with the Postfix of one suite. They share it and one Unbound, and each has a world and a
// daemon of its own, and zones that are signed if it wants some.
func playAll(t *testing.T, ctx context.Context, binary, suite string, scenarios []scenario) {
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
	var collector *site.Collector // nil where Postfix has no TLSRPT
	if r != nil {
		if collector, err = site.Collect(s.Postfix); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := collector.Close(); err != nil {
				t.Error(err)
			}
		})
		if err := s.Postfix.Configure(site.ReportTo()...); err != nil {
			t.Fatal(err)
		}
	}
	original, err := s.Postfix.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range scenarios {
		t.Run(c.name, func(t *testing.T) {
			p := &play{
				t: t, site: s, collector: collector, scenario: c, world: c.files["world.txtar"],
				mark: s.Postfix.Log.Mark(), questions: s.Unbound.Log.Mark(),
			}
			defer func() {
				p.end()
				if err := s.Postfix.Restore(original); err != nil {
					t.Error(err)
				}
			}()
			p.begin()
			for _, l := range c.lines {
				p.step(l)
			}
		})
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
	verb, rest string
}

// load reads all scenarios. A file that nobody would read fails the test, as does a missing one.
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
		c.files[name] = string(data)
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
		verb, rest, _ := strings.Cut(text, " ")
		c.lines = append(c.lines, line{number, verb, strings.TrimSpace(rest)})
	}
	return c, c.unread()
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
