// Package man holds the manual pages to the code.
package man

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"stsmap/config"
	"stsmap/doctor"
)

// pages are the manual pages, by file.
func pages() []string {
	return []string{"stsmap.8", "stsmap.toml.5", "stsmap-postfix.7", "stsmap-check.1"}
}

// source returns the lines of a page without comments.
func source(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, `.\"`) {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}

// section returns the lines of a page from .Sh name to the next one.
func section(t *testing.T, page, name string) []string {
	t.Helper()
	lines := source(t, page)
	i := slices.Index(lines, ".Sh "+name)
	if i < 0 {
		t.Fatalf("%s has no section %s", page, name)
	}
	lines = lines[i+1:]
	if end := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, ".Sh ") }); end >= 0 {
		lines = lines[:end]
	}
	return lines
}

// unescape turns the escapes that the pages use into what a reader sees.
func unescape(s string) string {
	return strings.NewReplacer(`\(dq`, `"`, `\&`, "", `\(:u`, "ü", `\-`, "-").Replace(s)
}

// TestCommands: stsmap(8) has every command and every flag, each flag with its
// command, and none that the program does not have.
func TestCommands(t *testing.T) {
	have := make(map[string][]string)
	walkHelp(t, program(t), nil, have)
	if len(have) < 10 || len(have["query"]) != 2 || len(have[""]) != 3 {
		t.Fatalf("the help is not understood any more: %v", have)
	}
	told := toldCommands(t)
	for command, flags := range have {
		if _, ok := told[command]; !ok {
			t.Errorf("%q is not in stsmap.8", command)
			continue
		}
		if !slices.Equal(flags, told[command]) {
			t.Errorf("%q has the flags %q; stsmap.8 says %q", command, flags, told[command])
		}
	}
	for command := range told {
		if _, ok := have[command]; !ok {
			t.Errorf("stsmap.8 has a command %q, the program has not", command)
		}
	}
}

// toldCommands reads the commands and their flags from stsmap(8); the flags
// that all commands have are those of "".
func toldCommands(t *testing.T) map[string][]string {
	t.Helper()
	flag := regexp.MustCompile(`Fl -([a-z-]+)`)
	item := regexp.MustCompile(`^\.It Cm ([a-z]+(?: [a-z]+)*)`)
	told := map[string][]string{"": nil}
	for _, line := range section(t, "stsmap.8", "OPTIONS") {
		if m := flag.FindStringSubmatch(line); m != nil && strings.HasPrefix(line, ".It ") && m[1] != "help" {
			told[""] = append(told[""], m[1])
		}
	}
	slices.Sort(told[""])
	var command string
	for _, line := range section(t, "stsmap.8", "COMMANDS") {
		if m := item.FindStringSubmatch(line); m != nil {
			command = m[1]
			told[command] = nil
		}
		for _, m := range flag.FindAllStringSubmatch(line, -1) {
			if !slices.Contains(append(told[command], append(told[""], "help")...), m[1]) {
				told[command] = append(told[command], m[1])
			}
		}
	}
	for _, flags := range told {
		slices.Sort(flags)
	}
	return told
}

// program builds stsmap and returns its path.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stsmap")
	out, err := exec.Command("go", "build", "-o", path, "../cmd/stsmap").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// walkHelp asks command and all commands below it for their help, and notes
// the flags of each, sorted; those that all commands have are noted for "".
func walkHelp(t *testing.T, program string, command []string, have map[string][]string) {
	t.Helper()
	out, err := exec.Command(program, append(slices.Clone(command), "--help")...).Output()
	if err != nil {
		t.Fatalf("stsmap %s --help: %v", strings.Join(command, " "), err)
	}
	flag := regexp.MustCompile(`^ +(?:-., )?--([a-z-]+)`)
	sub := regexp.MustCompile(`^  ([a-z]+) `)
	var part string
	var flags []string
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, " ") {
			part = strings.TrimSpace(line)
		}
		if m := flag.FindStringSubmatch(line); m != nil && part == "Flags:" && m[1] != "help" {
			flags = append(flags, m[1])
		}
		if m := sub.FindStringSubmatch(line); m != nil && part == "Available Commands:" {
			walkHelp(t, program, append(slices.Clone(command), m[1]), have)
		}
	}
	slices.Sort(flags)
	have[strings.Join(command, " ")] = flags
}

// A key is what stsmap.toml(5) says of one.
type key struct{ name, value, prose, example string }

// toldKeys reads stsmap.toml(5).
func toldKeys(t *testing.T) []key {
	t.Helper()
	item := regexp.MustCompile(`^\.It Sy (\S+) No = (.*)$`)
	var all []key
	for _, line := range section(t, "stsmap.toml.5", "KEYS") {
		if m := item.FindStringSubmatch(line); m != nil {
			all = append(all, key{name: m[1], value: unescape(m[2])})
			continue
		}
		if len(all) == 0 {
			continue
		}
		k := &all[len(all)-1]
		if example, ok := strings.CutPrefix(line, ".Dl "); ok {
			k.example += unescape(example) + "\n"
		} else {
			k.prose += unescape(line) + "\n"
		}
	}
	return all
}

