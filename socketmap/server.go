package socketmap

import (
	"cmp"
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

// ErrServerClosed is returned by [Server.Serve] after [Server.Shutdown]. It is no failure; the caller
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
//   - A panic of the handler is logged with its stack, and the reply is "TEMP internal error".
//   - A reply that must not be sent (see [Reply]) is logged, and replaced by "TEMP internal error".
//   - A reply that could not be written as a whole closes the connection.
type Server struct {
	// Handler answers the requests.
	Handler Handler

	// MaxConns is the maximum number of connections of each listener; zero means 2048. Listeners do
	// not share it, so that the clients of one cannot occupy another. For one more, the connection
	// that has waited longest for a request is closed, which Postfix tolerates. Connections are not
	// closed in their first second, and in their first Timeout without a request only after others.
	// While none can be closed, the next one waits.
	MaxConns int

	// Idle is the minimum time without a request after which a connection is closed, counted from the
	// beginning of the last reply; zero means 180 s. It should be at least 110 s: Postfix does not
	// always notice its own limit of 100 s.
	Idle time.Duration

	// Timeout is how long a client may take from the first byte of a request to the last, and for
	// reading a reply; zero means 10 s. The limit for reading a reply may be half as long.
	Timeout time.Duration

	// Log receives failures; nil discards them. Each message concerns a whole connection or is a bug
	// of the handler; lookups are not logged. Clients can cause any number of messages.
	Log *slog.Logger

	panics, malformed, unfit, evicted atomic.Uint64

	// Set by init, the first three from the fields above.
	maxConns      int
	idle, timeout time.Duration
	log           *slog.Logger
	epoch         time.Time          // when the server began; conn measures time from here
	hard          context.Context    // done when handlers must end
	kill          context.CancelFunc // ends hard
	quit          chan struct{}      // closed by Shutdown; nil before init

	replies sync.Pool      // of *replyBuffer, needed only while a connection replies
	running sync.WaitGroup // calls of Serve, and connections

	mu       sync.Mutex
	stopping bool
	conns    map[net.Listener]map[*conn]struct{} // by the listener they came from
}

// Stats are the counters of a server.
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

	// Evicted is the number of waiting connections that were closed in favour of others.
	Evicted uint64
}

// Stats returns a snapshot of the counters. It may be called at any time, also on a server that has not
// started.
func (s *Server) Stats() Stats {
	out := Stats{
		Panics:    s.panics.Load(),
		Unfit:     s.unfit.Load(),
		Malformed: s.malformed.Load(),
		Evicted:   s.evicted.Load(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conns := range s.conns {
		out.Conns += len(conns)
		for c := range conns {
			if c.waiting.Load() == 0 {
				out.Busy++
			}
		}
	}
	return out
}

// ConnsOn returns the number of connections at present that were accepted from l.
func (s *Server) ConnsOn(l net.Listener) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns[l])
}

// Serve accepts connections from l and serves them, until Shutdown or until l is closed or unusable; it
// closes l when it returns. It may be called for several listeners concurrently. The error is
// never nil: ErrServerClosed after Shutdown, and otherwise the error of l. Temporary errors, such as
// a lack of file descriptors, do not end it: it logs them, once while they last, and tries again.
//
// Closing a Unix listener that was created with net.Listen removes the socket's file; one that systemd
// passed keeps it. Callers change that with SetUnlinkOnClose of the listener.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if !s.begin(l) {
		return ErrServerClosed
	}
	defer s.running.Done()

	var trouble acceptTrouble
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			if trouble.succeeded(time.Now()) {
				s.log.Info("accepting connections again", "listener", l.Addr().String())
			}
			s.admit(nc, l)
		case s.isStopping():
			return ErrServerClosed
		case isPermanent(err):
			return fmt.Errorf("socketmap: %w", err)
		default:
			if trouble.failed(err, time.Now()) {
				s.log.Error("cannot accept connections", "listener", l.Addr().String(), "error", err)
			}
			// An idle connection may have the descriptor that is missing here.
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
				s.evict(nil)
			}
			waitFor(s.quit, trouble.pause)
		}
	}
}

// begin initializes the server if necessary, and registers l and a running Serve. It returns false if
// the server has been shut down.
func (s *Server) begin(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.init()
	if s.stopping {
		return false
	}
	s.conns[l] = make(map[*conn]struct{})
	s.running.Add(1)
	return true
}

// init makes the zero server usable. s.mu must be held.
func (s *Server) init() {
	if s.quit != nil {
		return
	}
	s.maxConns = cmp.Or(max(0, s.MaxConns), 2048)
	s.idle = cmp.Or(max(0, s.Idle), 180*time.Second)
	s.timeout = cmp.Or(max(0, s.Timeout), 10*time.Second)
	s.log = cmp.Or(s.Log, slog.New(slog.DiscardHandler))
	s.epoch = time.Now()
	s.hard, s.kill = context.WithCancel(context.Background())
	s.quit = make(chan struct{})
	s.replies.New = func() any { return &replyBuffer{b: make([]byte, 0, 1024)} }
	s.conns = make(map[net.Listener]map[*conn]struct{})
}

func (s *Server) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// now returns the time since the epoch, which is never 0.
func (s *Server) now() time.Duration { return max(1, time.Since(s.epoch)) }

// isPermanent reports whether accept will never succeed again. The list names permanent errors, not
// temporary ones: a server that ended for an unexpected error would defer all mail.
func isPermanent(err error) bool {
	for _, e := range []error{net.ErrClosed, io.EOF, syscall.EBADF, syscall.EINVAL, syscall.ENOTSOCK, syscall.EOPNOTSUPP} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// recoveryTime is how long accept must not fail before its trouble is over. Where descriptors are short it
// succeeds and fails in turns.
const recoveryTime = 10 * time.Second

// An acceptTrouble follows the errors of accept. The zero value is ready.
type acceptTrouble struct {
	pause time.Duration // before the next attempt, if the last one failed
	last  string        // the last error, as text; empty if there is no trouble
	at    time.Time     // of the last error
}

// failed notes an error, and reports whether it is to be logged.
func (a *acceptTrouble) failed(err error, now time.Time) bool {
	text := err.Error()
	changed := text != a.last
	a.last, a.at = text, now
	a.pause = min(max(2*a.pause, 5*time.Millisecond), time.Second)
	return changed
}

// succeeded notes a success, and reports whether the trouble has just ended.
func (a *acceptTrouble) succeeded(now time.Time) bool {
	a.pause = 0
	if a.last == "" || now.Sub(a.at) < recoveryTime {
		return false
	}
	a.last = ""
	return true
}
