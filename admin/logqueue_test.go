package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A gate is a writer that blocks while it is shut. Its text may be read once
// the queue is closed.
type gate struct {
	bytes.Buffer
	open chan struct{} // closed when it opens
	err  error         // what Write returns, if not nil
}

// Write implements io.Writer.
func (g *gate) Write(line []byte) (int, error) {
	<-g.open
	if g.err != nil {
		return 0, g.err
	}
	return g.Buffer.Write(line)
}

// newQueuedLog returns a gate that is shut, a queue in front of it, and a
// logger that writes to the queue.
func newQueuedLog(format string) (*gate, *LogQueue, *slog.Logger) {
	g := &gate{open: make(chan struct{})}
	q := NewLogQueue(slog.New(NewHandler(g, format, slog.LevelInfo)))
	return g, q, slog.New(NewHandler(q.Writer(g), format, slog.LevelInfo))
}

// numbers returns the attribute "n" of all lines, with a report of dropped lines
// as a negative number.
func numbers(t *testing.T, format, text string) (all []int) {
	t.Helper()
	re := regexp.MustCompile(`msg=("log lines dropped" lines|m n)=(\d+)`)
	for line := range strings.Lines(text) {
		var l struct {
			Msg      string
			N, Lines int
		}
		if format == "json" {
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		} else if m := re.FindStringSubmatch(line); m != nil {
			fmt.Sscan(m[2], &l.N)
			if l.Msg = m[1]; l.Msg != "m n" {
				l.Msg, l.Lines = "log lines dropped", l.N
			}
		} else {
			t.Fatalf("unknown line %q", line)
		}
		if l.Msg == "log lines dropped" {
			all = append(all, -l.Lines)
		} else {
			all = append(all, l.N)
		}
	}
	return all
}

// TestLogNeverBlocks: while a write blocks, logging goes on. When it works
// again, the lines that had room come in order, then one line with how many are
// missing there, then what was logged later.
func TestLogNeverBlocks(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		synctest.Test(t, func(t *testing.T) {
			g, q, log := newQueuedLog(format)
			log.Info("m", "n", 0)
			synctest.Wait() // now a write blocks
			const flood = 20_000
			pad := strings.Repeat("x", 100)
			for n := 1; n < flood; n++ {
				log.Info("m", "n", n, "pad", pad)
			}
			dropped := int(q.Dropped())
			close(g.open)
			synctest.Wait()
			log.Info("m", "n", flood)
			if !q.Close(time.Second) {
				t.Error("not flushed")
			}
			all := numbers(t, format, g.String())
			kept := flood - dropped
			if dropped == 0 || len(all) != kept+2 || all[kept] != -dropped || all[kept+1] != flood {
				t.Fatalf("%s: %d lines, of which %d were dropped: %d are there, the last are %v", format, flood, dropped, len(all), all[len(all)-2:])
			}
			for i, n := range all[:kept] {
				if n != i {
					t.Fatalf("%s: line %d is number %d", format, i, n)
				}
			}
			if g.Len() < maxQueuedLog*9/10 || g.Len() > maxQueuedLog+1000 {
				t.Errorf("%d bytes waited, want about %d", g.Len(), maxQueuedLog)
			}
		})
	}
}

// TestLogSlowReader: with a reader that is too slow for a while, each gap has
// its report, the reports add up, and nothing is out of order.
func TestLogSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		q := NewLogQueue(slog.New(NewHandler(&out, "text", slog.LevelInfo)))
		log := slog.New(NewHandler(q.Writer(slowWriter{&out}), "text", slog.LevelInfo))
		const lines = 10_000
		pad := strings.Repeat("x", 1000)
		for n := range lines {
			log.Info("m", "n", n, "pad", pad)
			time.Sleep(500 * time.Microsecond) // the writer needs twice as long
		}
		q.Close(time.Hour)
		next, gaps, dropped := 0, 0, 0
		for _, n := range numbers(t, "text", out.String()) {
			if n < 0 {
				gaps, dropped, next = gaps+1, dropped-n, next-n
			} else if n != next {
				t.Fatalf("line %d follows line %d", n, next-1)
			} else {
				next++
			}
		}
		if next != lines || gaps < 2 || dropped != int(q.Dropped()) {
			t.Errorf("the lines end at %d of %d, with %d lines in %d gaps; %d were dropped", next, lines, dropped, gaps, q.Dropped())
		}
	})
}