// load reads text as a configuration.
func load(t *testing.T, text string) *config.Loaded {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stsmap.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := config.Load(path, nil)
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return l
}

// TestKeys: stsmap.toml(5) has every key, in the order of the file, with its
// default.
func TestKeys(t *testing.T) {
	told := toldKeys(t)
	settings := load(t, "[maps.NAME]").Settings()
	if len(told) != len(settings) {
		t.Errorf("stsmap.toml.5 has %d keys, and there are %d", len(told), len(settings))
	}
	for i, s := range settings {
		if i >= len(told) || told[i].name != s.Key || told[i].value != s.Value {
			t.Fatalf("key %d is %s = %s, which stsmap.toml.5 does not say", i+1, s.Key, s.Value)
		}
	}
}

// TestKeyExamples: each key has an example, which changes that key alone.
func TestKeyExamples(t *testing.T) {
	for _, k := range toldKeys(t) {
		if strings.Count(k.example, "\n") != 1 {
			t.Errorf("%s has the examples %q, want one", k.name, k.example)
			continue
		}
		for _, s := range load(t, k.example).Settings() {
			if s.Changed != (s.Key == k.name) {
				t.Errorf("the example of %s makes %s %s", k.name, s.Key, s.Value)
			}
		}
	}
}

// TestExitCodes: stsmap(8) has every exit code, and no other.
func TestExitCodes(t *testing.T) {
	want := []string{"0"}
	for _, code := range exitCodes(t) {
		want = append(want, strconv.Itoa(code))
	}
	var told []string
	for _, line := range section(t, "stsmap.8", "EXIT STATUS") {
		if code, ok := strings.CutPrefix(line, ".It "); ok {
			told = append(told, code)
		}
	}
	if !slices.Equal(told, want) {
		t.Errorf("stsmap.8 has the exit codes %v, the program %v", told, want)
	}
}

// TestMessages: every message of the log stands in stsmap(8) with its level,
// and no message stands there that the program does not have.
func TestMessages(t *testing.T) {
	told := make(map[string]string) // message to the words after it
	lines := section(t, "stsmap.8", "DIAGNOSTICS")
	end := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, ".Ss Reasons") })
	if end < 0 {
		t.Fatal("stsmap.8 has no .Ss Reasons after the messages")
	}
	for i, line := range lines[:end] {
		if message, ok := strings.CutPrefix(line, ".It "); ok {
			told[unescape(message)] = lines[i+1]
		}
	}
	have := messages(t)
	if len(have) < 25 {
		t.Fatalf("only %d messages were found: the search is broken", len(have))
	}
	for message, level := range have {
		words, ok := told[message]
		if !ok {
			t.Errorf("stsmap.8 does not have the log message %q", message)
		} else if !strings.HasPrefix(words, "("+level) {
			t.Errorf("%q has the level %q; stsmap.8 says %s", message, level, words)
		}
	}
	for message := range told {
		if _, ok := have[message]; !ok {
			t.Errorf("stsmap.8 has a log message %q, the program has not", message)
		}
	}
}

