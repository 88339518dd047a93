package socketmap

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// abortWait is how long Shutdown waits, once its context is done, for handlers to return and replies to be
// written, and again after it has closed the connections.
const abortWait = time.Second

// Shutdown stops the server: it closes the listeners and then every connection, after the reply if a
// request is being answered. A request that has already arrived is answered. A connection that has
// not had a request may stay open until a second after it was accepted. Shutdown returns nil when all
// of this is done.
//
// When ctx is done first, the contexts of the handlers are cancelled, the connections are closed without
// the pending replies, so that clients ask again elsewhere, and the error wraps that of ctx. A handler
// that returns when its context is done has returned before Shutdown. For others Shutdown waits about two
// seconds, and the error then has the number of connections that remain.
//
// After Shutdown the server cannot be used again. Concurrent calls are allowed, and all wait.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.init()
	if !s.stopping {
		s.stopping = true
		close(s.quit)
	}
	listeners := slices.Collect(maps.Keys(s.conns))
	for _, conns := range s.conns {
		for c := range conns {
			c.nc.SetReadDeadline(longAgo())
		}
	}
	s.mu.Unlock()
	for _, l := range listeners {
		l.Close()
	}

	done := make(chan struct{})
	go func() { // ends with the last handler, even if that ignores its context
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
	// The contexts first: closing the connections at once could split a reply that is being written.
	s.kill()
	if waitFor(done, abortWait) {
		return err
	}
	s.mu.Lock()
	var open []*conn
	for _, conns := range s.conns {
		open = slices.AppendSeq(open, maps.Keys(conns))
	}
	s.mu.Unlock()
	for _, c := range open {
		c.nc.Close()
	}
	if waitFor(done, abortWait) {
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
