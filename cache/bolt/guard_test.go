package bolt

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"stsmap/cache/cachetest"
)

// TestHeadersDestroyed: when both headers are overwritten under load, bbolt
// panics with its locks held. Every call then returns an error, Close returns,
// and the lock on the file is released.
func TestHeadersDestroyed(t *testing.T) {
	for range 8 {
		path := newPath(t)
		s := mustOpen(t, path)
		for i := range 50 {
			cachetest.Put(t, s, entry(i))
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		var working sync.WaitGroup
		for w := range 16 {
			working.Go(func() {
				for {
					var err error
					switch w % 4 {
					case 0:
						err = s.Put(t.Context(), entry(w))
					case 1:
						_, err = s.Due(t.Context(), time.Now().Add(48*time.Hour), time.Millisecond, 5)
					default:
						_, err = s.Get(t.Context(), entry(w).Domain)
					}
					// A commit that had to enlarge the mapping has an error of its own.
					if errors.Is(err, ErrDamaged) {
						return
					}
				}
			})
		}
		stop := make(chan struct{})
		var destroying sync.WaitGroup
		destroying.Go(func() {
			for {
				select {
				case <-stop:
					return
				default: // again and again, because a commit writes one of them anew
					_, err := f.WriteAt(make([]byte, 2*os.Getpagesize()), 0)
					if err != nil {
						t.Error(err)
					}
				}
			}
		})
		cachetest.Within(t, "a call", working.Wait)
		close(stop)
		destroying.Wait()
		cachetest.Within(t, "a call after the failure", func() {
			if _, err := s.Get(t.Context(), entry(1).Domain); !errors.Is(err, ErrDamaged) {
				t.Errorf("Get = %v, want ErrDamaged", err)
			}
			if err := s.Put(t.Context(), entry(1)); !errors.Is(err, ErrDamaged) {
				t.Errorf("Put = %v, want ErrDamaged", err)
			}
			s.watch(t.Context())
			s.evict(t.Context())
		})
		cachetest.Within(t, "Close", func() { _ = s.Close() })
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			t.Errorf("the file is still locked: %v", err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestHeadersDestroyedReader: a reader that is within a transaction when another
// cannot begin one is not kept by that.
func TestHeadersDestroyedReader(t *testing.T) {
	s := mustOpen(t, newPath(t))
	cachetest.Put(t, s, entry(1), entry(2))
	next := 0
	cachetest.Within(t, "a reader", func() {
		for _, err := range s.All(t.Context()) {
			if err != nil {
				t.Error(err)
			}
			next++
		}
		file := s.file.Load()
		tx, err := s.beginTx(file, false)
		if err != nil {
			t.Error(err)
			return
		}
		f, err := os.OpenFile(s.path, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteAt(make([]byte, 2*os.Getpagesize()), 0)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Error(err)
		}
		if _, err := s.Get(t.Context(), entry(1).Domain); !errors.Is(err, ErrDamaged) {
			t.Errorf("Get = %v, want ErrDamaged", err)
		}
		s.endRead(tx)
	})
	cachetest.Within(t, "Close", func() { _ = s.Close() })
	if next != 2 {
		t.Errorf("%d entries", next)
	}
}

// TestReadersEnd: a reader that ends while another waits to begin, because the
// writer waits for the first one to enlarge the mapping, blocks neither.
func TestReadersEnd(t *testing.T) {
	s := mustOpen(t, newPath(t))
	cachetest.Put(t, s, entry(1))
	cachetest.Within(t, "the store", func() {
		var working sync.WaitGroup
		for w := range 8 {
			working.Go(func() {
				for i := range 40 {
					if w < 2 {
						cachetest.Put(t, s, large(w*1000+i))
						continue
					}
					for range 20 {
						_, _ = s.Get(t.Context(), entry(1).Domain)
					}
					for _, err := range s.All(t.Context()) {
						if err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		working.Wait()
	})
}
