package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"stsmap/cache/cachetest"
)

// writeMarked writes a file of which the last use did not end with Close.
func writeMarked(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, content, 0o600), os.WriteFile(path+markSuffix, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
}

func wantMark(t *testing.T, path, when string, want bool) {
	t.Helper()
	info, err := os.Lstat(path + markSuffix)
	if err != nil && !errors.Is(err, fs.ErrNotExist) || (err == nil) != want {
		t.Errorf("%s: the mark of %s: %v, %v, want %v", when, path, info, err, want)
	}
	if err == nil && (!info.Mode().IsRegular() || info.Mode().Perm() != 0o600 || info.Size() != 0) {
		t.Errorf("%s: the mark has mode %v and %d bytes", when, info.Mode(), info.Size())
	}
}

// disordered changes a key on every leaf of a store: the check of all pages finds
// it, and bbolt does not.
func disordered(t *testing.T, good []byte) []byte {
	t.Helper()
	path, bad := newPath(t), bytes.Clone(good)
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	_, leaves := branches(t, path)
	for _, id := range leaves {
		element := bad[int(id)*os.Getpagesize()+pageHeader+elementSize:]
		element[binary.NativeEndian.Uint32(element[4:])] = 0
	}
	return bad
}

// allChecked opens and closes a store with disordered pages, and reports whether
// all pages were checked.
func allChecked(t *testing.T, path string) bool {
	t.Helper()
	s := mustOpen(t, path)
	aside, _ := s.SetAside()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return aside != ""
}

// TestMark: all pages are checked if and only if the last use of the file did not
// end with a Close that succeeded, or that cannot be known.
func TestMark(t *testing.T) {
	good := written(t)
	bad := disordered(t, good)
	t.Run("clean", func(t *testing.T) {
		path := newPath(t)
		s := mustOpen(t, path)
		wantMark(t, path, "open", true)
		cachetest.Put(t, s, entry(1))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		wantMark(t, path, "closed", false)
	})
	t.Run("a copy", func(t *testing.T) {
		path := newPath(t)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if allChecked(t, path) {
				t.Error("all pages were checked")
			}
			wantMark(t, path, "closed", false)
		}
	})
	t.Run("set aside", func(t *testing.T) {
		path := newPath(t)
		writeMarked(t, path, bad)
		s := mustOpen(t, path)
		aside, reason := s.SetAside()
		if kept, err := os.ReadFile(aside); !bytes.Equal(kept, bad) || !strings.Contains(reason, "in order") {
			t.Errorf("set aside in %q (%v) for %q", aside, err, reason)
		}
		wantMark(t, path, "the new one is open", true)
		cachetest.Put(t, s, entry(1))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		wantMark(t, path, "the new one is closed", false)
	})
	t.Run("a sound file", func(t *testing.T) {
		path := newPath(t)
		writeMarked(t, path, good)
		s := mustOpen(t, path)
		wantEntries(t, s, 200)
		if aside, reason := s.SetAside(); aside != "" {
			t.Errorf("set aside: %s", reason)
		}
		wantMark(t, path, "open", true)
		_ = s.Close()
		wantMark(t, path, "closed", false)
	})
	t.Run("killed", func(t *testing.T) {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		path := newPath(t)
		killed(t, exe, path, 50)
		wantMark(t, path, "killed", true)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if !allChecked(t, path) {
			t.Error("not all pages were checked")
		}
	})
}

// TestMarkRefused: an Open that refuses a file before bbolt gets it leaves the
// mark as it is.
func TestMarkRefused(t *testing.T) {
	// Without buckets it may be another program's.
	content := cutAfterRoot(t, otherwise(t, otherwise(t, nil, func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("x"))
		return errors.Join(err, b.Put([]byte("x"), make([]byte, 10<<10)))
	}), func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("x")) }))
	path := newPath(t)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mark := range []bool{false, true} {
		if mark {
			writeMarked(t, path, content)
		}
		if _, err := Open(path, Options{}); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "are missing") {
			t.Errorf("Open = %v, want ErrForeign", err)
		}
		wantMark(t, path, "refused", mark)
	}
}