// TestReasons: what stsmap(8) says of failed retrievals is what the program
// says; "..." stands for what differs.
func TestReasons(t *testing.T) {
	code := text(t, "stsfetch") + text(t, "policy")
	n := 0
	reasons := false
	for _, line := range section(t, "stsmap.8", "DIAGNOSTICS") {
		if strings.HasPrefix(line, ".Ss ") {
			reasons = strings.HasPrefix(line, ".Ss Reasons")
		}
		reason, ok := strings.CutPrefix(line, ".It ")
		if !ok || !reasons {
			continue
		}
		n++
		for part := range strings.SplitSeq(unescape(reason), "...") {
			if !strings.Contains(code, strings.TrimSpace(part)) {
				t.Errorf("stsmap.8 has the reason %q, the program does not say %q", reason, part)
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d reasons were found: the search is broken", n)
	}
}

// TestHints: every hint about an error stands in stsmap(8).
func TestHints(t *testing.T) {
	page := unescape(strings.Join(section(t, "stsmap.8", "DIAGNOSTICS"), "\n"))
	have := hints(t)
	if len(have) < 10 {
		t.Fatalf("only %d hints were found: the search is broken", len(have))
	}
	for _, hint := range have {
		if !strings.Contains(page, hint) {
			t.Errorf("stsmap.8 does not have the hint %q", hint)
		}
	}
}

// TestFindings: every check of doctor stands in stsmap(8), in order, and no other.
func TestFindings(t *testing.T) {
	lines := section(t, "stsmap.8", "DIAGNOSTICS")
	begin := slices.Index(lines, ".Ss Findings of doctor")
	var told, have []string
	for _, line := range lines[max(begin, 0):] {
		if id, ok := strings.CutPrefix(line, ".It LOC-"); ok {
			told = append(told, "LOC-"+id)
		}
	}
	for _, check := range doctor.Checks() {
		have = append(have, check.ID)
	}
	if begin < 0 || !slices.Equal(told, have) {
		t.Errorf("stsmap.8 has the checks %v, doctor %v", told, have)
	}
}

// TestPages: the pages are well-formed mdoc, refer to each other, and mandoc
// has nothing to say about them, not even about their style.
func TestPages(t *testing.T) {
	for _, page := range pages() {
		for _, problem := range malformed(source(t, page)) {
			t.Errorf("%s: %s", page, problem)
		}
		for _, other := range pages() {
			name, number, _ := cutLast(other, ".")
			ref := fmt.Sprintf(".Xr %s %s", name, number)
			if other != page && !strings.Contains(strings.Join(source(t, page), "\n"), ref) {
				t.Errorf("%s does not refer to %s", page, other)
			}
		}
		for _, complaint := range lint(t, page) {
			t.Error(complaint)
		}
	}
}

// lint returns what mandoc(1) finds in a page. What manual pages there are on
// this machine does not matter.
func lint(t *testing.T, page string) (complaints []string) {
	t.Helper()
	out, err := exec.Command("mandoc", "-T", "lint", page).Output()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("%v; it is installed by e2e/install.sh", err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "longer than 80 bytes") {
			line = strings.TrimSpace(line) + "; make fill breaks it"
		}
		if !strings.Contains(line, "referenced manual not found") {
			complaints = append(complaints, strings.TrimSpace(line))
		}
	}
	return complaints
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// macros are those of mdoc(7) that the pages use.
func macros() []string {
	return strings.Fields("Ar Bd Bl Cm Dd Dl Dq Dt Dv Ed El Em Ev Fl Ic It Li Lk Nd Nm Op Os Pa Pp Pq Ql Re Rs Sh Ss Sx Sy Va Xr %R %T")
}

// malformed finds macros that do not exist, blocks that are not closed and
// characters that are not ASCII.
func malformed(lines []string) (problems []string) {
	closes := map[string]string{"Ed": "Bd", "El": "Bl", "Re": "Rs"}
	known, starts := macros(), strings.Join(lines[:min(3, len(lines))], "\n")
	if !regexp.MustCompile(`^\.Dd \w+ \d+, \d+\n\.Dt [A-Z.-]+ [1-8]\n\.Os$`).MatchString(starts) {
		problems = append(problems, "does not begin with .Dd, .Dt and .Os")
	}
	var open []string
	for _, line := range lines {
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
			problems = append(problems, fmt.Sprintf("not ASCII: %q", line))
		}
		if !strings.HasPrefix(line, ".") {
			continue
		}
		macro, _, _ := strings.Cut(line[1:], " ")
		if !slices.Contains(known, macro) {
			problems = append(problems, fmt.Sprintf("unknown macro: %q", line))
		}
		switch begin := closes[macro]; {
		case macro == "Bd" || macro == "Bl" || macro == "Rs":
			open = append(open, macro)
		case macro == "It" && (len(open) == 0 || open[len(open)-1] != "Bl"):
			problems = append(problems, fmt.Sprintf("not in a list: %q", line))
		case begin != "" && (len(open) == 0 || open[len(open)-1] != begin):
			problems = append(problems, fmt.Sprintf("closes nothing: %q", line))
		case begin != "":
			open = open[:len(open)-1]
		case (macro == "Sh" || macro == "Ss") && len(open) > 0:
			problems = append(problems, fmt.Sprintf("%s is not closed before %q", open[len(open)-1], line))
		}
	}
	if len(open) > 0 {
		problems = append(problems, open[len(open)-1]+" is not closed")
	}
	return problems
}

// TestMalformed: the check that does without mandoc finds what it should.
func TestMalformed(t *testing.T) {
	head := []string{".Dd November 23, 2026", ".Dt X 8", ".Os"}
	if p := malformed(append(slices.Clone(head), ".Bl -tag", ".It a", ".El")); len(p) > 0 {
		t.Errorf("a good page: %q", p)
	}
	for _, wrong := range []string{".Xx a", ".It a", ".El", ".Bl -tag\n.Ss b", ".Bd -literal", ".Bl -tag\n.Ed", "\u00fc"} {
		if len(malformed(append(slices.Clone(head), strings.Split(wrong, "\n")...))) == 0 {
			t.Errorf("nothing wrong was found with %q", wrong)
		}
	}
	if len(malformed(head[1:])) == 0 {
		t.Error("nothing wrong was found with a page without a date")
	}
}
