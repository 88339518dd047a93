package socketmap

import (
	"context"
	"fmt"
	"time"
)

// obeyTime is how long handlers have to return and replies to be taken once the context of Shutdown is
// done, and again how long Shutdown waits after it has closed the connections.
const obeyTime = time.Second

// Shutdown stops the server: it closes the listeners and then every connection, at once if it is waiting
// for a request, and otherwise after the reply. A request that has already arrived is answered. It
// returns nil when all of this is done.
//
// When ctx is done first, the contexts of the handlers are cancelled, the connections are closed without
// the replies that were to come, so that clients ask again elsewhere, and the error wraps that of ctx. A handler that returns when its context
// is done has returned before Shutdown; for others Shutdown waits about two seconds, and then says in
// the error how many connections it left behind.
//
// After Shutdown the server cannot be used again. More than one call is allowed, and all wait.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.init()
	if !s.stopping {
		s.stopping = true
		close(s.quit)
	}
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.conns {
		c.retire()
	}
	s.mu.Unlock()
	s.room.Broadcast()

	done := make(chan struct{})
	go func() { // ends with the last handler; nothing else could wait for one that does not obey
		s.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		s.kill()
		return nil
	case <-ctx.Done():
		return s.abort(ctx, done)
	}
}

// abort ends what Shutdown could not end in time.
func (s *Server) abort(ctx context.Context, done <-chan struct{}) error {
	err := fmt.Errorf("socketmap: shutdown: %w", context.Cause(ctx))
	// The contexts first: replies that are being written get out whole, while closing the connections
	// at once could cut one in two.
	s.kill()
	if waitFor(done, obeyTime) {
		return err
	}
	s.mu.Lock()
	for c := range s.conns {
		c.nc.Close()
	}
	s.mu.Unlock()
	if waitFor(done, obeyTime) {
		return err
	}
	return fmt.Errorf("%w, with %d connections in handlers that ignore their context", err, s.Stats().Conns)
}

// waitFor reports whether done is closed within d.
func waitFor(done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}
