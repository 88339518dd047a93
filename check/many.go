package check

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"iter"
	"strings"
	"sync"
)

const (
	// workers is how many domains are looked at at once.
	workers = 16
	// ahead is how many domains may be finished before the one that is to be
	// reported next. A slow domain delays the reports of the others, but not
	// their checks.
	ahead = 4 * workers
	// longestLine is more than any key needs, in bytes.
	longestLine = 1 << 10
)

// Each checks all keys, some at a time, and calls do with the Report about each,
// in the order of the keys. It needs no more memory for many than for some. It
// returns the first error of do, or that of ctx, and then has checked no more. The
// keys are iterated over by another goroutine, which has ended when Each returns.
func (k *Checker) Each(ctx context.Context, keys iter.Seq[string], do func(*Report) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	queue := make(chan chan *Report, ahead)
	running.Go(func() {
		defer close(queue)
		slots := make(chan struct{}, workers)
		for key := range keys {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			report := make(chan *Report, 1)
			select {
			case queue <- report:
			case <-ctx.Done():
				return
			}
			running.Go(func() {
				defer func() { <-slots }()
				report <- k.Check(ctx, key)
			})
		}
	})
	for report := range queue {
		select {
		case r := <-report:
			if err := do(r); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// Keys reads keys, one a line: empty lines and what follows a "#" is left out, and
// the rest is for Check to judge. A line that is longer than any key is cut. An
// error of r ends it, and is returned by the function that is returned, too.
func Keys(r io.Reader) (keys iter.Seq[string], failure func() error) {
	var failed error
	return func(yield func(string) bool) {
		in := bufio.NewReaderSize(r, longestLine)
		for {
			line, more, err := in.ReadLine()
			if err != nil {
				if err != io.EOF {
					failed = err
				}
				return
			}
			key := bytes.Clone(line)
			for more && err == nil {
				_, more, err = in.ReadLine()
			}
			text, _, _ := strings.Cut(string(key), "#")
			if text = strings.TrimSpace(text); text != "" && !yield(text) {
				return
			}
		}
	}, func() error { return failed }
}
