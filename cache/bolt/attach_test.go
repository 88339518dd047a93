package bolt

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/cache"
	"stsmap/cache/cachetest"
)

// A stateLog keeps what OnState was called with.
type stateLog struct {
	mu     sync.Mutex
	states []State
	errs   []error
}

func (l *stateLog) add(state State, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.states, l.errs = append(l.states, state), append(l.errs, err)
}

// want fails unless OnState was called with these states since the last call.
func (l *stateLog) want(t *testing.T, when string, states ...State) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.states, states) {
		t.Errorf("%s: states %v, want %v (%v)", when, l.states, states, l.errs)
	}
	for i, state := range l.states {
		if failed := state == Missing || state == Replaced; failed != (l.errs[i] != nil) {
			t.Errorf("%s: state %v with the error %v", when, state, l.errs[i])
		}
	}
	l.states, l.errs = nil, nil
}

// watched opens a store with some entries, in a bubble, where time passes when
// all wait.
func watched(t *testing.T, test func(t *testing.T, s *Store, path string, log *stateLog)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log := &stateLog{}
		path := newPath(t)
		s, err := Open(path, Options{OnState: log.add})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			cachetest.Put(t, s, entry(i))
		}
		test(t, s, path, log)
	})
}

// pass lets a minute pass.
func pass() {
	time.Sleep(time.Minute)
	synctest.Wait()
}

// wantEntries fails unless a store has the first n entries.
func wantEntries(t *testing.T, s *Store, n int) {
	t.Helper()
	for i := range n {
		if !has(t, s, entry(i).Domain) {
			t.Errorf("%d of %d is not there", i, n)
		}
	}
}

// TestRemoved: a file that was removed is there again within a minute, whole,
// with its mode, locked, and with what is put meanwhile and later; that is reported
// once.
func TestRemoved(t *testing.T) {
	watched(t, func(t *testing.T, s *Store, path string, log *stateLog) {
		for round := range 3 {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			cachetest.Put(t, s, entry(100+2*round)) // acknowledged before it is noticed
			pass()
			log.want(t, "removed", Restored)
			cachetest.Put(t, s, entry(101+2*round))
			if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
				t.Errorf("%v, %v", info, err)
			}
			if _, err := Open(path, Options{}); !errors.Is(err, ErrLocked) {
				t.Errorf("Open = %v, want ErrLocked", err)
			}
			pass()
			log.want(t, "later")
		}
		if names, err := filepath.Glob(path + "*"); !slices.Equal(names, []string{path, path + markSuffix}) || err != nil {
			t.Errorf("files: %v", names)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		again := mustOpen(t, path)
		wantEntries(t, again, 106)
		if due, err := again.Due(t.Context(), entry(0).Refresh.Add(time.Hour), time.Hour, 200); len(due) != 106 || err != nil {
			t.Errorf("%d are due, %v", len(due), err)
		}
	})
}

// TestRemovedClose: Close writes a file anew that was removed just before.
func TestRemovedClose(t *testing.T) {
	watched(t, func(t *testing.T, s *Store, path string, log *stateLog) {
		if err := errors.Join(os.Remove(path), s.Close()); err != nil {
			t.Fatal(err)
		}
		log.want(t, "closed", Restored)
		wantEntries(t, mustOpen(t, path), 100)
	})
}

// TestRemovedUnderLoad: nothing that was acknowledged is lost while the file is
// written anew under 16 writers, and no reader fails.
func TestRemovedUnderLoad(t *testing.T) {
	path := newPath(t)
	s := mustOpen(t, path)
	var acked [16]int
	var working sync.WaitGroup
	stop := make(chan struct{})
	for w := range acked {
		working.Go(func() {
			for i := w; ; i += len(acked) {
				select {
				case <-stop:
					return
				default:
				}
				if err := s.Put(t.Context(), entry(i)); err != nil {
					t.Errorf("Put: %v", err)
					return
				}
				if _, err := s.Get(t.Context(), entry(i).Domain); err != nil {
					t.Errorf("Get: %v", err)
				}
				acked[w]++
			}
		})
	}
	for range 30 {
		time.Sleep(10 * time.Millisecond)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		s.watch(t.Context())
		if _, err := os.Stat(path); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	working.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, path)
	for w, n := range acked {
		for i := range n {
			if domain := entry(w + i*len(acked)).Domain; !has(t, s, domain) {
				t.Errorf("%s is lost", domain)
			}
		}
	}
}

