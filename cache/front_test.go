package cache

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var errBack = errors.New("the back is broken")

// A faulty is a Memory that fails while broken is set, counts what it is asked,
// and stops at a gate, if there is one, after it has done what it was asked.
type faulty struct {
	*Memory
	broken     atomic.Bool
	gets, puts atomic.Int32
	gate       chan struct{} // nil: none
	at         chan struct{} // a send for each operation that stands at the gate
}

func (f *faulty) done(err error) error {
	if f.gate != nil {
		f.at <- struct{}{}
		<-f.gate
	}
	return err
}

func (f *faulty) Get(ctx context.Context, domain string) (Entry, error) {
	f.gets.Add(1)
	if f.broken.Load() {
		return Entry{}, errBack
	}
	e, err := f.Memory.Get(ctx, domain)
	return e, f.done(err)
}

func (f *faulty) Put(ctx context.Context, e Entry) error {
	f.puts.Add(1)
	if f.broken.Load() {
		return errBack
	}
	return f.done(f.Memory.Put(ctx, e))
}

func (f *faulty) Touch(ctx context.Context, uses map[string]time.Time) error {
	if f.broken.Load() {
		return errBack
	}
	return f.Memory.Touch(ctx, uses)
}

func (f *faulty) Delete(ctx context.Context, domain string) error {
	if f.broken.Load() {
		return errBack
	}
	return f.Memory.Delete(ctx, domain)
}

func (f *faulty) All(ctx context.Context) iter.Seq2[Entry, error] {
	if f.broken.Load() {
		return func(yield func(Entry, error) bool) { yield(Entry{}, errBack) }
	}
	return f.Memory.All(ctx)
}

// A scene is a Front before a faulty back, with shorthands that fail the test.
type scene struct {
	t    *testing.T
	back *faulty
	*Front
	reported []string
}

func newScene(t *testing.T, n int, ttl time.Duration) *scene {
	s := &scene{t: t, back: &faulty{Memory: NewMemory(100)}}
	s.Front = NewFront(s.back, n, ttl)
	s.OnError = func(op string, err error) { s.reported = append(s.reported, fmt.Sprint(op, ": ", err)) }
	return s
}

func (s *scene) put(e Entry, want error) {
	s.t.Helper()
	if err := s.Put(s.t.Context(), e); !errors.Is(err, want) {
		s.t.Fatalf("Put(%s) = %v, want %v", e.Domain, err, want)
	}
}

// behind puts e into the back, as another process would.
func (s *scene) behind(e Entry) {
	s.t.Helper()
	if err := s.back.Memory.Put(s.t.Context(), e); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) want(e Entry) {
	s.t.Helper()
	got, err := s.Get(s.t.Context(), e.Domain)
	if err != nil || got.ID != e.ID || got.Policy != e.Policy {
		s.t.Fatalf("Get(%s) = %+v, %v, want %+v", e.Domain, got, err, e)
	}
}

func (s *scene) wantErr(domain string, want error) {
	s.t.Helper()
	if e, err := s.Get(s.t.Context(), domain); !errors.Is(err, want) {
		s.t.Fatalf("Get(%s) = %+v, %v, want %v", domain, e, err, want)
	}
}

func named(e Entry, id string, after time.Duration) Entry {
	e.ID, e.Fetched = id, e.Fetched.Add(after)
	return e
}

// play runs each part in a bubble of its own.
func play(t *testing.T, parts map[string]func(*testing.T)) {
	for name, part := range parts {
		t.Run(name, func(t *testing.T) { synctest.Test(t, part) })
	}
}

