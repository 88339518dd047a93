package admin

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A lockedLog is a log that can be read while it is written.
type lockedLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// take returns what was written since the last call.
func (l *lockedLog) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return l.b.String()
}

// TestLogLimit: each kind of line has some lines a minute, the first at once. The number of omitted lines
// follows within a minute, and at the end.
func TestLogLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedLog
		limit := NewLogLimit(slog.NewTextHandler(&log, nil))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { limit.Run(ctx); close(done) }()
		flood := func(n int) {
			for range n {
				limit.Logger().With("a", 1).WithGroup("g").Warn("flood", "b", 2)
			}
			limit.Logger().Debug("below the level")
			limit.Logger().Error("other")
		}
		want := func(lines ...string) {
			t.Helper()
			synctest.Wait()
			var got []string
			for line := range strings.Lines(log.take()) {
				_, line, _ = strings.Cut(strings.TrimSpace(line), " ") // without the time
				got = append(got, line)
			}
			if strings.Join(got, "\n") != strings.Join(lines, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
			}
		}
		const line, other = "level=WARN msg=flood a=1 g.b=2", "level=ERROR msg=other"
		flood(1)
		want(line, other)
		flood(5000)
		flood(1)
		want(line, line, line, line, other, other)
		time.Sleep(time.Minute + time.Second)
		want(`level=WARN msg="log lines omitted" message=flood lines=4997`)
		time.Sleep(10 * time.Minute)
		want()
		flood(7)
		want(line, line, line, line, line, other)
		cancel()
		<-done
		want(`level=WARN msg="log lines omitted" message=flood lines=2`)
	})
}
