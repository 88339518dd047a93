package socketmap

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What a lookup in the cache looks like on the wire. Both have the same length, so that a server that echoes
// has as much to write.
const (
	benchRequest = "60:postfix a-domain-with-a-rather-longer-name.mail.example.com.,"
	benchReply   = "60:OK secure match=mx1.example.com:.example servername=hostname,"
)

// answerFromCache is a handler that finds everything at once.
func answerFromCache(context.Context, Request) Reply {
	return Reply{Status: OK, Text: "secure match=mx1.example.com:.example servername=hostname"}
}

// echo is the least a server can do: it reads netstrings, and writes them back.
func echo(l net.Listener) {
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer nc.Close()
			r := bufio.NewReader(nc)
			var b []byte
			for {
				head, err := r.ReadSlice(':')
				if err != nil {
					return
				}
				n, err := strconv.Atoi(string(head[:len(head)-1]))
				if err != nil || n > maxRequest {
					return
				}
				b = append(b[:0], head...)
				b = slices.Grow(b, n+1)[:len(head)+n+1]
				if _, err := io.ReadFull(r, b[len(head):]); err != nil {
					return
				}
				if _, err := nc.Write(b); err != nil {
					return
				}
			}
		}()
	}
}

// load keeps conns connections busy, with one outstanding request each, until stop is closed. The replies
// counted are those that came as wanted.
type load struct {
	conns []net.Conn
	want  int
}

// newLoad connects to l and makes a first request on every connection.
func newLoad(t testing.TB, l net.Listener, conns, want int) *load {
	t.Helper()
	g := &load{want: want}
	for range conns {
		nc := dial(t, l)
		nc.SetDeadline(time.Time{})
		g.conns = append(g.conns, nc)
	}
	if err := g.run(conns); err != nil {
		t.Fatal(err)
	}
	return g
}

// run makes n requests, or a few more, spread over the connections.
func (g *load) run(n int) error {
	var wg sync.WaitGroup
	errs := make(chan error, len(g.conns))
	for _, nc := range g.conns {
		wg.Go(func() {
			request, reply := []byte(benchRequest), make([]byte, g.want)
			for range (n + len(g.conns) - 1) / len(g.conns) {
				if _, err := nc.Write(request); err != nil {
					errs <- err
					return
				}
				if _, err := io.ReadFull(nc, reply); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

// cpuTime returns what this process has used, user and system.
func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkEcho is what BenchmarkServer is to be compared with: the same requests, to a server that writes
// them back. The machine's mood changes in between: BenchmarkRatio takes turns.
func BenchmarkEcho(b *testing.B) {
	eachLoad(b, func(b *testing.B, network string, conns int) {
		l := listen(b, network)
		defer l.Close()
		go echo(l)
		benchLoad(b, newLoad(b, l, conns, len(benchRequest)))
	})
}

// BenchmarkServer is the rate of lookups that a handler answers at once.
func BenchmarkServer(b *testing.B) {
	eachLoad(b, func(b *testing.B, network string, conns int) {
		l := listen(b, network)
		start(b, &Server{Handler: HandlerFunc(answerFromCache)}, l)
		benchLoad(b, newLoad(b, l, conns, len(benchReply)))
	})
}

// eachLoad runs f over both networks with 1, 8 and 64 connections.
func eachLoad(b *testing.B, f func(b *testing.B, network string, conns int)) {
	for _, network := range []string{"tcp", "unix"} {
		for _, conns := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("%s/%d", network, conns), func(b *testing.B) { f(b, network, conns) })
		}
	}
}

func benchLoad(b *testing.B, g *load) {
	b.ReportAllocs()
	b.ResetTimer()
	cpu, began := cpuTime(), time.Now()
	if err := g.run(b.N); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "req/s")
	b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/float64(b.N), "cpu-ns/req")
}

// BenchmarkRatio runs the echo and the server in turns, and reports the median of the server's rate
// and CPU time per request (both ends together), relative to the echo's. The aim is a rate of at
// least 0.97 and CPU time of at most 1.10.
func BenchmarkRatio(b *testing.B) {
	eachLoad(b, func(b *testing.B, network string, conns int) {
		le, ls := listen(b, network), listen(b, network)
		defer le.Close()
		go echo(le)
		start(b, &Server{Handler: HandlerFunc(answerFromCache)}, ls)
		ge, gs := newLoad(b, le, conns, len(benchRequest)), newLoad(b, ls, conns, len(benchReply))
		var rate, cpu []float64
		for b.Loop() {
			te, ce := cost(b, ge, 4000)
			ts, cs := cost(b, gs, 4000)
			rate = append(rate, te.Seconds()/ts.Seconds())
			cpu = append(cpu, cs.Seconds()/ce.Seconds())
		}
		b.ReportMetric(median(rate), "rate")
		b.ReportMetric(median(cpu), "cpu")
		b.ReportMetric(float64(len(rate)), "turns")
	})
}

// cost returns how long n requests take, and how much CPU time.
func cost(b *testing.B, g *load, n int) (elapsed, cpu time.Duration) {
	b.Helper()
	c, began := cpuTime(), time.Now()
	if err := g.run(n); err != nil {
		b.Fatal(err)
	}
	return time.Since(began), cpuTime() - c
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// appendFromCache is answerFromCache with a part of the text appended.
func appendFromCache(context.Context, Request) Reply {
	return Reply{Status: OK, Text: "secure match=", More: (*cachedNames)(nil)}
}

// A cachedNames appends a part of a text.
type cachedNames struct{}

func (*cachedNames) AppendTo(b []byte) []byte {
	return append(b, "mx1.example.com:.example servername=hostname"...)
}

// A request that is answered from memory must not allocate, neither in the server nor in what it calls.
func TestNoAllocations(t *testing.T) {
	most := 0.0
	if raceEnabled {
		most = 3 // see raceEnabled
	}
	for _, network := range []string{"tcp", "unix"} {
		for _, handler := range []HandlerFunc{answerFromCache, appendFromCache} {
			l := listen(t, network)
			start(t, &Server{Handler: handler}, l)
			nc := dial(t, l)
			request, reply := []byte(benchRequest), make([]byte, len(benchReply))
			roundTrip := func() {
				nc.Write(request)
				if _, err := io.ReadFull(nc, reply); err != nil {
					t.Fatal(err)
				}
			}
			roundTrip()
			if string(reply) != benchReply {
				t.Errorf("%s: got %q", network, reply)
			}
			runtime.GC()
			if got := testing.AllocsPerRun(1000, roundTrip); got > most {
				t.Errorf("%s: %v allocations per request, want none", network, got)
			}
		}
	}
}
