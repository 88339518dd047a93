package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"stsmap/cache"
	"stsmap/cache/cachetest"
)

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "cache.db") }

func mustOpen(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func entry(i int) cache.Entry { return cachetest.NewEntry(fmt.Sprintf("%d.example", i)) }

// change edits the database behind the store's back.
func change(t *testing.T, s *Store, f func(*bbolt.Tx) error) {
	t.Helper()
	if err := s.file.Load().db.Update(f); err != nil {
		t.Fatal(err)
	}
}

func TestStore(t *testing.T) {
	cachetest.TestStore(t, func(t *testing.T) cache.Store { return mustOpen(t, newPath(t)) })
}

func TestDurable(t *testing.T) {
	cachetest.TestDurable(t, func(t *testing.T) func() cache.Store {
		path := newPath(t)
		return func() cache.Store { return mustOpen(t, path) }
	})
}

// TestUnreadableEntry: a value with a flipped bit, or moved to another domain,
// is not found, left out of All, taken off the index by Due, and replaced by
// any Put.
func TestUnreadableEntry(t *testing.T) {
	s := mustOpen(t, newPath(t))
	good, flipped, moved := entry(1), entry(2), entry(3)
	cachetest.Put(t, s, good, flipped, moved)
	change(t, s, func(tx *bbolt.Tx) error {
		b := entries(tx)
		v := append([]byte(nil), b.Get([]byte(flipped.Domain))...)
		v[len(v)/2] ^= 4
		return errors.Join(b.Put([]byte(flipped.Domain), v),
			b.Put([]byte(moved.Domain), append([]byte(nil), b.Get([]byte(good.Domain))...)))
	})
	for _, e := range []cache.Entry{flipped, moved} {
		if got, err := s.Get(t.Context(), e.Domain); !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("Get(%s) = %+v, %v, want ErrNotFound", e.Domain, got, err)
		}
	}
	for e, err := range s.All(t.Context()) {
		if err != nil || e != good {
			t.Errorf("All yields %+v, %v", e, err)
		}
	}
	for range 2 {
		taken, err := s.Due(t.Context(), good.Refresh.Add(time.Hour), 24*time.Hour, 10)
		if err != nil || len(taken) > 1 || len(taken) == 1 && taken[0] != good {
			t.Errorf("Due = %+v, %v", taken, err)
		}
	}
	change(t, s, func(tx *bbolt.Tx) error {
		if n := due(tx).Inspect().KeyN; n != 1 {
			t.Errorf("%d rows in the index, want that of the lease alone", n)
		}
		return nil
	})
	early := flipped
	early.Fetched = early.Fetched.Add(-time.Hour)
	cachetest.Put(t, s, early)
	if err := s.Delete(t.Context(), moved.Domain); err != nil {
		t.Error(err)
	}
}

// TestDanglingRows: rows that lead nowhere are removed, more of them than are
// asked for, and do not hide what is due behind them.
func TestDanglingRows(t *testing.T) {
	s := mustOpen(t, newPath(t))
	e := entry(1)
	cachetest.Put(t, s, e)
	change(t, s, func(tx *bbolt.Tx) error {
		for i := range 20 {
			old := entry(i) // of 1 too: a row of an earlier Refresh
			old.Refresh = e.Refresh.Add(-time.Hour)
			if err := due(tx).Put(dueRow(old), nil); err != nil {
				return err
			}
		}
		return due(tx).Put([]byte("short"), nil)
	})
	taken, err := s.Due(t.Context(), e.Refresh, time.Hour, 1)
	if err != nil || len(taken) != 1 || taken[0] != e {
		t.Fatalf("Due = %+v, %v, want %+v", taken, err, e)
	}
}

// commits is how many there were.
func commits(t *testing.T, s *Store) int {
	t.Helper()
	tx, err := s.file.Load().db.Begin(false)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	return tx.ID()
}

// TestGroupCommit: what was taken in one go takes one commit, and what has
// nothing to write takes none.
func TestGroupCommit(t *testing.T) {
	s := mustOpen(t, newPath(t))
	before := commits(t, s)
	var jobs []*job
	for i := range 50 {
		jobs = append(jobs, &job{done: make(chan error, 1), op: func(tx *bbolt.Tx) (bool, error) {
			return true, save(tx, cache.Entry{}, entry(i))
		}})
	}
	s.commit(jobs)
	for _, j := range jobs {
		if err := <-j.done; err != nil {
			t.Error(err)
		}
	}
	if c := commits(t, s) - before; c != 1 {
		t.Errorf("%d jobs took %d commits", len(jobs), c)
	}
	before = commits(t, s)
	old := entry(1)
	old.Fetched = old.Fetched.Add(-time.Hour)
	if err := s.Put(t.Context(), old); !errors.Is(err, cache.ErrOutdated) {
		t.Errorf("Put = %v, want ErrOutdated", err)
	}
	if err := s.Delete(t.Context(), "unknown.example"); err != nil {
		t.Error(err)
	}
	if _, err := s.Due(t.Context(), time.Now(), time.Hour, 10); err != nil {
		t.Error(err)
	}
	if err := s.Touch(t.Context(), map[string]time.Time{"unknown.example": time.Now(), entry(1).Domain: entry(1).Used}); err != nil {
		t.Error(err)
	}
	if c := commits(t, s) - before; c != 0 {
		t.Errorf("nothing to write took %d commits", c)
	}
}

