package admin

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// maxLines is how many lines of one kind a LogLimit passes per interval.
	maxLines = 5
	// limitInterval is how often a LogLimit starts to count anew.
	limitInterval = time.Minute
)

// A LogLimit bounds the log lines that clients can cause. Of each message, which must be a constant
// string, it passes maxLines per limitInterval, and then writes the number of those that it omitted. Its
// methods may be called concurrently.
type LogLimit struct {
	next slog.Handler

	mu    sync.Mutex
	kinds map[string]*lineCount // by message
}

// A lineCount is about the lines of one kind in the current interval.
type lineCount struct {
	level   slog.Level
	passed  int
	omitted int
}

// NewLogLimit returns a LogLimit that passes lines to next. It passes no more than maxLines of a kind
// unless Run is running.
func NewLogLimit(next slog.Handler) *LogLimit {
	return &LogLimit{next: next, kinds: make(map[string]*lineCount)}
}

// Logger returns a logger whose lines are bounded.
func (l *LogLimit) Logger() *slog.Logger { return slog.New(limitHandler{l.next, l}) }

// Run writes the numbers of omitted lines, until ctx is done. Then it writes the last ones.
func (l *LogLimit) Run(ctx context.Context) {
	tick := time.NewTicker(limitInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			l.report()
			return
		case <-tick.C:
			l.report()
		}
	}
}

// report writes the numbers of omitted lines, and starts to count anew.
func (l *LogLimit) report() {
	l.mu.Lock()
	kinds := l.kinds
	l.kinds = make(map[string]*lineCount)
	l.mu.Unlock()
	for _, message := range slices.Sorted(maps.Keys(kinds)) {
		if count := kinds[message]; count.omitted > 0 {
			slog.New(l.next).LogAttrs(context.Background(), count.level, "log lines omitted",
				slog.String("message", message), slog.Int("lines", count.omitted))
		}
	}
}

// pass counts a line, and reports whether it is to be written.
func (l *LogLimit) pass(message string, level slog.Level) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	count := l.kinds[message]
	if count == nil {
		count = new(lineCount)
		l.kinds[message] = count
	}
	count.level = level
	if count.passed < maxLines {
		count.passed++
		return true
	}
	count.omitted++
	return false
}

// A limitHandler is the handler of a LogLimit's logger.
type limitHandler struct {
	slog.Handler
	limit *LogLimit
}

// Handle implements slog.Handler.
func (h limitHandler) Handle(ctx context.Context, r slog.Record) error {
	if !h.limit.pass(r.Message, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h limitHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return limitHandler{h.Handler.WithAttrs(attrs), h.limit}
}

// WithGroup implements slog.Handler.
func (h limitHandler) WithGroup(name string) slog.Handler {
	return limitHandler{h.Handler.WithGroup(name), h.limit}
}
