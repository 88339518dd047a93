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

// A query is asked in several attempts, which overlap: the socket of one that has no response yet stays
// open while the next begins, so that a slow response is not lost.
type query struct {
	r       *Resolver
	parent  context.Context // of the caller
	name    string          // with the final dot, in the form of package dns
	qtype   uint16
	results chan result
	running sync.WaitGroup
	pending []*server // of the attempts without a result
	worst   *Error    // the most telling failure
}

// A result is that of one attempt: response is valid if err is nil.
type result struct {
	from     *server
	response response
	err      error
}

// ask asks the servers in turn until one has a response that says something about the name. If none
// has, the error is the most telling of theirs.
//
// A server that answered SERVFAIL is asked again in the second round: it caches the failure for a
// moment (RFC 9520, Section 3.2), so this is cheap, and the failure may have been a passing one.
func (r *Resolver) ask(parent context.Context, name string, qtype uint16, deadline time.Time) (response, error) {
	if d, ok := parent.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	budget := time.Until(deadline)
	q := &query{r: r, parent: parent, name: name, qtype: qtype}
	if err := parent.Err(); err != nil || budget <= 0 {
		return response{}, q.notAsked(cmp.Or(err, context.DeadlineExceeded))
	}
	servers, mixed := r.servers().order(time.Since(r.began))
	q.results = make(chan result, len(servers)*(r.attempts+1))
	ctx, cancel := context.WithDeadline(parent, deadline)
	defer q.running.Wait()
	defer cancel()
	resp, ok := q.run(ctx, servers, deadline, budget)
	if !ok {
		return response{}, q.failure(servers)
	}
	resp.secure = resp.AuthenticatedData && resp.from.trusted
	resp.unknown = mixed && !resp.from.trusted
	return resp, nil
}

// run asks the servers in rounds, then those that were silent once more, without EDNS.
func (q *query) run(ctx context.Context, servers []*server, deadline time.Time, budget time.Duration) (response, bool) {
	n := time.Duration(len(servers))
	last := budget / plainShare
	regular := deadline.Add(-last)
	each := max((budget-last)/(n*time.Duration(q.r.attempts)), min(minAttempt, (budget-last)/n))
	// Only silence of a full attempt counts against a server.
	full := each >= min(minAttempt, (q.r.timeout-q.r.timeout/plainShare)/n)
	for range q.r.attempts {
		for _, s := range servers {
			if !time.Now().Before(regular) || ctx.Err() != nil {
				break
			}
			if resp, ok := q.attempt(ctx, s, each, regular, true, full); ok {
				return resp, true
			}
		}
	}
	// One attempt of an earlier round may still run beside one that failed.
	if resp, ok := q.wait(ctx, nil, time.Until(regular)); ok {
		return resp, true
	}
	silent := slices.DeleteFunc(slices.Clone(servers), func(s *server) bool { return s.conns != nil || !slices.Contains(q.pending, s) })
	for _, s := range silent {
		if resp, ok := q.attempt(ctx, s, last/time.Duration(len(silent)), deadline, false, false); ok {
			return resp, true
		}
	}
	return q.wait(ctx, nil, time.Until(deadline))
}

// attempt begins an attempt, and waits until it ends, for its time, or until the given moment. If full
// is set and the server did not respond to any query in its time, it is deprioritized.
func (q *query) attempt(ctx context.Context, s *server, limit time.Duration, until time.Time, edns, full bool) (response, bool) {
	began := time.Since(q.r.began)
	q.pending = append(q.pending, s)
	q.running.Go(func() {
		resp, err := q.r.try(ctx, q.name, q.qtype, s, edns)
		q.results <- result{from: s, response: resp, err: err}
	})
	if left := time.Until(until); left < limit {
		limit, full = left, false
	}
	resp, ok := q.wait(ctx, s, limit)
	if ok || ctx.Err() != nil || !slices.Contains(q.pending, s) {
		return resp, ok
	}
	if full {
		s.noteSilence(began, time.Since(q.r.began))
	}
	if s.conns != nil {
		s.conns.retireSilent(q.r.began.Add(began))
	}
	return response{}, false
}

// wait returns the first response that comes within the limit. It returns false at once if no attempt
// to s is left without a result; s is nil for any server.
func (q *query) wait(ctx context.Context, s *server, limit time.Duration) (response, bool) {
	waits := func() bool { return slices.Contains(q.pending, s) || s == nil && len(q.pending) > 0 }
	if !waits() {
		return response{}, false
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for waits() {
		select {
		case got := <-q.results:
			if got.err == nil {
				return got.response, true
			}
			i := slices.Index(q.pending, got.from)
			q.pending = slices.Delete(q.pending, i, i+1)
			q.note(got.from, got.err)
		case <-timer.C:
			return response{}, false
		case <-ctx.Done():
			return response{}, false
		}
	}
	return response{}, false
}

// note keeps the most telling failure.
func (q *query) note(s *server, err error) {
	if e := newError(q.parent, q.name, q.qtype, s, err); q.worst == nil || e.Kind < q.worst.Kind {
		q.worst = e
	}
}

// failure returns the most telling failure, with the attempts that have no result among them.
func (q *query) failure(servers []*server) *Error {
	if i := slices.IndexFunc(servers, func(s *server) bool { return slices.Contains(q.pending, s) }); i >= 0 {
		q.note(servers[i], context.DeadlineExceeded)
	}
	if q.worst == nil {
		return q.notAsked(context.DeadlineExceeded)
	}
	return q.worst
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
	return response{Msg: m, from: s}, nil
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
