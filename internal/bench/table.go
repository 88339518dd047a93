package main

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// A table prints the figures, a line each, as they come.
type table struct{ out io.Writer }

const tableRow = "%-50s %14s %10s %9s\n"

func (t *table) head() {
	fmt.Fprintf(t.out, tableRow, "figure", "measured", "target", "best peer")
	fmt.Fprintln(t.out, strings.Repeat("-", 86))
}

// row prints a figure. Peers that were not measured have "".
func (t *table) row(figure, measured, target, peer string) {
	fmt.Fprintf(t.out, tableRow, figure, measured, target, peer)
}

// foot tells what the figures depend on.
func (t *table) foot(took time.Duration, quick bool) {
	fmt.Fprintln(t.out, strings.Repeat("-", 86))
	how := ""
	if quick {
		how = ", quick"
	}
	fmt.Fprintf(t.out, "%d cores, %s, %s; took %s%s\n", runtime.NumCPU(), runtime.Version(), kernel(), took.Round(time.Second), how)
}

// kernel is the name and release of the running one.
func kernel() string {
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		return runtime.GOOS
	}
	return text(u.Sysname[:]) + " " + text(u.Release[:])
}

// text is a C string. The type of its characters differs among architectures.
func text[C int8 | uint8](chars []C) string {
	var b strings.Builder
	for _, c := range chars {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	return b.String()
}

func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }

func micros(d time.Duration) string { return fmt.Sprintf("%.1f µs", float64(d)/1e3) }
