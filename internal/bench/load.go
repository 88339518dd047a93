package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A job is what the load generator has to do.
type job struct {
	// What is "rate": ask for Time, for keys at random; "each": ask for each key once; "probe": ask for one key after
	// the other, one every Pace, until there is another job, which is not carried out; "hang": ask for each key once,
	// with a connection each, and count those that were answered when there is another job, likewise; "bare": retrieve the policy of
	// each key without a daemon, Addr being the file of the certificate; "bare-dane": check for DANE instead.
	What  string
	Addr  string
	Conns int
	Keys  series
	Mixed bool // "each" asks in random order, and not in that of the keys
	Time  time.Duration
	Pace  time.Duration
}

// A tally is what came of it.
type tally struct {
	Answers         int // of any kind, with these among them
	Found           int // OK
	Absent          int // NOTFOUND
	Took            time.Duration
	CPU             time.Duration // of the load generator
	Median, Slowest time.Duration // one lookup; not for "rate"
}

func (t tally) perSecond() float64 { return float64(t.Answers) / t.Took.Seconds() }

func (t *tally) add(status byte) {
	t.Answers++
	switch status {
	case 'O':
		t.Found++
	case 'N':
		t.Absent++
	}
}

// generate carries out a job.
func generate(j job, next <-chan job) (tally, error) {
	if j.What == "bare" || j.What == "bare-dane" {
		return bare(j)
	}
	askers := make([]*asker, max(j.Conns, 1))
	for i := range askers {
		a, err := dial(j.Addr)
		if err != nil {
			return tally{}, err
		}
		defer a.nc.Close()
		askers[i] = a
	}
	before := ownCPU()
	var t tally
	var err error
	switch j.What {
	case "rate":
		t, err = rate(askers, j)
	case "each":
		t, err = each(askers, j)
	case "probe":
		t, err = probe(askers[0], j, next)
	case "hang":
		t = hang(askers, j, next)
	default:
		err = fmt.Errorf("no job %q", j.What)
	}
	t.CPU = ownCPU() - before
	return t, err
}

// rate asks as often as the answers come.
func rate(askers []*asker, j job) (tally, error) {
	requests := j.Keys.requests()
	counts := make([]tally, len(askers))
	errs := make([]error, len(askers))
	var stop atomic.Bool
	var all sync.WaitGroup
	began := time.Now()
	for i, a := range askers {
		all.Go(func() {
			seed := uint32(i)*2654435761 + 1
			var t tally // and not counts[i], which others write next to
			for !stop.Load() {
				// xorshift: a better generator would be the dearest thing here.
				seed ^= seed << 13
				seed ^= seed >> 17
				seed ^= seed << 5
				status, err := a.ask(requests[int(seed)%len(requests)])
				if err != nil {
					errs[i] = err
					break
				}
				t.add(status)
			}
			counts[i] = t
		})
	}
	time.Sleep(j.Time)
	stop.Store(true)
	took := time.Since(began)
	all.Wait()
	sum := tally{Took: took}
	for _, t := range counts {
		sum.Answers += t.Answers
		sum.Found += t.Found
		sum.Absent += t.Absent
	}
	return sum, errors.Join(errs...)
}

// each shares the keys out among the askers, one at a time.
func each(askers []*asker, j job) (tally, error) {
	requests := j.Keys.requests()
	if j.Mixed {
		rand.Shuffle(len(requests), func(i, k int) { requests[i], requests[k] = requests[k], requests[i] })
	}
	times := make([]time.Duration, len(requests))
	kinds := make([]byte, len(requests))
	errs := make([]error, len(askers))
	var taken atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for i, a := range askers {
		all.Go(func() {
			for {
				k := int(taken.Add(1)) - 1
				if k >= len(requests) {
					return
				}
				start := time.Now()
				status, err := a.ask(requests[k])
				if err != nil {
					errs[i] = err
					return
				}
				times[k], kinds[k] = time.Since(start), status
			}
		})
	}
	all.Wait()
	t := tally{Took: time.Since(began)}
	for _, kind := range kinds {
		t.add(kind)
	}
	t.Median, t.Slowest = median(times), slices.Max(times)
	return t, errors.Join(errs...)
}

// hang asks for keys about which there may be no answer.
func hang(askers []*asker, j job, next <-chan job) tally {
	var answers atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for i, a := range askers {
		all.Go(func() {
			if _, err := a.ask(request(j.Keys.domain(i))); err == nil {
				answers.Add(1)
			}
		})
	}
	<-next
	t := tally{Answers: int(answers.Load()), Took: time.Since(began)}
	for _, a := range askers {
		a.nc.Close()
	}
	all.Wait()
	return t
}

// probe looks how long an answer takes while something else goes on.
func probe(a *asker, j job, next <-chan job) (tally, error) {
	tick := time.NewTicker(j.Pace)
	defer tick.Stop()
	var t tally
	var times []time.Duration
	began := time.Now()
	for i := 0; ; i++ {
		select {
		case <-next:
			t.Took = time.Since(began)
			if len(times) > 0 {
				t.Median, t.Slowest = median(times), slices.Max(times)
			}
			return t, nil
		case <-tick.C:
		}
		start := time.Now()
		status, err := a.ask(request(j.Keys.domain(i % j.Keys.N)))
		if err != nil {
			<-next
			return t, err
		}
		times = append(times, time.Since(start))
		t.add(status)
	}
}

// ownCPU is what this process has used so far.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// median returns the middle one, of an even number the lower. It changes nothing in all, and needs one.
func median[T float64 | time.Duration](all []T) T {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[(len(sorted)-1)/2]
}
