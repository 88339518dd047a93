package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"stsmap/cache"
	"stsmap/cache/cachetest"
)

// written returns the file of a store with some entries.
func written(t *testing.T) []byte {
	t.Helper()
	path := newPath(t)
	s := mustOpen(t, path)
	for i := range 200 {
		cachetest.Put(t, s, entry(i))
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

// latestMeta returns the meta that counts of a database, as a part of good.
func latestMeta(t *testing.T, good []byte) []byte {
	t.Helper()
	var metas [2][]byte
	for i := range metas {
		metas[i] = good[i*os.Getpagesize()+pageHeader:][:metaSize]
	}
	if binary.NativeEndian.Uint64(metas[1][48:]) > binary.NativeEndian.Uint64(metas[0][48:]) {
		return metas[1]
	}
	return metas[0]
}

// cutAfterRoot cuts pages off a database, but not that with the names of the
// buckets.
func cutAfterRoot(t *testing.T, good []byte) []byte {
	t.Helper()
	m := latestMeta(t, good)
	root, pages := binary.NativeEndian.Uint64(m[16:]), binary.NativeEndian.Uint64(m[40:])
	if root+1 >= pages {
		t.Fatalf("the root is page %d of %d", root, pages)
	}
	return good[:int(root+1)*os.Getpagesize()]
}

func withoutFreelist(t *testing.T, good []byte) []byte {
	t.Helper()
	page := os.Getpagesize()
	free := int(binary.NativeEndian.Uint64(latestMeta(t, good)[32:]))
	bad := bytes.Clone(good)
	copy(bad[free*page:][:page], bytes.Repeat([]byte{0xff}, page))
	return bad
}

// TestForeign: a file that is not ours is refused with ErrForeign, path and
// reason, and nothing about it changes, nor about its folder.
func TestForeign(t *testing.T) {
	good := written(t)
	page := os.Getpagesize()
	foreign := otherwise(t, nil, func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte(bucketMeta))
		if err != nil {
			return err
		}
		_, err = tx.CreateBucket([]byte("logs"))
		return errors.Join(err, b.Put([]byte(keyVersion), []byte(version)))
	})
	for name, c := range map[string]struct {
		content []byte
		own     bool
		reason  string
	}{
		"text":                       {[]byte("127.0.0.1 localhost\n"), false, "does not begin like one"},
		"much text":                  {bytes.Repeat([]byte("127.0.0.1 localhost\n"), 5000), false, "does not begin like one"},
		"zeros":                      {make([]byte, 4*page), false, "does not begin like one"},
		"another program's":          {foreign, false, `"logs"`},
		"another program's, in ours": {foreign, true, `"logs"`},
		"another program's, damaged": {append(bytes.Clone(foreign), 0)[:2*page], false, "is damaged"},
		"too damaged to tell":        {append(make([]byte, 2*page), good[2*page:]...), false, "does not begin like one"},
		"a damaged header":           {append(bytes.Repeat([]byte{0xff}, 40), good[40:page+20]...), false, "does not begin like one"},
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			if err := os.WriteFile(path, c.content, 0o640); err != nil {
				t.Fatal(err)
			}
			refused(t, path, path, Options{Own: c.own}, c.reason)
		})
	}
	t.Run("a link", func(t *testing.T) {
		dir := t.TempDir()
		path, file := filepath.Join(dir, "cache.db"), filepath.Join(dir, "hosts")
		if err := errors.Join(os.WriteFile(file, []byte("127.0.0.1 localhost\n"), 0o640), os.Symlink("hosts", path)); err != nil {
			t.Fatal(err)
		}
		refused(t, path, file, Options{Own: true}, "does not begin like one")
	})
	t.Run("no regular file", func(t *testing.T) {
		dir := t.TempDir()
		fifo := filepath.Join(dir, "fifo")
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, dir, Options{Own: true}, "is a directory")
		refused(t, fifo, fifo, Options{Own: true}, "not a regular file")
		refused(t, "/dev/null", "/dev/null", Options{Own: true}, "not a regular file")
	})
}

// refused fails unless Open and Inspect refuse the path, and leave the file
// alone.
func refused(t *testing.T, path, file string, o Options, reason string) {
	t.Helper()
	if err := os.Chtimes(file, time.Time{}, time.Unix(1e9, 0)); err != nil && file != "/dev/null" {
		t.Fatal(err)
	}
	state := func() string {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		var content []byte
		if info.Mode().IsRegular() {
			content, err = os.ReadFile(file)
		}
		names, globErr := filepath.Glob(filepath.Join(filepath.Dir(file), "*"))
		stat := info.Sys().(*syscall.Stat_t)
		return fmt.Sprint(string(content), info.Mode(), info.ModTime(), info.Size(), stat.Uid, stat.Gid, stat.Ino, stat.Ctim, names, err, globErr)
	}
	before := state()
	_, openErr := Open(path, o)
	for op, err := range map[string]error{"Open": openErr, "Inspect": Inspect(path, o)} {
		if !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s(%s) = %v, want ErrForeign with the path and %q", op, path, err, reason)
		}
	}
	if after := state(); after != before {
		t.Errorf("the file was %s, and is %s", before, after)
	}
}

