package resolver

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// minAttempt is the minimum time per attempt, if the total timeout allows it for every server.
	minAttempt = time.Second

	// plainShare is the part of the timeout, 1/plainShare, that is kept for asking silent servers
	// without EDNS: there are networks that drop queries with an OPT record.
	plainShare = 5
)

// A response is a well-formed one to a query.
type response struct {
	*dns.Msg
	from    *server
	secure  bool // AD is set, and from is trusted with it
	unknown bool // from is not trusted, and another server is
}

// A query is one name and type that is asked for in steps. The next step begins when one fails, or when
// its time is over. In that case its socket stays open, so that a slow response is not lost.
type query struct {
	r       *Resolver
	parent  context.Context // of the caller
	cancel  context.CancelFunc
	name    string // with the final dot, in the form of package dns
	qtype   uint16
	steps   []step
	running sync.WaitGroup

	mu       sync.Mutex
	pending  []*server // of the steps under way
	response response  // the first; without Msg there is none yet
	worst    *Error    // the most telling failure, and of which step it is
	worstOf  int
}

// A step is an attempt to ask one server.
type step struct {
	server *server
	edns   bool
	limit  time.Duration // until the next step
	until  time.Time     // when it must not begin any more, and the next step begins
	full   bool          // silence counts against the server
}

// ask asks the servers in turn until one has a response that says something about the name. If none
// has, the error is the most telling of theirs.
func (r *Resolver) ask(parent context.Context, name string, qtype uint16, deadline time.Time) (response, error) {
	if d, ok := parent.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	q := &query{r: r, parent: parent, name: name, qtype: qtype}
	budget := time.Until(deadline)
	if err := parent.Err(); err != nil || budget <= 0 {
		return response{}, q.notAsked(cmp.Or(err, context.DeadlineExceeded))
	}
	servers, mixed := r.servers().order(time.Since(r.began))
	q.plan(servers, deadline, budget)
	var ctx context.Context
	ctx, q.cancel = context.WithDeadline(parent, deadline)
	defer q.cancel()
	q.run(ctx, 0)
	q.running.Wait()
	if q.response.Msg == nil {
		return response{}, cmp.Or(q.worst, q.notAsked(context.DeadlineExceeded))
	}
	q.response.unknown = mixed && !q.response.from.trusted
	return q.response, nil
}

// plan makes the steps: rounds with all servers, then one without EDNS for those that were silent.
// Servers that are not trusted have their rounds after those that are.
//
// A server that answered SERVFAIL is asked again in the second round: it caches the failure for a
// moment (RFC 9520, Section 3.2), so this is cheap, and the failure may have been a passing one.
func (q *query) plan(servers []*server, deadline time.Time, budget time.Duration) {
	n := time.Duration(len(servers))
	last := budget / plainShare
	regular := budget - last
	each := max(regular/(n*time.Duration(q.r.attempts)), min(minAttempt, regular/n))
	full := each >= min(minAttempt, (q.r.timeout-q.r.timeout/plainShare)/n)
	q.steps = make([]step, 0, len(servers)*(q.r.attempts+1))
	others := max(slices.IndexFunc(servers, func(s *server) bool { return !s.trusted }), 0)
	for _, some := range [][]*server{servers[:others], servers[others:]} {
		for range q.r.attempts {
			for _, s := range some {
				q.steps = append(q.steps, step{server: s, edns: true, limit: each, until: deadline.Add(-last), full: full})
			}
		}
	}
	for _, s := range servers {
		if s.conns == nil { // nothing on the way sees EDNS within TLS
			q.steps = append(q.steps, step{server: s, limit: last / n, until: deadline})
		}
	}
}

// run makes the steps from the given one on. It returns when one has a response, or the later ones run
// elsewhere.
func (q *query) run(ctx context.Context, i int) {
	for ; i < len(q.steps); i++ {
		s := q.steps[i]
		limit := min(s.limit, time.Until(s.until))
		if limit <= 0 || !q.begin(ctx, s) {
			continue
		}
		began := time.Since(q.r.began)
		q.running.Add(1)
		next := time.AfterFunc(limit, func() {
			defer q.running.Done()
			if ctx.Err() == nil {
				q.noteSilence(s, began, limit)
				q.run(ctx, i+1)
			}
		})
		resp, err := q.r.try(ctx, q.name, q.qtype, s.server, s.edns)
		q.end(i, resp, err)
		if !next.Stop() {
			return
		}
		q.running.Done()
		if err == nil {
			return
		}
	}
}

// begin reports whether a step is to be made. One without EDNS is only for a server that is silent.
func (q *query) begin(ctx context.Context, s step) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if ctx.Err() != nil || !s.edns && !slices.Contains(q.pending, s.server) {
		return false
	}
	q.pending = append(q.pending, s.server)
	return true
}

// end notes how the step with index i ended. The first response ends all others.
func (q *query) end(i int, resp response, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.steps[i].server
	at := slices.Index(q.pending, s)
	q.pending = slices.Delete(q.pending, at, at+1)
	switch {
	case q.response.Msg != nil:
	case err == nil:
		q.response = resp
		q.cancel()
	default:
		e := newError(q.parent, q.name, q.qtype, s, err)
		if q.worst == nil || e.Kind < q.worst.Kind || e.Kind == q.worst.Kind && i < q.worstOf {
			q.worst, q.worstOf = e, i
		}
	}
}

// noteSilence notes that a step has no response in its time.
func (q *query) noteSilence(s step, began, limit time.Duration) {
	if s.full && limit > s.limit/2 {
		s.server.noteSilence(began, time.Since(q.r.began))
	}
	if s.server.conns != nil {
		s.server.conns.retireSilent(q.r.began.Add(began))
	}
}

func (q *query) notAsked(cause error) *Error {
	return &Error{Name: displayName(q.name), Type: typeName(q.qtype), Kind: Timeout, Err: cause}
}

// try asks one server until ctx ends. If the server seems not to know EDNS it is asked once more
// without it (RFC 6891, Section 7). So it is after a malformed response: some home routers mangle
// responses with an OPT record. That is not kept for later queries, since such servers are rare.
func (r *Resolver) try(ctx context.Context, name string, qtype uint16, s *server, edns bool) (response, error) {
	m, err := r.exchange(ctx, s, newQuery(name, qtype, edns))
	if edns && suggestsNoEDNS(err) {
		m, err = r.exchange(ctx, s, newQuery(name, qtype, false))
	}
	if err != nil {
		return response{}, err
	}
	return response{Msg: m, from: s, secure: m.AuthenticatedData && s.trusted}, nil
}

// exchange asks one server once, over UDP, then over TCP if the response was truncated (RFC 7766,
// Section 5); or over TLS.
func (r *Resolver) exchange(ctx context.Context, s *server, q *dns.Msg) (m *dns.Msg, err error) {
	defer func() {
		if m != nil || isResponse(err) {
			s.noteResponse(time.Since(r.began))
		}
	}()
	if s.conns != nil {
		return complete(s.conns.exchange(ctx, r, s, q))
	}
	m, err = r.overUDP(ctx, s, q)
	if err != nil || !m.Truncated {
		return m, err
	}
	return complete(r.overTCP(ctx, s, q))
}

// complete returns an error for a response over a stream that is truncated.
func complete(m *dns.Msg, err error) (*dns.Msg, error) {
	if err == nil && m.Truncated {
		return nil, wireError("truncated over TCP")
	}
	return m, err
}