// TestReplaced: a file that now stands at the path is left alone, every method
// says so until it is moved away, or the open file is moved back, which is
// reported once.
func TestReplaced(t *testing.T) {
	watched(t, func(t *testing.T, s *Store, path string, log *stateLog) {
		moved := path + ".moved"
		if err := errors.Join(os.Rename(path, moved), os.WriteFile(path, []byte("another\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
		pass()
		log.want(t, "replaced", Replaced)
		e := entry(1)
		_, getErr := s.Get(t.Context(), e.Domain)
		_, dueErr := s.Due(t.Context(), time.Now().Add(48*time.Hour), time.Hour, 1)
		errs := map[string]error{
			"Get": getErr, "Due": dueErr, "Put": s.Put(t.Context(), e), "Delete": s.Delete(t.Context(), e.Domain),
			"Touch": s.Touch(t.Context(), map[string]time.Time{e.Domain: time.Now()}),
		}
		for _, err := range s.All(t.Context()) {
			errs["All"] = err
		}
		for _, op := range []string{"Get", "Put", "Touch", "Delete", "Due", "All"} {
			if !errors.Is(errs[op], ErrReplaced) || !strings.Contains(errs[op].Error(), path) {
				t.Errorf("%s = %v, want ErrReplaced with the path", op, errs[op])
			}
		}
		pass()
		log.want(t, "still replaced")
		if b, err := os.ReadFile(path); string(b) != "another\n" || err != nil {
			t.Errorf("the other file is %q, %v", b, err)
		}

		if err := os.Rename(moved, path); err != nil {
			t.Fatal(err)
		}
		pass()
		log.want(t, "moved back", Attached)
		cachetest.Put(t, s, entry(100))
		wantEntries(t, s, 101)

		if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
			t.Fatal(err)
		}
		pass()
		log.want(t, "a directory", Replaced)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		pass()
		log.want(t, "free again", Restored)
		cachetest.Put(t, s, entry(101))

		if err := errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); !errors.Is(err, ErrReplaced) {
			t.Errorf("Close = %v, want ErrReplaced", err)
		}
		log.want(t, "closed", Replaced)
		if info, err := os.Stat(path); err != nil || info.Size() != 0 {
			t.Errorf("the other file is %v, %v", info, err)
		}
	})
}

// TestMissing: while a removed file cannot be written anew, what is in it is
// read, and nothing is acknowledged; it is tried again at each check.
func TestMissing(t *testing.T) {
	watched(t, func(t *testing.T, s *Store, path string, log *stateLog) {
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
		pass()
		log.want(t, "removed", Missing)
		wantEntries(t, s, 100)
		if err := s.Put(t.Context(), entry(100)); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("Put = %v", err)
		}
		pass()
		log.want(t, "still removed")
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		pass()
		log.want(t, "possible again", Restored)
		cachetest.Put(t, s, entry(100))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		wantEntries(t, mustOpen(t, path), 101)
	})
}

// TestRestoreFullDisk: a disk without room for the new file leaves nothing
// behind, and the open one as it is.
func TestRestoreFullDisk(t *testing.T) {
	dir := mount(t, 1<<20)
	path := filepath.Join(dir, "cache.db")
	s := mustOpen(t, path)
	for i := range 20 {
		cachetest.Put(t, s, large(i))
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	s.watch(t.Context())
	if err := s.Put(t.Context(), large(20)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Put = %v, want ENOSPC", err)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*")); !slices.Equal(names, []string{path + markSuffix}) {
		t.Errorf("left: %v", names)
	}
	for i := range 20 {
		if e, err := s.Get(t.Context(), large(i).Domain); err != nil || e.Policy != large(i).Policy {
			t.Errorf("Get = %v", err)
		}
	}
	if err := s.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Close = %v, want ENOSPC", err)
	}
}

// TestRestoreRace: a file that is put at the path while the new one is written
// is not overwritten.
func TestRestoreRace(t *testing.T) {
	path := newPath(t)
	s := mustOpen(t, path)
	cachetest.Put(t, s, entry(1))
	if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte("another\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := s.submit(t.Context(), &job{alone: s.restore}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("restore = %v", err)
	}
	if b, err := os.ReadFile(path); string(b) != "another\n" || err != nil {
		t.Errorf("the other file is %q, %v", b, err)
	}
	if _, err := s.Get(t.Context(), entry(1).Domain); err != nil && !errors.Is(err, cache.ErrNotFound) {
		t.Error(err)
	}
	if names, _ := filepath.Glob(path + "*"); !slices.Equal(names, []string{path, path + markSuffix}) {
		t.Errorf("left: %v", names)
	}
}
