package bench

import (
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A figure is a number that a benchmark reports.
type figure struct {
	value float64
	unit  string // of the metric; a benchmark has each once
	what  string // what it is, for people
	goal  string // what stsmap promises; empty: it is there for comparison
	peer  string // what the best other program reached, if that was measured
}

// report makes metrics of all that a benchmark measured, and prints them as rows.
func report(b *testing.B, all ...figure) {
	b.ReportMetric(0, "ns/op") // which hides it: what a run takes is no figure
	for _, f := range all {
		b.ReportMetric(f.value, f.unit)
	}
	if once() {
		fmt.Fprint(os.Stderr, rows(strings.TrimPrefix(b.Name(), "Benchmark"), all))
	}
}

// once reports whether each benchmark runs once. Before a further run testing begins a line, which rows would break.
func once() bool { return flag.Lookup("test.count").Value.String() == "1" }

// rows are 80 columns wide at most, and no lines that benchstat takes for its own.
func rows(name string, all []figure) string {
	var text strings.Builder
	fmt.Fprintln(&text, "-", name)
	for _, f := range all {
		fmt.Fprintln(&text, row(f.what, number(f.value), f.unit, f.goal, f.peer))
	}
	return text.String()
}

func row(what, value, unit, goal, peer string) string {
	line := fmt.Sprintf("  %-35s%9s %-16s%9s%8s", what, value, unit, goal, peer)
	return strings.TrimRight(line, " ")
}

// number has about four digits, or those of an integer.
func number(v float64) string {
	switch size := max(v, -v); {
	case size >= 1000 || v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	case size >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.3f", v)
	}
}

func tableHead() {
	if once() {
		fmt.Fprintln(os.Stderr, row("FIGURE", "MEASURED", "UNIT", "GOAL", "PEER"))
	}
}

// tableFoot prints what the figures depend on.
func tableFoot(began time.Time) {
	var u unix.Utsname
	_ = unix.Uname(&u) // without it there is one word less
	how := ""
	if testing.Short() {
		how = ", -short: not to compare"
	}
	fmt.Fprintf(os.Stderr, "- %d cores, %s, Linux %s; took %s%s\n", runtime.NumCPU(), runtime.Version(),
		unix.ByteSliceToString(u.Release[:]), time.Since(began).Round(time.Second), how)
}

func millis(d time.Duration) float64 { return float64(d) / 1e6 }

func micros(d time.Duration) float64 { return float64(d) / 1e3 }

// median returns the middle one, of an even number the lower. It changes nothing in all, and needs one.
func median[T float64 | time.Duration](all []T) T {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[(len(sorted)-1)/2]
}

// Rows fit into 80 columns with the longest that they may have, and benchstat passes over them: it takes lines that
// begin with "Benchmark", "Unit", or a word in lower case and a colon.
func TestRows(t *testing.T) {
	text := rows("Cached/tcp/conns=64/keys=10000", []figure{
		{1234567, "B/domain-anon", "anonymous part, after 25 s of rest", "<= 1000", "1690"},
		{-99.94, "%undisturbed", strings.Repeat("x", 35), "<= 120 %", "64 %"},
		{0.0004, "allocs", "allocations per lookup", "0", ""},
	})
	const want = "- Cached/tcp/conns=64/keys=10000\n" +
		"  anonymous part, after 25 s of rest   1234567 B/domain-anon     <= 1000    1690\n" +
		"  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx    -99.9 %undisturbed     <= 120 %    64 %\n" +
		"  allocations per lookup                 0.000 allocs                  0\n"
	if text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	for line := range strings.Lines(text) {
		if len(line) > 81 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
}
