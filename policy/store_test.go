package policy

import (
	"context"
	"errors"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"stsmap/cache"
)

// A testStore is a store, shared or not. Each of its operations can be made to
// fail, and Get and Put to hang.
type testStore struct {
	handle
	failing sync.Map             // of Op
	hanging atomic.Pointer[hang] // nil if nothing hangs
	touches atomic.Int32
}

// A hang is a time in which a testStore hangs.
type hang struct {
	onlyPut bool
	over    chan struct{} // closed at its end
}

func newTestStore() *testStore {
	return &testStore{handle: handle{&sharedMemory{Memory: cache.NewMemory(100_000), claims: make(map[string]claim)}}}
}

// fail has some operations fail from now on, and all others work.
func (s *testStore) fail(ops ...Op) {
	s.failing.Clear()
	for _, op := range ops {
		s.failing.Store(op, true)
	}
}

// set sets the state of the store: "works", "fails" (Get and Put), "hangs" (Get
// and Put) or "write-hangs" (Put). It ends the state before.
func (s *testStore) set(state string) error {
	var next *hang
	s.fail()
	switch state {
	case "hangs", "write-hangs":
		next = &hang{state == "write-hangs", make(chan struct{})}
	case "fails":
		s.fail(OpGet, OpPut)
	case "works":
	default:
		return errors.New("unknown state")
	}
	if last := s.hanging.Swap(next); last != nil {
		close(last.over)
	}
	return nil
}

// err returns the error of an operation. Before, it waits while the operation
// hangs, as that of a disk does: whatever the context says.
func (s *testStore) err(op Op) error {
	_, fails := s.failing.Load(op)
	if h := s.hanging.Load(); h != nil && (op == OpPut || op == OpGet && !h.onlyPut) {
		<-h.over
	}
	if fails {
		return errors.New("input/output error")
	}
	return nil
}

func (s *testStore) Get(ctx context.Context, name string) (cache.Entry, error) {
	if err := s.err(OpGet); err != nil {
		return cache.Entry{}, err
	}
	return s.handle.Get(ctx, name)
}

func (s *testStore) Put(ctx context.Context, e cache.Entry) error {
	if err := s.err(OpPut); err != nil {
		return err
	}
	return s.handle.Put(ctx, e)
}

func (s *testStore) Replace(ctx context.Context, e cache.Entry, wrong time.Time) error {
	if err := s.err(OpPut); err != nil {
		return err
	}
	return s.handle.Replace(ctx, e, wrong)
}

func (s *testStore) Touch(ctx context.Context, uses map[string]time.Time) error {
	s.touches.Add(1)
	if err := s.err(OpTouch); err != nil {
		return err
	}
	return s.handle.Touch(ctx, uses)
}

func (s *testStore) Delete(ctx context.Context, name string) error {
	if err := s.err(OpDelete); err != nil {
		return err
	}
	return s.handle.Delete(ctx, name)
}

func (s *testStore) Due(ctx context.Context, now time.Time, lease time.Duration, n int) ([]cache.Entry, error) {
	if err := s.err(OpDue); err != nil {
		return nil, err
	}
	return s.handle.Due(ctx, now, lease, n)
}

func (s *testStore) All(ctx context.Context) iter.Seq2[cache.Entry, error] {
	if err := s.err(OpOther); err != nil {
		return func(yield func(cache.Entry, error) bool) { yield(cache.Entry{}, err) }
	}
	return s.handle.All(ctx)
}