func TestFrontCopies(t *testing.T) {
	play(t, map[string]func(*testing.T){
		"a copy is used until it is ttl old": func(t *testing.T) {
			s := newScene(t, 10, time.Minute)
			e := testPolicy(1, 24*time.Hour)
			s.put(e, nil)
			later := named(e, "later", time.Second)
			s.behind(later)
			time.Sleep(time.Minute - time.Nanosecond)
			s.want(e)
			time.Sleep(time.Nanosecond)
			s.want(later)
			s.want(later)
			if n := s.back.gets.Load(); n != 1 {
				t.Errorf("the back was asked %d times", n)
			}
		},
		"without a ttl a copy is used for ever": func(t *testing.T) {
			s := newScene(t, 10, 0)
			e := testPolicy(1, 24*time.Hour)
			s.behind(e)
			s.want(e)
			s.behind(named(e, "later", time.Second))
			time.Sleep(1000 * time.Hour)
			s.want(e)
			if n := s.back.gets.Load(); n != 1 {
				t.Errorf("the back was asked %d times", n)
			}
		},
		"what was deleted in the back is gone when the copy is old": func(t *testing.T) {
			s := newScene(t, 10, time.Minute)
			e := testPolicy(1, 24*time.Hour)
			s.put(e, nil)
			_ = s.back.Memory.Delete(t.Context(), e.Domain)
			time.Sleep(time.Minute)
			s.wantErr(e.Domain, ErrNotFound)
		},
		"ErrOutdated of the back drops the copy": func(t *testing.T) {
			s := newScene(t, 10, 0)
			e := testPolicy(1, 24*time.Hour)
			s.put(e, nil)
			later := named(e, "later", time.Hour)
			s.behind(later)
			s.put(named(e, "between", time.Minute), ErrOutdated)
			s.want(later)
		},
		"a lease is seen": func(t *testing.T) {
			s := newScene(t, 10, 0)
			e := testPolicy(1, 24*time.Hour)
			s.put(e, nil)
			taken, err := s.Due(t.Context(), e.Refresh, time.Hour, 1)
			got, getErr := s.Get(t.Context(), e.Domain)
			if len(taken) != 1 || err != nil || getErr != nil || !got.Refresh.After(e.Refresh) {
				t.Errorf("Due = %v, %v; then Get = %v, %v", taken, err, got, getErr)
			}
		},
	})
}

// TestFrontClockSetBack: copies that were doubted before the clock was set back
// are compared with the back, and those made after it are used. A bubble begins
// in the year 2000, which for a Front made outside of it is a clock set back.
func TestFrontClockSetBack(t *testing.T) {
	s := newScene(t, 10, time.Minute)
	e := testPolicy(1, 1000*time.Hour)
	s.put(e, nil)
	s.changed("", false)
	later := named(e, "later", time.Second)
	s.behind(later)
	synctest.Test(t, func(t *testing.T) {
		if !time.Now().Before(e.Fetched) {
			t.Fatal("the clock is not behind")
		}
		s.want(later)
		time.Sleep(time.Second)
		s.want(later)
		s.want(later)
		if n := s.back.gets.Load(); n != 1 {
			t.Errorf("the back was asked %d times, want once", n)
		}
	})
}

func TestFrontAbsences(t *testing.T) {
	play(t, map[string]func(*testing.T){
		"an absence is in memory alone": func(t *testing.T) {
			s := newScene(t, 10, time.Minute)
			e := testAbsence(1)
			s.put(e, nil)
			time.Sleep(time.Hour) // and stays there when the back does not know it
			s.want(e)
			if s.back.puts.Load() != 0 {
				t.Error("it was put in the back")
			}
		},
		"a policy of another process replaces it": func(t *testing.T) {
			s := newScene(t, 10, time.Minute)
			e := testPolicy(1, 24*time.Hour)
			s.put(Entry{Domain: e.Domain}, nil)
			s.behind(e)
			time.Sleep(time.Minute)
			s.want(e)
		},
		"it is refused where the back holds a policy": func(t *testing.T) {
			s := newScene(t, 10, 0)
			e := testPolicy(1, 24*time.Hour)
			s.behind(e)
			s.put(Entry{Domain: e.Domain, Checked: time.Now()}, ErrOutdated)
			s.want(e)
		},
		"it replaces an expired policy in the back": func(t *testing.T) {
			s := newScene(t, 10, 0)
			e := testPolicy(1, time.Hour)
			s.put(e, nil)
			time.Sleep(2 * time.Hour)
			gone := Entry{Domain: e.Domain, ID: "gone", Checked: time.Now()}
			s.put(gone, nil)
			s.want(gone)
			if e, err := s.back.Memory.Get(t.Context(), e.Domain); err != nil || e.Policy != "" {
				t.Errorf("the back still has %+v, %v", e, err)
			}
		},
		"one put while the back fails gives way to it": func(t *testing.T) {
			s := newScene(t, 10, 0)
			e := testPolicy(1, 24*time.Hour)
			gone := Entry{Domain: e.Domain, ID: "gone", Checked: time.Now()}
			s.behind(e)
			s.back.broken.Store(true)
			s.put(gone, errBack)
			s.want(gone)
			s.back.broken.Store(false)
			s.want(e)
			unknown := testAbsence(2)
			s.back.broken.Store(true)
			s.put(unknown, errBack)
			s.back.broken.Store(false)
			s.want(unknown)
		},
		"All lists it once, and what the back has": func(t *testing.T) {
			s := newScene(t, 10, 0)
			s.put(testAbsence(1), nil)
			s.put(testPolicy(1, time.Hour), nil)
			s.behind(testPolicy(2, time.Hour))
			var got []string
			for e, err := range s.All(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, e.Domain)
			}
			slices.Sort(got)
			if want := []string{"absence-1.example", "policy-1.example", "policy-2.example"}; !slices.Equal(got, want) {
				t.Errorf("All yields %q, want %q", got, want)
			}
		},
	})
}