// TestInspect: a store is ours in whatever state it is, and nothing is locked or
// created.
func TestInspect(t *testing.T) {
	path := newPath(t)
	if err := Inspect(path, Options{}); err != nil {
		t.Errorf("no file: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was made: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Inspect(path, Options{}); err != nil {
		t.Errorf("an empty file: %v", err)
	}
	s := mustOpen(t, path)
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := range 300 {
			cachetest.Put(t, s, entry(i))
		}
	})
	for range 300 {
		if err := Inspect(path, Options{}); err != nil {
			t.Errorf("in use: %v", err)
		}
	}
	writing.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, path) // the lock was left alone
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// A database without buckets is what a first start leaves that was killed.
	if err := os.WriteFile(path, otherwise(t, nil, func(*bbolt.Tx) error { return nil }), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Inspect(path, Options{}); err != nil {
		t.Errorf("no buckets: %v", err)
	}
	cachetest.Put(t, mustOpen(t, path), entry(1))
}

// TestSetAside: a store that makes no sense is kept as it is under another name,
// and a new one begun: one with our buckets anywhere, any other file only where
// that is our own place.
func TestSetAside(t *testing.T) {
	good := written(t)
	page := os.Getpagesize()
	for name, c := range map[string]struct {
		content []byte
		o       Options
	}{
		"text":                                   {[]byte("something else\n"), Options{Own: true}},
		"a page of text":                         {bytes.Repeat([]byte("text"), page), Options{Own: true}},
		"zeros":                                  {make([]byte, 4*page), Options{Own: true}},
		"one byte":                               {[]byte{0}, Options{Own: true}},
		"cut within the header":                  {good[:page/2], Options{Own: true}},
		"cut after one page":                     {good[:page], Options{Own: true}},
		"cut after the header":                   {good[:2*page], Options{Own: true}},
		"cut in the middle":                      {good[:len(good)/2/page*page], Options{Own: true}},
		"both headers overwritten":               {append(make([]byte, 2*page), good[2*page:]...), Options{Own: true}},
		"everything but the headers overwritten": {append(bytes.Clone(good[:2*page]), bytes.Repeat([]byte{0xff}, len(good)-2*page)...), Options{Own: true}},
		"cut at the end":                         {cutAfterRoot(t, good), Options{}},
		"no freelist":                            {withoutFreelist(t, good), Options{}},
		"a later version": {otherwise(t, good, func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte(bucketMeta)).Put([]byte(keyVersion), []byte("2"))
		}), Options{}},
	} {
		t.Run(name, func(t *testing.T) {
			content := c.content
			path := newPath(t)
			var asides []string
			for round := range 2 { // the second time within a second, so to another name
				writeMarked(t, path, content)
				if round == 0 { // the header is enough
					removeMark(path)
				}
				if err := Inspect(path, c.o); err != nil {
					t.Errorf("Inspect: %v", err)
				}
				s, err := Open(path, c.o)
				if err != nil {
					t.Fatal(err)
				}
				aside, reason := s.SetAside()
				if !strings.HasPrefix(aside, path+".unreadable-") || reason == "" {
					t.Fatalf("SetAside = %q, %q", aside, reason)
				}
				asides = append(asides, aside)
				cachetest.Put(t, s, entry(1))
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
	cachetest.Put(t, first, entry(1))
	_, err := Open(path, Options{})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "hint: ") {
		t.Fatalf("Open = %v, want ErrLocked with the path and a hint", err)
	}
	cachetest.Put(t, first, entry(2)) // the other has not been disturbed
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
			writeMarked(t, path, b)
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
	s, err := Open(path, Options{Own: true})
	if errors.Is(err, ErrForeign) && strings.Contains(err.Error(), "buckets") {
		return false // the names of the buckets were damaged
	}
	if err != nil {
		t.Errorf("Open: %v", err)
		return false
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

// TestCutWhileOpen: reading a file that was cut short is a memory fault, which must
// not end the process, nor keep Close from releasing the lock.
func TestCutWhileOpen(t *testing.T) {
	path := newPath(t)
	s := mustOpen(t, path)
	for i := range 200 {
		cachetest.Put(t, s, entry(i))
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
	again, err := Open(path, Options{Own: true})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if aside, _ := again.SetAside(); aside == "" {
		t.Error("the cut file was not set aside")
	}
}
