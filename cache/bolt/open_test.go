package bolt

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"stsmap/cache"
)

// written returns the file of a store with some entries.
func written(t *testing.T) []byte {
	t.Helper()
	path := newPath(t)
	s := mustOpen(t, path)
	for i := range 200 {
		put(t, s, entry(i))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// otherwise returns the file of a database that f has made of a good one.
func otherwise(t *testing.T, good []byte, f func(*bbolt.Tx) error) []byte {
	t.Helper()
	path := newPath(t)
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, nil)
	if err == nil {
		err = errors.Join(db.Update(f), db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSetAside: a file that makes no sense is kept as it is under another name,
// and a store begun.
func TestSetAside(t *testing.T) {
	good := written(t)
	page := os.Getpagesize()
	for name, content := range map[string][]byte{
		"text":                                   []byte("something else\n"),
		"a page of text":                         bytes.Repeat([]byte("text"), page),
		"zeros":                                  make([]byte, 4*page),
		"one byte":                               {0},
		"cut within the header":                  good[:page/2],
		"cut after one page":                     good[:page],
		"cut after the header":                   good[:2*page],
		"cut in the middle":                      good[:len(good)/2/page*page],
		"both headers overwritten":               append(make([]byte, 2*page), good[2*page:]...),
		"everything but the headers overwritten": append(bytes.Clone(good[:2*page]), bytes.Repeat([]byte{0xff}, len(good)-2*page)...),
		"a later version": otherwise(t, good, func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte(bucketMeta)).Put([]byte(keyVersion), []byte("2"))
		}),
		"another program": otherwise(t, good, func(tx *bbolt.Tx) error {
			return tx.DeleteBucket([]byte(bucketMeta))
		}),
		"no index": otherwise(t, good, func(tx *bbolt.Tx) error {
			return tx.DeleteBucket([]byte(bucketDue))
		}),
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			var asides []string
			for range 2 { // the second time within a second, so to another name
				if err := os.WriteFile(path, content, 0o600); err != nil {
					t.Fatal(err)
				}
				s := mustOpen(t, path)
				aside, reason := s.SetAside()
				if !strings.HasPrefix(aside, path+".unreadable-") || reason == "" {
					t.Fatalf("SetAside = %q, %q", aside, reason)
				}
				asides = append(asides, aside)
				put(t, s, entry(1))
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = mustOpen(t, path)
				if aside, reason := s.SetAside(); aside != "" || reason != "" {
					t.Errorf("the next time, SetAside = %q, %q", aside, reason)
				}
				if _, err := s.Get(t.Context(), entry(1).Domain); err != nil {
					t.Errorf("Get: %v", err)
				}
				_ = s.Close()
			}
			for _, aside := range asides {
				if kept, err := os.ReadFile(aside); err != nil || !bytes.Equal(kept, content) {
					t.Errorf("%s is not what was set aside (%v)", aside, err)
				}
			}
			if asides[0] == asides[1] {
				t.Errorf("%s was overwritten", asides[0])
			}
		})
	}
}

// TestOpenFails: what the operator can repair moves nothing.
func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing", "cache.db")
	for name, path := range map[string]string{"a directory": dir, "no directory": missing, "a symlink to itself": loop} {
		s, err := Open(path, Options{})
		if s != nil || err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: Open = %v, %v, want an error that names %s", name, s, err, path)
		}
	}
	if _, err := Open(missing, Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open = %v, want fs.ErrNotExist", err)
	}
	if left, _ := filepath.Glob(dir + "*unreadable*"); len(left) > 0 {
		t.Errorf("set aside: %q", left)
	}
}

func TestLocked(t *testing.T) {
	path := newPath(t)
	first := mustOpen(t, path)
	put(t, first, entry(1))
	_, err := Open(path, Options{})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "hint: ") {
		t.Fatalf("Open = %v, want ErrLocked with the path and a hint", err)
	}
	put(t, first, entry(2)) // the other has not been disturbed
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, path)
}

// TestBrokenPages breaks one page after the other. Whatever Open and the
// methods then do, they must not panic, hang, or return what was not put.
func TestBrokenPages(t *testing.T) {
	good := written(t)
	page := os.Getpagesize()
	broken := 0
	for at := 0; at < len(good); at += page {
		for _, fill := range []byte{0x00, 0xff} {
			b := bytes.Clone(good)
			copy(b[at:min(at+page, len(b))], bytes.Repeat([]byte{fill}, page))
			path := newPath(t)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if !usePage(t, path) {
				broken++
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	if broken == 0 {
		t.Error("nothing was broken")
	}
}

// usePage uses a store with a broken page, and reports whether all was there.
func usePage(t *testing.T, path string) (whole bool) {
	t.Helper()
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer s.Close()
	whole = true
	allowed := func(op string, err error) {
		t.Helper()
		if err == nil {
			return
		}
		whole = false
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("%s: %v", op, err)
		}
	}
	for i := range 200 {
		e, err := s.Get(t.Context(), entry(i).Domain)
		allowed("Get", err)
		if err == nil && (e.Domain != entry(i).Domain || e.Policy != entry(i).Policy) {
			t.Errorf("Get(%s) = %+v", entry(i).Domain, e)
		}
	}
	for i := range 3 {
		allowed("Touch", s.Touch(t.Context(), map[string]time.Time{entry(i * 60).Domain: time.Now().Add(time.Hour)}))
		allowed("Put", s.Put(t.Context(), entry(i*70)))
		allowed("Delete", s.Delete(t.Context(), entry(i*80).Domain))
	}
	_, err = s.Due(t.Context(), time.Now().Add(48*time.Hour), time.Hour, 300)
	allowed("Due", err)
	for _, err := range s.All(t.Context()) {
		allowed("All", err)
	}
	return whole
}

// TestCutWhileOpen: a file that somebody cuts short faults when it is read,
// which must not end the process, and does not keep Close from giving back the
// lock.
func TestCutWhileOpen(t *testing.T) {
	path := newPath(t)
	s := mustOpen(t, path)
	for i := range 200 {
		put(t, s, entry(i))
	}
	if err := os.Truncate(path, int64(2*os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := s.Get(t.Context(), entry(1).Domain); !errors.Is(err, ErrDamaged) {
			t.Errorf("Get = %v, want ErrDamaged", err)
		}
		if err := s.Put(t.Context(), entry(1)); !errors.Is(err, ErrDamaged) {
			t.Errorf("Put = %v, want ErrDamaged", err)
		}
	}
	_ = s.Close()
	again := mustOpen(t, path)
	if aside, _ := again.SetAside(); aside == "" {
		t.Error("the cut file was not set aside")
	}
}