// A slowWriter takes a millisecond for each line.
type slowWriter struct{ out *bytes.Buffer }

// Write implements io.Writer.
func (w slowWriter) Write(line []byte) (int, error) {
	time.Sleep(time.Millisecond)
	return w.out.Write(line)
}

// TestLogTime: a line has the time when it was logged, not that of its write.
func TestLogTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, q, log := newQueuedLog("text")
		want := "time=" + time.Now().Format("2006-01-02T15:04:05.000Z07:00") + " level=INFO msg=m\n"
		log.Info("m")
		time.Sleep(time.Hour)
		close(g.open)
		q.Close(time.Second)
		if got := g.String(); got != want {
			t.Errorf("got %q\nwant %q", got, want)
		}
	})
}

// TestLogClose: Close writes everything that was logged before, at once; it
// waits for a write that blocks, but not longer than its limit. Lines that come
// later are counted.
func TestLogClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, q, log := newQueuedLog("text")
		close(g.open)
		for n := range 1000 {
			log.Info("m", "n", n)
		}
		begin := time.Now()
		if !q.Close(2*time.Second) || time.Since(begin) != 0 {
			t.Errorf("not flushed, after %v", time.Since(begin))
		}
		log.Info("m", "n", 1000)
		if all := numbers(t, "text", g.String()); len(all) != 1000 || all[0] != 0 || all[999] != 999 || q.Dropped() != 1 {
			t.Errorf("%d lines, %d dropped", len(all), q.Dropped())
		}

		g, q, log = newQueuedLog("text")
		log.Info("m", "n", 1)
		begin = time.Now()
		if q.Close(2*time.Second) || time.Since(begin) != 2*time.Second {
			t.Errorf("flushed, or not given up after 2s but after %v", time.Since(begin))
		}
		close(g.open)
		synctest.Wait()
		if g.Len() == 0 {
			t.Error("the line is lost although its write returned at last")
		}
	})
}

// TestLogCloseAfterDrop: a report that waits is written by Close.
func TestLogCloseAfterDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, q, log := newQueuedLog("text")
		log.Info("m", "n", 0)
		synctest.Wait()
		for q.Dropped() < 3 {
			log.Info("m", "n", 1, "pad", strings.Repeat("x", 1000))
		}
		time.AfterFunc(time.Second, func() { close(g.open) })
		if !q.Close(2 * time.Second) {
			t.Error("not flushed")
		}
		if all := numbers(t, "text", g.String()); all[len(all)-1] != -3 {
			t.Errorf("the last line has %d, want a report of 3", all[len(all)-1])
		}
	})
}

// TestLogFailedWrites: lines whose write failed are dropped lines, which are
// reported once writing works again.
func TestLogFailedWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, q, log := newQueuedLog("text")
		g.err = errors.New("disk full")
		close(g.open)
		for n := range 3 {
			log.Info("m", "n", n)
			synctest.Wait()
		}
		g.err = nil
		log.Info("m", "n", 3)
		synctest.Wait()
		log.Info("m", "n", 4)
		q.Close(time.Second)
		if got := fmt.Sprint(numbers(t, "text", g.String())); got != "[3 -3 4]" || q.Dropped() != 3 {
			t.Errorf("the lines are %s, %d dropped", got, q.Dropped())
		}
	})
}

// TestLogConcurrent: lines do not mix, none is lost, and those of each
// goroutine keep their order.
func TestLogConcurrent(t *testing.T) {
	var out bytes.Buffer
	q := NewLogQueue(slog.New(slog.DiscardHandler))
	log := slog.New(NewHandler(q.Writer(&out), "text", slog.LevelInfo))
	const goroutines, lines = 8, 500
	var writers sync.WaitGroup
	for i := range goroutines {
		writers.Go(func() {
			for n := range lines {
				log.Info("m", "n", i*lines+n)
			}
		})
	}
	writers.Wait()
	if !q.Close(time.Minute) {
		t.Fatal("not flushed")
	}
	all := numbers(t, "text", out.String())
	next := make([]int, goroutines)
	for _, n := range all {
		if i := n / lines; n%lines != next[i] {
			t.Fatalf("line %d of goroutine %d comes after line %d", n%lines, i, next[i]-1)
		}
		next[n/lines]++
	}
	if len(all) != goroutines*lines || q.Dropped() != 0 {
		t.Errorf("%d lines, %d dropped", len(all), q.Dropped())
	}
}
