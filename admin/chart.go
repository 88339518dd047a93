package admin

import (
	"fmt"
	"time"
)

// A chart is one of the page: a bar for each part of the time, the latest at the
// right. All of it is numbers and our own words.
type chart struct {
	Title string
	Bars  []bar
	Top   uint64 // answers in the highest bar
	Begin string // what stands at the left of the axis

	Total, Protected, Waits uint64
}

// A bar is one part of the time, from the ground up: what waits, what is
// protected, and the rest. Each has a height and a place from above.
type bar struct {
	X, Width float64
	Parts    []barPart
	Words    string // the tooltip, also for screen readers
}

// A barPart is one colour of a bar.
type barPart struct {
	Class     string
	Y, Height float64
}

// The size of a chart in its own units; the page scales it.
const (
	chartWidth, chartHeight = 600.0, 110.0
	barGap                  = 1.0
)

// protectedIn returns the number of answers that let mail go only to an
// authenticated host.
func (t tally) protectedIn() uint64 { return t[secure] + t[onlyDANE] }

// newChart draws parts, each so long; the last one ends now.
func newChart(title, begin string, parts []tally, each time.Duration, now time.Time) chart {
	c := chart{Title: title, Begin: begin}
	for _, p := range parts {
		c.Total += p.sum()
		c.Protected += p.protectedIn()
		c.Waits += p[temporary]
		c.Top = max(c.Top, p.sum())
	}
	width := chartWidth / float64(len(parts))
	for i, p := range parts {
		b := bar{X: float64(i) * width, Width: width - barGap}
		y := chartHeight
		for _, part := range []struct {
			class string
			n     uint64
		}{{"waits", p[temporary]}, {"protected", p.protectedIn()}, {"other", p.sum() - p[temporary] - p.protectedIn()}} {
			if part.n == 0 {
				continue
			}
			height := chartHeight * float64(part.n) / float64(c.Top)
			if part.class == "waits" {
				height = max(height, 2) // it must be seen, however little it is
			}
			y -= height
			b.Parts = append(b.Parts, barPart{part.class, max(y, 0), height})
		}
		from := now.Add(-each * time.Duration(len(parts)-i))
		if i == len(parts)-1 {
			b.Words = "just now"
		} else {
			b.Words = "about " + from.Local().Format("15:04")
		}
		b.Words += fmt.Sprintf(": %d lookups, %d protected, %d made to wait", p.sum(), p.protectedIn(), p[temporary])
		if p.sum() > 0 {
			c.Bars = append(c.Bars, b)
		}
	}
	return c
}

// Words tells who cannot see the chart what is on it.
func (c chart) Words() string {
	return fmt.Sprintf("%s: %d lookups, %d of them protected, %d made mail wait; at most %d in one bar", c.Title, c.Total, c.Protected, c.Waits, c.Top)
}
