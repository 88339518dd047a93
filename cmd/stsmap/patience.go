package main

import (
	"errors"
	"time"
)

// fileLimit is how long the daemon waits for the files of the administrator,
// which may be on a network file system whose server does not answer.
const fileLimit = 5 * time.Second

var errFileHangs = errors.New("the file system does not answer")

// A fileQueue runs what reads files, one after the other. Create it with
// newFileQueue. It may be used concurrently.
type fileQueue struct {
	limit time.Duration
	free  chan struct{} // holds a value while nothing runs
}

func newFileQueue(limit time.Duration) *fileQueue {
	q := &fileQueue{limit: limit, free: make(chan struct{}, 1)}
	q.free <- struct{}{}
	return q
}

// do runs read and returns nil, or errFileHangs if read, or what is before it in
// the queue, has not returned in time. Then read may still run, or it never runs;
// the caller must not look at what it sets. Its goroutine cannot be ended, since
// the kernel does not return from the call; so there is at most one.
func (q *fileQueue) do(read func()) error {
	late := time.After(q.limit)
	select {
	case <-q.free:
	case <-late:
		return errFileHangs
	}
	done := make(chan struct{})
	go func() {
		defer func() { q.free <- struct{}{} }()
		read()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-late:
		return errFileHangs
	}
}