// TestOneFails: an operation that cannot be carried out does not take those
// with it that shared its commit, and leaves nothing half done.
func TestOneFails(t *testing.T) {
	s := mustOpen(t, newPath(t))
	saving := func(e cache.Entry, then func() error) *job {
		return &job{done: make(chan error, 1), op: func(tx *bbolt.Tx) (bool, error) {
			return true, errors.Join(save(tx, cache.Entry{}, e), then())
		}}
	}
	fine := func() error { return nil }
	jobs := []*job{
		saving(entry(1), fine),
		saving(entry(2), func() error { return errors.New("cannot be done") }),
		saving(entry(3), func() error { panic("a page that is none") }),
		saving(entry(4), fine),
	}
	s.commit(jobs)
	for i, j := range jobs {
		err := <-j.done
		_, getErr := s.Get(t.Context(), entry(i+1).Domain)
		if good := i == 0 || i == 3; good != (err == nil) || good != (getErr == nil) {
			t.Errorf("job %d: %v, then Get: %v", i+1, err, getErr)
		}
		if i == 2 && !errors.Is(err, ErrDamaged) {
			t.Errorf("the panic became %v, want ErrDamaged", err)
		}
	}
	cachetest.Put(t, s, entry(5)) // the writer is still there
}

// TestSharedCommit: operations that arrive during a commit share the next one.
func TestSharedCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Store{quit: make(chan struct{}), jobs: make(chan *job)}
		const n = 50
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				err := s.write(t.Context(), func(*bbolt.Tx) (bool, error) { return false, nil })
				if err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		jobs := s.queued()
		if len(jobs) != n {
			t.Errorf("%d of %d jobs were taken", len(jobs), n)
		}
		for _, j := range jobs {
			j.done <- nil
		}
		wg.Wait()
	})
}

// TestTouchBatch: a Touch of many domains takes one commit, and a time that
// cannot be stored costs none of the others.
func TestTouchBatch(t *testing.T) {
	s := mustOpen(t, newPath(t))
	uses := map[string]time.Time{entry(0).Domain: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}
	cachetest.Put(t, s, entry(0))
	for i := 1; i <= 50; i++ {
		cachetest.Put(t, s, entry(i))
		uses[entry(i).Domain] = entry(i).Used.Add(time.Hour)
	}
	before := commits(t, s)
	if err := s.Touch(t.Context(), uses); err != nil {
		t.Fatal(err)
	}
	if c := commits(t, s) - before; c != 1 {
		t.Errorf("%d commits", c)
	}
	for i := 1; i <= 50; i++ {
		if e, err := s.Get(t.Context(), entry(i).Domain); err != nil || !e.Used.Equal(uses[e.Domain]) {
			t.Errorf("%s: Used = %v, %v", e.Domain, e.Used, err)
		}
	}
}

// TestMode: other users cannot read the file (see the package comment).
func TestMode(t *testing.T) {
	s := mustOpen(t, newPath(t))
	info, err := os.Stat(s.path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

func BenchmarkPut(b *testing.B) {
	for _, writers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s := mustOpen(b, newPath(b))
			work := make(chan int)
			var wg sync.WaitGroup
			for range writers {
				wg.Go(func() {
					for i := range work {
						cachetest.Put(b, s, entry(i))
					}
				})
			}
			for i := range b.N {
				work <- i
			}
			close(work)
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "Puts/s")
		})
	}
}

// fill puts n entries at once.
func fill(b *testing.B, s *Store, n int) {
	b.Helper()
	for i := 0; i < n; i += 50_000 {
		err := s.file.Load().db.Update(func(tx *bbolt.Tx) error {
			for k := range min(50_000, n-i) {
				e := entry(i + k)
				e.Refresh = e.Refresh.Add(time.Duration((i+k)*7919%n) * time.Second)
				if err := save(tx, cache.Entry{}, e); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDue takes 100 of a million entries each time.
func BenchmarkDue(b *testing.B) {
	s := mustOpen(b, newPath(b))
	fill(b, s, 1_000_000)
	now := time.Now().Add(24 * time.Hour)
	for b.Loop() {
		now = now.Add(100 * time.Second)
		if taken, err := s.Due(b.Context(), now, 10*365*24*time.Hour, 100); err != nil || len(taken) < 90 {
			b.Fatalf("%d, %v", len(taken), err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	s := mustOpen(b, newPath(b))
	fill(b, s, 50_000)
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for i := 0; p.Next(); i++ {
			if _, err := s.Get(b.Context(), entry(i%50_000).Domain); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{50_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			path := newPath(b)
			s := mustOpen(b, path)
			fill(b, s, n)
			for b.Loop() {
				_ = s.Close()
				s = mustOpen(b, path)
			}
			info, _ := os.Stat(path)
			b.ReportMetric(float64(info.Size())/float64(n), "bytes/entry")
		})
	}
}
