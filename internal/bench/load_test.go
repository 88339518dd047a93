package bench

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A Job is what a load generator has to do.
type Job struct {
	Addr  string // of the server; of Bare: the file of the certificate
	Conns int
	Keys  Series
	Time  time.Duration // of Rate
	Pace  time.Duration // of Probe
	DANE  bool          // Bare checks for DANE, and does not fetch the policy
}

// Counts is what came of a Job.
type Counts struct {
	Answers         int // of any kind
	Right           int // that the domain has a policy, or none, as it should
	Took            time.Duration
	Median, Slowest time.Duration // one lookup; not of Rate
}

func (c Counts) perSecond() float64 { return float64(c.Answers) / c.Took.Seconds() }

// check fails if an answer about one of the keys was wrong.
func (c Counts) check(b testing.TB, keys Series) {
	b.Helper()
	if c.Right != c.Answers || c.Answers == 0 {
		b.Fatalf("%d of %d answers, such as that about %s, are wrong", c.Answers-c.Right, c.Answers, keys.domain(0))
	}
}

// A Series is many domains, or one if the pattern has no number.
type Series struct {
	Pattern string // with %d, and %o for the number of an owner
	Low, N  int
}

func (s Series) domain(i int) string {
	name := strings.Replace(s.Pattern, "%d", strconv.Itoa(s.Low+i), 1)
	return strings.Replace(name, "%o", strconv.Itoa((s.Low+i)%hostileOwners), 1)
}

// want is the first letter of the right answer: OK, or NOTFOUND if the domains have no record.
func (s Series) want() byte {
	if s.Pattern == noneNow || s.Pattern == noneSlow {
		return 'N'
	}
	return 'O'
}

func (s Series) requests() [][]byte {
	all := make([][]byte, s.N)
	for i := range all {
		all[i] = request(s.domain(i))
	}
	return all
}

// request is the lookup of a domain.
func request(domain string) []byte {
	return fmt.Appendf(nil, "%d:postfix %s,", len("postfix ")+len(domain), domain)
}

// A client is one connection with at most one request outstanding, as smtp(8) has it. It does less than
// socketmap.Client: a load generator shares the machine with what it measures.
type client struct {
	net.Conn
	reply []byte // the last one
	buf   [4096]byte
}

func dial(addr string) (*client, error) {
	network, where := networkOf(addr)
	nc, err := net.Dial(network, where)
	return &client{Conn: nc}, err
}

// networkOf splits an address as the configuration has it, "host:port" or "unix:/path".
func networkOf(addr string) (network, where string) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return "unix", path
	}
	return "tcp", addr
}

// withClients makes the connections of a job, and closes them.
func withClients(j Job, do func(clients []*client) error) error {
	clients := make([]*client, max(j.Conns, 1))
	for i := range clients {
		c, err := dial(j.Addr)
		if err != nil {
			return err
		}
		defer c.Close()
		clients[i] = c
	}
	return do(clients)
}

// ask sends a request and returns the first letter of the reply's status.
func (c *client) ask(request []byte) (status byte, err error) {
	if _, err := c.Write(request); err != nil {
		return 0, err
	}
	n := 0
	for {
		m, err := c.Read(c.buf[n:])
		if err != nil {
			return 0, err
		}
		n += m
		if start, size := extent(c.buf[:n]); size > 0 && n >= size {
			c.reply = c.buf[:size]
			return c.buf[start], nil
		}
	}
}

// extent returns where the payload of the netstring in b begins, and the size of the whole: 0 while its digits are
// incomplete.
func extent(b []byte) (start, size int) {
	n := 0
	for i, c := range b {
		if c == ':' {
			return i + 1, i + 1 + n + 1
		}
		n = n*10 + int(c-'0')
	}
	return 0, 0
}

// Rate asks for Time as often as the answers come, once at least with each connection, for keys at random.
func (*Worker) Rate(j Job, sum *Counts) error {
	return withClients(j, func(clients []*client) error {
		requests, want := j.Keys.requests(), j.Keys.want()
		counts := make([]Counts, len(clients))
		var stop atomic.Bool
		began := time.Now()
		time.AfterFunc(j.Time, func() { stop.Store(true) })
		err := inParallel(len(clients), len(clients), func(_, i int) error {
			var c Counts // and not counts[i], which others write next to
			for c.Answers == 0 || !stop.Load() {
				status, err := clients[i].ask(requests[rand.IntN(len(requests))])
				if err != nil {
					return err
				}
				c.Answers++
				if status == want {
					c.Right++
				}
			}
			counts[i] = c
			return nil
		})
		sum.Took = time.Since(began)
		for _, c := range counts {
			sum.Answers += c.Answers
			sum.Right += c.Right
		}
		return err
	})
}

// Each asks for each key once, in random order. The connections share them out.
func (*Worker) Each(j Job, c *Counts) error {
	return withClients(j, func(clients []*client) (err error) {
		requests := j.Keys.requests()
		rand.Shuffle(len(requests), func(i, k int) { requests[i], requests[k] = requests[k], requests[i] })
		*c, err = lookups(j.Keys, len(clients), func(conn, i int) (byte, error) { return clients[conn].ask(requests[i]) })
		return err
	})
}

// lookups makes one for each key, some at once, and times them.
func lookups(keys Series, atOnce int, one func(conn, i int) (status byte, err error)) (Counts, error) {
	times := make([]time.Duration, keys.N)
	var right atomic.Int64
	began := time.Now()
	err := inParallel(keys.N, atOnce, func(conn, i int) error {
		start := time.Now()
		status, err := one(conn, i)
		times[i] = time.Since(start)
		if status == keys.want() {
			right.Add(1)
		}
		return err
	})
	return Counts{Answers: keys.N, Right: int(right.Load()), Took: time.Since(began), Median: median(times), Slowest: slices.Max(times)}, err
}

// inParallel calls do for each i below n, in goroutines with numbers of their own, until one call fails.
func inParallel(n, goroutines int, do func(goroutine, i int) error) error {
	errs := make([]error, goroutines)
	var next atomic.Int64
	var all sync.WaitGroup
	for g := range goroutines {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(g, i); err != nil {
					errs[g] = err
					next.Store(int64(n))
				}
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// Probe asks for one key after the other, one every Pace, until Stop: how long does an answer take meanwhile?
func (w *Worker) Probe(j Job, c *Counts) error {
	return withClients(j, func(clients []*client) error {
		tick := time.NewTicker(j.Pace)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-w.stop:
				return nil
			case <-tick.C:
			}
			start := time.Now()
			if _, err := clients[0].ask(request(j.Keys.domain(i % j.Keys.N))); err != nil {
				return err
			}
			c.Slowest = max(c.Slowest, time.Since(start))
		}
	})
}

// Hang asks for each key once, with a connection each, and counts the answers that came until Stop: there may be none.
func (w *Worker) Hang(j Job, c *Counts) error {
	j.Conns = j.Keys.N
	return withClients(j, func(clients []*client) error {
		var answers atomic.Int64
		began := time.Now()
		for i, client := range clients {
			go func() { // until the connection is closed
				if _, err := client.ask(request(j.Keys.domain(i))); err == nil {
					answers.Add(1)
				}
			}()
		}
		<-w.stop
		*c = Counts{Answers: int(answers.Load()), Took: time.Since(began)}
		return nil
	})
}

// Stop ends the Probe or Hang that runs. A Worker does none afterwards.
func (w *Worker) Stop(struct{}, *struct{}) error {
	close(w.stop)
	return nil
}
