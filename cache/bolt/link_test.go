package bolt

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"stsmap/cache/cachetest"
)

// TestLink: where the path is a link, the file it names is the store, and stays
// where it is, whatever Open does to it; the link stays a link.
func TestLink(t *testing.T) {
	dir := t.TempDir()
	path, second := filepath.Join(dir, "cache.db"), filepath.Join(dir, "second.db")
	file := filepath.Join(dir, "disk", "file.db")
	// To nothing yet, by way of another link, both relative.
	if err := errors.Join(os.Mkdir(filepath.Dir(file), 0o700), os.Symlink("second.db", path),
		os.Symlink(filepath.Join("disk", "file.db"), second)); err != nil {
		t.Fatal(err)
	}
	stays := func(when string) {
		t.Helper()
		for _, link := range []string{path, second} {
			if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
				t.Fatalf("%s: %s is no link any more (%v)", when, link, err)
			}
		}
		if info, err := os.Lstat(file); err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != 0o600 {
			t.Fatalf("%s: %s: %v, %v", when, file, info, err)
		}
	}
	s := mustOpen(t, path)
	cachetest.Put(t, s, entry(1))
	stays("created")
	for _, other := range []string{path, second, file} {
		if _, err := Open(other, Options{}); !errors.Is(err, ErrLocked) {
			t.Errorf("Open(%s) = %v, want ErrLocked", other, err)
		}
	}
	_ = s.Close()

	bloat(t, file)
	s = mustOpen(t, path)
	if size, _, err := s.Size(); size > 1<<20 || err != nil || s.Uncompacted() != nil {
		t.Errorf("%d bytes (%v, %v), want less than before", size, err, s.Uncompacted())
	}
	if info, err := os.Stat(file); err != nil || info.Size() > 1<<20 {
		t.Errorf("the file that the link names was not written anew (%v)", err)
	}
	if _, err := s.Get(t.Context(), entry(1).Domain); err != nil {
		t.Error(err)
	}
	stays("compacted")
	_ = s.Close()

	db, err := bbolt.Open(file, 0o600, nil)
	if err == nil {
		err = errors.Join(db.Update(func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte(bucketMeta)).Put([]byte(keyVersion), []byte("2"))
		}), db.Close())
	}
	later, readErr := os.ReadFile(file)
	if err := errors.Join(err, readErr); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, path)
	aside, _ := s.SetAside()
	if kept, err := os.ReadFile(aside); !strings.HasPrefix(aside, file+".unreadable-") || string(kept) != string(later) {
		t.Errorf("set aside in %s: %d bytes, %v", aside, len(kept), err)
	}
	stays("set aside")
}

// TestLinkNowhere: a link into a directory that is missing is an error that says
// where that should be, and makes nothing.
func TestLinkNowhere(t *testing.T) {
	path := newPath(t)
	if err := os.Symlink("missing/file.db", path); err != nil {
		t.Fatal(err)
	}
	_, err := Open(path, Options{})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "missing/file.db") {
		t.Errorf("Open = %v", err)
	}
}

// bloat makes a store's file large, and most of it unused.
func bloat(t *testing.T, path string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	ballast := []byte("ballast")
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket(ballast)
		if err != nil {
			return err
		}
		return b.Put(ballast, make([]byte, minUnused+1<<20))
	})
	if err == nil {
		err = db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket(ballast) })
	}
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}