// TestMarkLink: the mark is beside the file that a link names, and is not made
// through a link in its own place.
func TestMarkLink(t *testing.T) {
	bad := disordered(t, written(t))
	t.Run("no regular file", func(t *testing.T) {
		path := newPath(t)
		if err := errors.Join(os.WriteFile(path, bad, 0o600), os.Symlink("nowhere", path+markSuffix)); err != nil {
			t.Fatal(err)
		}
		if !allChecked(t, path) {
			t.Error("not all pages were checked")
		}
		if _, err := os.Lstat(filepath.Join(filepath.Dir(path), "nowhere")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the link was followed: %v", err)
		}
	})
	t.Run("a link", func(t *testing.T) {
		path := newPath(t)
		file := filepath.Join(t.TempDir(), "file.db")
		if err := os.Symlink(file, path); err != nil {
			t.Fatal(err)
		}
		s := mustOpen(t, path)
		wantMark(t, file, "open", true)
		wantMark(t, path, "open", false)
		_ = s.Close()
		wantMark(t, file, "closed", false)
		writeMarked(t, file, bad)
		if !allChecked(t, path) {
			t.Error("not all pages were checked")
		}
	})
}

// TestMarkLocked: a process that finds the file locked leaves the mark as it is.
func TestMarkLocked(t *testing.T) {
	path := newPath(t)
	s := mustOpen(t, path)
	for _, mark := range []bool{true, false} {
		if !mark {
			removeMark(path)
		}
		if _, err := Open(path, Options{}); !errors.Is(err, ErrLocked) {
			t.Errorf("Open = %v, want ErrLocked", err)
		}
		wantMark(t, path, "locked", mark)
	}
	_ = s.Close()
}

// TestMarkReadOnly: where no mark can be made, all pages are checked each time.
func TestMarkReadOnly(t *testing.T) {
	good := written(t)
	dir, source := mount(t, 1<<20), newPath(t)
	path := filepath.Join(dir, "cache.db")
	if err := errors.Join(os.WriteFile(source, good, 0o600), os.WriteFile(path, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	// The file can be written, and its directory cannot.
	if err := syscall.Mount(source, path, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(path, 0); err != nil {
			t.Error(err)
		}
	})
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		s := mustOpen(t, path)
		wantEntries(t, s, 200+i)
		cachetest.Put(t, s, entry(200+i))
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	// It is found, and cannot be set aside.
	if err := os.WriteFile(source, disordered(t, good), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), "in order") {
		t.Errorf("Open = %v, want that keys are not in order", err)
	}
}

// TestMarkUnclean: the mark stays after a Close that failed, and if damage was
// found.
func TestMarkUnclean(t *testing.T) {
	t.Run("damage", func(t *testing.T) {
		good, path := written(t), newPath(t)
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
		_, leaves := branches(t, path)
		clear(good[int(leaves[0])*os.Getpagesize():][:os.Getpagesize()])
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
		s := mustOpen(t, path)
		var found error
		for i := range 200 {
			_, err := s.Get(t.Context(), entry(i).Domain)
			if errors.Is(err, ErrDamaged) {
				found = err
			}
		}
		if found == nil {
			t.Fatal("no damage was found")
		}
		_ = s.Close()
		wantMark(t, path, "closed", true)
	})
	t.Run("replaced", func(t *testing.T) {
		path := newPath(t)
		s := mustOpen(t, path)
		if err := errors.Join(os.Rename(path, path+".moved"), os.WriteFile(path, disordered(t, written(t)), 0o600)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); !errors.Is(err, ErrReplaced) {
			t.Errorf("Close = %v", err)
		}
		wantMark(t, path, "closed", true)
		if !allChecked(t, path) {
			t.Error("not all pages were checked")
		}
	})
	t.Run("a failed commit", func(t *testing.T) {
		dir := mount(t, 1<<20)
		path := filepath.Join(dir, "cache.db")
		s := mustOpen(t, path)
		var err error
		for i := 0; err == nil; i++ {
			err = s.Put(t.Context(), large(i))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		wantMark(t, path, "closed", true)
		_ = mustOpen(t, path).Close()
		wantMark(t, path, "closed again", false)
	})
}

// TestMarkRestored: a file that was written anew is marked, also where the mark
// was removed, and with the directory.
func TestMarkRestored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "cache.db")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, path)
	cachetest.Put(t, s, entry(0))
	if err := errors.Join(os.Remove(path), os.Remove(path+markSuffix)); err != nil {
		t.Fatal(err)
	}
	s.watch(t.Context())
	wantMark(t, path, "restored", true)
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	s.watch(t.Context())
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	s.watch(t.Context())
	wantMark(t, path, "restored again", true)
	if err := s.compact(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	wantMark(t, path, "compacted", true)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantMark(t, path, "closed", false)
	wantEntries(t, mustOpen(t, path), 1)
}

