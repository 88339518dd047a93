package bolt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"stsmap/cache"
	"stsmap/cache/cachetest"
)

// mount returns a directory with a file system of its own, with room for size
// bytes. It needs root.
func mount(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatalf("mount, which needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// large is an entry that takes some pages.
func large(i int) cache.Entry {
	e := entry(i)
	e.Policy = strings.Repeat("x", 20000)
	return e
}

// TestFullDisk: a Put that finds no room says so and loses nothing, what was put
// before is there, and when there is room again all goes on.
func TestFullDisk(t *testing.T) {
	dir := mount(t, 4<<20)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "cache.db")
	s := mustOpen(t, path)
	n := 0
	for ; n < 1000; n++ {
		if err := s.Put(t.Context(), large(n)); err != nil {
			if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), path) {
				t.Fatalf("Put on a full disk: %v", err)
			}
			break
		}
	}
	if n == 0 || n == 1000 {
		t.Fatalf("the disk was full after %d entries", n)
	}
	there := func(s *Store) {
		t.Helper()
		for i := range n {
			if e, err := s.Get(t.Context(), large(i).Domain); err != nil || e.Policy != large(i).Policy {
				t.Fatalf("entry %d of %d: %v", i, n, err)
			}
		}
	}
	there(s)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), large(n)); err != nil {
		t.Errorf("Put when there is room again: %v", err)
	}
	n++
	there(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, path)
	defer s.Close()
	there(s)
}

// TestReadOnly: on a read-only file system Open returns an error, and renames
// and loses nothing.
func TestReadOnly(t *testing.T) {
	dir := mount(t, 4<<20)
	path := filepath.Join(dir, "cache.db")
	s := mustOpen(t, path)
	if err := errors.Join(s.Put(t.Context(), entry(1)), s.Close()); err != nil {
		t.Fatal(err)
	}
	again := func(flags uintptr) {
		t.Helper()
		if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	again(syscall.MS_RDONLY)
	if _, err := Open(path, Options{}); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), path) {
		t.Errorf("Open on a read-only file system: %v", err)
	}
	again(0)
	s = mustOpen(t, path)
	defer s.Close()
	if _, err := s.Get(t.Context(), entry(1).Domain); err != nil {
		t.Error(err)
	}
}

// TestFlippedBits: whatever bits of a file are not what was written, no method
// returns a policy that was not put, and nothing panics or hangs.
func TestFlippedBits(t *testing.T) {
	path := newPath(t)
	s := mustOpen(t, path)
	for i := range 200 {
		if err := s.Put(t.Context(), entry(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for round := range 60 {
		bad := append([]byte(nil), sound...)
		for range 1 + r.IntN(20) {
			bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
		}
		writeMarked(t, path, bad)
		s, err := Open(path, Options{Own: true})
		if err != nil {
			t.Fatalf("round %d: Open: %v", round, err)
		}
		for i := range 200 {
			e, err := s.Get(t.Context(), entry(i).Domain)
			if err == nil && e.Policy != entry(i).Policy {
				t.Fatalf("round %d: entry %d has the policy %q", round, i, e.Policy)
			}
			if err != nil && !errors.Is(err, cache.ErrNotFound) && !errors.Is(err, ErrDamaged) {
				t.Errorf("round %d: %v", round, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_ = s.Put(ctx, entry(1000)) // may fail, must not hang
		_, _ = s.Due(ctx, time.Now(), time.Minute, 10)
		if err := ctx.Err(); err != nil {
			t.Fatalf("round %d hangs", round)
		}
		cancel()
		_ = s.Close()
		if aside, _ := s.SetAside(); aside != "" {
			_ = os.Remove(aside)
		}
	}
}

// TestCompact: a file of which most is unused is smaller when it was opened
// again, and has what it had; one that cannot be written anew is used as it is.
func TestCompact(t *testing.T) {
	dir := mount(t, 128<<20)
	path := filepath.Join(dir, "cache.db")
	s := mustOpen(t, path)
	putMany := func(from, to int, put func(i int) error) {
		t.Helper()
		var wg sync.WaitGroup
		for w := range 16 {
			wg.Go(func() {
				for i := from + w; i < to; i += 16 {
					if err := put(i); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	putMany(0, 1500, func(i int) error { return s.Put(t.Context(), large(i)) })
	putMany(10, 1500, func(i int) error { return s.Delete(t.Context(), large(i).Domain) })
	before, unused, err := s.Size()
	if err != nil || unused < minUnused || before < 20000*1500 {
		t.Fatalf("%d bytes, %d unused (%v)", before, unused, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	// What is left of an attempt that was killed is no hindrance; a directory
	// in its place is.
	blocked := filepath.Join(path+temporarySuffix, "x")
	if err := os.MkdirAll(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, path)
	if size, _, err := s.Size(); size != before || err != nil || s.Uncompacted() == nil {
		t.Errorf("hindered: %d bytes (%v), %v", size, err, s.Uncompacted())
	}
	if err := errors.Join(s.Close(), os.RemoveAll(path+temporarySuffix), os.WriteFile(path+temporarySuffix, []byte("rest"), 0o600)); err != nil {
		t.Fatal(err)
	}

	s = mustOpen(t, path)
	defer s.Close()
	if size, _, err := s.Size(); size > 2<<20 || err != nil || s.Uncompacted() != nil {
		t.Errorf("%d bytes after %d (%v, %v)", size, before, err, s.Uncompacted())
	}
	if _, err := os.Lstat(path + temporarySuffix); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file is left: %v", err)
	}
	if _, err := Open(path, Options{}); !errors.Is(err, ErrLocked) {
		t.Errorf("the new file is not locked: %v", err)
	}
	for i := range 10 {
		if e, err := s.Get(t.Context(), large(i).Domain); err != nil || e.Policy != large(i).Policy {
			t.Errorf("entry %d: %v", i, err)
		}
	}
	if taken, err := s.Due(t.Context(), entry(0).Refresh.Add(time.Hour), time.Minute, 100); len(taken) != 10 || err != nil {
		t.Errorf("%d are due (%v)", len(taken), err)
	}
	putMany(20, 40, func(i int) error { return s.Put(t.Context(), entry(i)) })
}

// TestCompactTime: a file that cannot be written anew in time is used as it is.
func TestCompactTime(t *testing.T) {
	path := newPath(t)
	s := mustOpen(t, path)
	cachetest.Put(t, s, entry(1), entry(2))
	if err := s.compact(time.Now().Add(-time.Second)); !errors.Is(err, errCompactTime) {
		t.Errorf("compact = %v", err)
	}
	if left, _ := filepath.Glob(path + "*"); !slices.Equal(left, []string{path, path + markSuffix}) {
		t.Errorf("left: %v", left)
	}
	cachetest.Put(t, s, entry(3))
	if err := s.compact(time.Now().Add(time.Minute)); err != nil {
		t.Error(err)
	}
	for i := 1; i <= 3; i++ {
		if !has(t, s, entry(i).Domain) {
			t.Errorf("%d is lost", i)
		}
	}
	if due, err := s.Due(t.Context(), time.Now().Add(48*time.Hour), time.Hour, 10); len(due) != 3 || err != nil {
		t.Errorf("%d are due, %v", len(due), err)
	}
}