func TestFrontBrokenBack(t *testing.T) {
	play(t, map[string]func(*testing.T){
		"a copy is used whatever its age, and it is told": func(t *testing.T) {
			s := newScene(t, 10, time.Minute)
			e := testPolicy(1, 24*time.Hour)
			s.put(e, nil)
			time.Sleep(time.Hour)
			s.back.broken.Store(true)
			s.want(e)
			if err := s.Touch(t.Context(), map[string]time.Time{e.Domain: time.Now()}); err != nil {
				t.Errorf("Touch: %v", err)
			}
			if want := []string{"get: " + errBack.Error(), "touch: " + errBack.Error()}; !slices.Equal(s.reported, want) {
				t.Errorf("told %q, want %q", s.reported, want)
			}
			s.wantErr("other.example", errBack)
		},
		"a policy stays in memory and wins until one is put": func(t *testing.T) {
			s := newScene(t, 10, time.Minute)
			e := testPolicy(1, 240*time.Hour)
			s.put(e, nil)
			s.back.broken.Store(true)
			second, third := named(e, "second", time.Hour), named(e, "third", 2*time.Hour)
			s.put(second, errBack)
			s.want(second)
			s.put(named(e, "between", time.Minute), ErrOutdated)
			s.back.broken.Store(false)
			time.Sleep(time.Hour)
			s.want(second)
			s.put(named(e, "between", time.Minute), ErrOutdated)
			s.put(third, nil)
			time.Sleep(time.Hour)
			s.want(third)
			s.behind(named(e, "fourth", 3*time.Hour))
			time.Sleep(time.Hour)
			s.want(named(e, "fourth", 0)) // it is clean
		},
		"a dirty policy is the last to be forgotten": func(t *testing.T) {
			s := newScene(t, 3, 0)
			e := testPolicy(1, 24*time.Hour)
			s.back.broken.Store(true)
			s.put(e, errBack)
			s.back.broken.Store(false)
			for i := range 20 {
				s.put(testPolicy(100+i, time.Hour), nil)
				s.put(testAbsence(i), nil)
			}
			s.want(e)
		},
		"Delete forgets the copy and says that the back failed": func(t *testing.T) {
			s := newScene(t, 10, 0)
			e := testPolicy(1, 24*time.Hour)
			s.put(e, nil)
			s.back.broken.Store(true)
			if err := s.Delete(t.Context(), e.Domain); !errors.Is(err, errBack) {
				t.Errorf("Delete = %v", err)
			}
			s.wantErr(e.Domain, errBack)
		},
	})
}

// TestFrontOverlap holds operations of one domain in the back, after they were
// carried out there and before memory knows, and lets them go in either order.
func TestFrontOverlap(t *testing.T) {
	e := testPolicy(1, 24*time.Hour)
	later := named(e, "later", time.Hour)
	ops := map[string]func(context.Context, *Front){
		"Get":    func(ctx context.Context, f *Front) { _, _ = f.Get(ctx, e.Domain) },
		"Put":    func(ctx context.Context, f *Front) { _ = f.Put(ctx, e) },
		"absent": func(ctx context.Context, f *Front) { _ = f.Put(ctx, Entry{Domain: e.Domain}) },
	}
	for name, op := range ops {
		for _, stored := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, stored %v", name, stored), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newScene(t, 10, 0)
					if stored {
						s.behind(e)
					}
					s.back.at, s.back.gate = make(chan struct{}), make(chan struct{})
					ended := make(chan struct{})
					go func() { // the test waits for it through ended
						defer close(ended)
						op(t.Context(), s.Front)
					}()
					<-s.back.at // the operation has seen the back as it was
					put := make(chan error)
					go func() { put <- s.Put(t.Context(), later) }()
					<-s.back.at
					// Both stand in the back. Which of them goes first is left
					// to the runtime: the outcome must be the same.
					close(s.back.gate)
					go func() {
						for range s.back.at {
						}
					}()
					<-ended
					if err := <-put; err != nil {
						t.Fatal(err)
					}
					s.want(later)
					close(s.back.at)
				})
			})
		}
	}
}