// TestMarkRestoreFull: a removed file is not written anew without a mark.
func TestMarkRestoreFull(t *testing.T) {
	dir := mount(t, 1<<20)
	limit := func(files int) {
		t.Helper()
		if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, fmt.Sprintf("nr_inodes=%d", files)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "cache.db")
	s := mustOpen(t, path)
	cachetest.Put(t, s, entry(0))
	if err := errors.Join(os.Remove(path), os.Remove(path+markSuffix)); err != nil {
		t.Fatal(err)
	}
	// Room for the directory, the open file, the new one, and its second name.
	limit(4)
	s.watch(t.Context())
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		wantMark(t, path, "written anew", true)
	}
	limit(10)
	s.watch(t.Context())
	wantMark(t, path, "with room", true)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, path)
	wantEntries(t, s, 1)
	_ = s.Close()
}

// TestMarkLarge: after a clean Close, Open checks no page of a large file but the
// header: damage on every leaf goes unnoticed.
func TestMarkLarge(t *testing.T) {
	path := newPath(t)
	s := mustOpen(t, path)
	db := s.file.Load().db
	db.NoSync = true
	for i := 0; i < 20_000; {
		err := db.Update(func(tx *bbolt.Tx) error {
			for range 5000 {
				if err := save(tx, entry(i), entry(i)); err != nil {
					return err
				}
				i++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, disordered(t, good), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if allChecked(t, path) {
		t.Error("all pages were checked after a clean Close")
	}
	if _, err := makeMark(path); err != nil {
		t.Fatal(err)
	}
	if !allChecked(t, path) {
		t.Error("not all pages were checked after none")
	}
}

// readPath is the variable by which the test binary, run again, knows that it is
// to read all entries of the named file.
const readPath = "STSMAP_TEST_BOLT_READ"

// readAll reads and writes a store.
func readAll(path string) error {
	debug.SetMaxStack(32 << 20) // to overflow soon
	s, err := Open(path, Options{})
	if err != nil {
		return err
	}
	for i := range 200 {
		_, _ = s.Get(context.Background(), entry(i).Domain)
	}
	err = s.Put(context.Background(), entry(1))
	aside, _ := s.SetAside()
	fmt.Printf("served, set aside %q\n", aside)
	return errors.Join(err, s.Close())
}

// TestMarkCycle: a file that was damaged while no process used it, so that a page
// leads to itself, ends one process at most. The next one sets it aside.
func TestMarkCycle(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path, content := newPath(t), written(t)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	inner, _ := branches(t, path)
	for _, id := range inner {
		p := content[int(id)*os.Getpagesize():]
		for i := range count(p) {
			binary.NativeEndian.PutUint64(p[pageHeader+i*elementSize+8:], id)
		}
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func() (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, exe)
		cmd.Env = append(os.Environ(), readPath+"="+path)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run(); err == nil || !strings.Contains(out, "stack overflow") {
		t.Errorf("the first process was expected to end by a stack overflow: %v\n%.1000s", err, out)
	}
	wantMark(t, path, "ended by bbolt", true)
	if out, err := run(); err != nil || !strings.Contains(out, "served, set aside \""+path+".unreadable-") {
		t.Fatalf("the second process: %v\n%.1000s", err, out)
	}
	wantMark(t, path, "closed", false)
	if out, err := run(); err != nil || !strings.Contains(out, "served, set aside \"\"") {
		t.Errorf("the third process: %v\n%.1000s", err, out)
	}
}
