package socketmap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrServerClosed is what [Server.Serve] returns after [Server.Shutdown]. It is no failure; the caller
// waits for Shutdown to return.
var ErrServerClosed = errors.New("socketmap: server closed")

// A Server answers socketmap requests. Handler must be set; every other field may be zero. None may be
// changed after the first call of Serve.
//
// A Server sends exactly one well-formed netstring per request, in the order of the requests, or closes
// the connection:
//
//   - A malformed request, or one of more than 10000 bytes, closes the connection without a byte and
//     is logged. Malformed are also lengths with leading zeros, an empty payload, and an empty map name.
//   - A handler that panics is logged with its stack, and answered for with "TEMP internal error".
//   - A reply that must not be sent (see [Reply]) is logged, and replaced by "TEMP internal error".
//   - A reply that could not be written as a whole closes the connection.
type Server struct {
	// Handler answers the requests.
	Handler Handler

	// MaxConns is the number of connections served at a time, over all listeners; zero means 2048.
	// When there are more, the connection closes that has waited for a request the longest, which
	// Postfix does not mind; while every connection has a request, the next one waits.
	MaxConns int

	// Idle is how long at least a connection may go without a request before it is closed, counted from
	// the beginning of the last reply; zero means 180 s. It should not be under 110 s: Postfix does not always notice its own limit of 100 s.
	Idle time.Duration

	// Timeout is how long a client may take from the first byte of a request to the last, and for
	// taking a reply; zero means 10 s. The wait for a reply to be taken may be half as long.
	Timeout time.Duration

	// Log receives what goes wrong; nil discards it. Each message concerns a whole connection or is
	// a bug of the handler; lookups are not logged.
	Log *slog.Logger

	panics, malformed, unfit, evicted atomic.Uint64

	epoch   time.Time          // when the server began; conn measures time from here
	hard    context.Context    // done when handlers must end
	kill    context.CancelFunc // ends hard
	quit    chan struct{}      // closed by Shutdown
	replies sync.Pool          // of *replyBuffer, which only connections that are replying need
	running sync.WaitGroup     // calls of Serve, and connections
	crowded atomic.Int32       // calls of admit that wait for room

	mu        sync.Mutex
	room      *sync.Cond // signals that admit may look again; nil before the first use of the server
	stopping  bool
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
}

// Stats is what a server counted since it began.
type Stats struct {
	// Conns is the number of connections at present.
	Conns int

	// Busy is the number of connections whose request is being answered at present.
	Busy int

	// Panics is the number of panics of the handler, Unfit the number of replies that were replaced
	// because they must not be sent. Both are bugs of the handler.
	Panics, Unfit uint64

	// Malformed is the number of connections that were closed because of what the client sent,
	// or because it did not finish a request within Timeout.
	Malformed uint64

	// Evicted is the number of waiting connections that were closed to make room for others.
	Evicted uint64
}

// Stats returns a snapshot of the counters. It may be called at any time, also on a server that has not
// started.
func (s *Server) Stats() Stats {
	conns, busy := s.count()
	return Stats{
		Conns:     conns,
		Busy:      busy,
		Panics:    s.panics.Load(),
		Unfit:     s.unfit.Load(),
		Malformed: s.malformed.Load(),
		Evicted:   s.evicted.Load(),
	}
}

// count goes through all connections: what it costs is paid by who asks, and not by every request.
func (s *Server) count() (conns, busy int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.waiting.Load() == 0 {
			busy++
		}
	}
	return len(s.conns), busy
}

// ConnsOn returns the number of connections at present that came in through l.
func (s *Server) ConnsOn(l net.Listener) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.from == l {
			n++
		}
	}
	return n
}

// Serve accepts connections from l and serves them, until Shutdown or until l is closed or unusable; it
// closes l when it returns. It may be called for several listeners at the same time. The error is
// never nil: ErrServerClosed after Shutdown, and otherwise what l said. Errors that can pass, such as
// a lack of file descriptors, do not end it: it logs them and tries again.
//
// Closing a Unix listener that was created with net.Listen removes the socket's file; one that systemd
// passed keeps it. A caller who wants it otherwise calls SetUnlinkOnClose on the listener.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if !s.begin(l) {
		return ErrServerClosed
	}
	defer s.end(l)

	var pause backoff
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			if pause.reset() {
				s.log().Info("accepting connections again", "listener", l.Addr().String())
			}
			s.admit(nc, l)
		case s.isStopping():
			return ErrServerClosed
		case isPermanent(err):
			return fmt.Errorf("socketmap: %w", err)
		default:
			if pause.isNews(err) {
				s.log().Error("cannot accept connections", "listener", l.Addr().String(), "error", err)
			}
			// A connection that nobody uses may be what holds the descriptor that is missing here.
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
				s.makeRoom()
			}
			pause.sleep(s.quit)
		}
	}
}

// begin initializes the server if that is still to be done, and registers l and a running Serve. It
// reports false if the server has been shut down.
func (s *Server) begin(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.init()
	if s.stopping {
		return false
	}
	s.listeners[l] = struct{}{}
	s.running.Add(1)
	return true
}

// init makes the zero server usable. s.mu must be held.
func (s *Server) init() {
	if s.room != nil {
		return
	}
	s.room = sync.NewCond(&s.mu)
	s.epoch = time.Now()
	s.hard, s.kill = context.WithCancel(context.Background())
	s.quit = make(chan struct{})
	s.replies.New = func() any { return &replyBuffer{b: make([]byte, 0, 1024)} }
	s.listeners = make(map[net.Listener]struct{})
	s.conns = make(map[*conn]struct{})
}

// end is the inverse of begin.
func (s *Server) end(l net.Listener) {
	s.mu.Lock()
	delete(s.listeners, l)
	s.mu.Unlock()
	s.running.Done()
}

func (s *Server) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

func (s *Server) log() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

func (s *Server) maxConns() int {
	if s.MaxConns <= 0 {
		return 2048
	}
	return s.MaxConns
}

func (s *Server) idle() time.Duration {
	if s.Idle <= 0 {
		return 180 * time.Second
	}
	return s.Idle
}

func (s *Server) timeout() time.Duration {
	if s.Timeout <= 0 {
		return 10 * time.Second
	}
	return s.Timeout
}

// isPermanent reports whether accept will never succeed again. The list names what is hopeless, not
// what is temporary: a server that gave up over an error nobody thought of would defer all mail.
func isPermanent(err error) bool {
	for _, e := range []error{net.ErrClosed, io.EOF, syscall.EBADF, syscall.EINVAL, syscall.ENOTSOCK, syscall.EOPNOTSUPP} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// A backoff spaces out the attempts to accept, and tells which errors are news. The zero value is ready.
type backoff struct {
	wait time.Duration // before the next attempt; 0 if the last one succeeded
	last string        // the last error, as text
}

// reset notes a success, and reports whether it ended a series of errors.
func (b *backoff) reset() bool {
	failed := b.wait > 0
	*b = backoff{}
	return failed
}

// isNews notes err, and reports whether it differs from the one before.
func (b *backoff) isNews(err error) bool {
	text := err.Error()
	news := text != b.last
	b.last = text
	return news
}

// sleep waits 5 ms, the next time twice as long, and at most 1 s, or until quit is closed.
func (b *backoff) sleep(quit <-chan struct{}) {
	b.wait = min(max(2*b.wait, 5*time.Millisecond), time.Second)
	waitFor(quit, b.wait)
}
