package admin

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// maxQueuedLog is how many bytes of lines wait in a LogQueue at most. As many
// again may be in the batch that is being written.
const maxQueuedLog = 1 << 20

// A LogQueue writes log lines in a goroutine of its own, in order, so that
// logging never blocks: not on a full pipe, and not on a journal that does not
// read. Lines that find the queue full are dropped and counted, and a line
// says how many there were as soon as writing works again. A line whose write
// failed counts as dropped, too. Its methods may be called concurrently.
type LogQueue struct {
	direct  *slog.Logger // writes without a queue
	dropped atomic.Uint64
	changed *sync.Cond    // lines or closed have changed; its lock is mu
	done    chan struct{} // closed when everything is written after Close

	mu      sync.Mutex
	lines   []queuedLine
	size    int    // of lines, in bytes
	missing uint64 // lines that were dropped after the last of lines
	closed  bool
}

// A queuedLine writes one line.
type queuedLine func() error

// NewLogQueue returns an empty queue, and starts its goroutine, which Close
// ends. The queue reports dropped lines to direct, which must write to where
// the lines go, without the queue.
func NewLogQueue(direct *slog.Logger) *LogQueue {
	q := &LogQueue{direct: direct, done: make(chan struct{})}
	q.changed = sync.NewCond(&q.mu)
	go q.run()
	return q
}

// Add queues a line of about size bytes, or drops it if the queue is full or
// closed. The queue calls write once, and never while another one runs.
func (q *LogQueue) Add(size int, write func() error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	full := len(q.lines) > 0 && q.size+size > maxQueuedLog
	// After the first dropped line, further lines are dropped even if they fit:
	// so the report stands where all of them are missing.
	if full || q.missing > 0 || q.closed {
		q.missing++
		q.dropped.Add(1)
		return
	}
	q.lines = append(q.lines, write)
	q.size += size
	q.changed.Signal()
}

// Dropped returns how many lines were dropped so far.
func (q *LogQueue) Dropped() uint64 { return q.dropped.Load() }

// Writer returns a writer whose Write queues one line for w. It copies the
// line, and never fails.
func (q *LogQueue) Writer(w io.Writer) io.Writer { return queueWriter{q, w} }

type queueWriter struct {
	queue *LogQueue
	w     io.Writer
}

// Write implements io.Writer.
func (w queueWriter) Write(line []byte) (int, error) {
	text := append([]byte(nil), line...)
	w.queue.Add(len(text), func() error {
		_, err := w.w.Write(text)
		return err
	})
	return len(line), nil
}

// Close writes what is queued, for as long as limit, and reports whether
// everything is written. If it is not, a write still blocks, and the goroutine
// of the queue stays until it returns. Lines that are added later are dropped.
func (q *LogQueue) Close(limit time.Duration) (flushed bool) {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.changed.Signal()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-q.done:
		return true
	case <-timer.C:
		return false
	}
}

// run writes what is queued until the queue is closed and empty.
func (q *LogQueue) run() {
	defer close(q.done)
	var unreported uint64
	for {
		lines, missing := q.next()
		if len(lines) == 0 && missing == 0 {
			return
		}
		var err error
		for _, write := range lines {
			if err = write(); err != nil {
				q.dropped.Add(1)
				unreported++
			}
		}
		// While writing fails, the report would be lost as well.
		if unreported += missing; unreported > 0 && err == nil {
			q.direct.LogAttrs(context.Background(), slog.LevelWarn, "log lines dropped", slog.Uint64("lines", unreported))
			unreported = 0
		}
	}
}

// next waits for lines and takes them out of the queue, with how many were
// dropped after them. It returns none once the queue is closed and empty.
func (q *LogQueue) next() (lines []queuedLine, missing uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.lines) == 0 && !q.closed {
		q.changed.Wait()
	}
	lines, missing = q.lines, q.missing
	q.lines, q.size, q.missing = nil, 0, 0
	return lines, missing
}
