package resolver

import (
	"context"
	"errors"
	"time"

	"github.com/miekg/dns"
)

// No server is given less time than this for an answer, as far as the time suffices for all.
const patience = time.Second

// ask asks one server after the other until one has a response that says something about the name,
// which is then in q. If none has, the error is the most telling of theirs.
//
// A server that said SERVFAIL is asked again in the second round: it remembers the failure for a
// moment (RFC 9520, Section 3.2), so this costs nobody much, and it may have been a passing one.
func (r *Resolver) ask(ctx context.Context, q *query, deadline time.Time) (*server, error) {
	servers := r.servers().order(time.Since(r.began))
	n := time.Duration(len(servers))
	budget := time.Until(deadline)
	each := max(budget/(n*time.Duration(r.attempts)), min(patience, budget/n))
	enough := min(patience, r.timeout/n)
	var worst *Error
	for range r.attempts {
		for _, s := range servers {
			until := time.Now().Add(each)
			// Silence is held against a server only if it had the time that it is due.
			waited := each >= enough && !until.After(deadline)
			if until.After(deadline) {
				until = deadline
			}
			if err := ended(ctx, deadline); err != nil {
				if worst == nil {
					worst = &Error{Name: q.plain(), Type: typeName(q.qtype), Kind: Timeout, Err: err}
				}
				return nil, worst
			}
			err := r.try(ctx, q, s, until)
			switch {
			case q.heard:
				s.silent.Store(0)
			case err.Kind == Network, err.Kind == Timeout && waited && ctx.Err() == nil:
				s.silent.Store(int64(time.Since(r.began)))
			}
			if err == nil {
				return s, nil
			}
			if worst == nil || err.Kind < worst.Kind {
				worst = err
			}
		}
	}
	return nil, worst
}

// ended returns why there is no time left for another server, or nil.
func ended(ctx context.Context, deadline time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// try asks one server. If it does not know EDNS it is asked once more without it (RFC 6891,
// Section 7); that is not remembered, since such servers have become rare.
func (r *Resolver) try(ctx context.Context, q *query, s *server, until time.Time) *Error {
	q.heard = false
	err := r.exchange(ctx, q, s, until, true)
	if code, ok := errors.AsType[*rcodeError](err); ok {
		switch code.rcode {
		case dns.RcodeFormatError, dns.RcodeNotImplemented, dns.RcodeBadVers:
			err = r.exchange(ctx, q, s, until, false)
		}
	}
	if err != nil {
		return failed(ctx, q, s, err)
	}
	q.reply.secure = q.reply.ad && s.trusted
	return nil
}

// exchange asks one server once, over UDP, then over TCP if the response was truncated (RFC 7766,
// Section 5); or over TLS.
func (r *Resolver) exchange(ctx context.Context, q *query, s *server, until time.Time, edns bool) error {
	if err := q.pack(edns); err != nil {
		return err
	}
	if s.tls == nil {
		if err := r.overUDP(ctx, q, s, until); err != nil || !q.reply.truncated {
			return err
		}
	}
	return r.overStream(ctx, q, s, until)
}
