package check

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"stsmap/resolver"
)

// A memo asks each question once, so that all findings about a domain are made
// of the same answers. It is a dane.Resolver.
type memo struct {
	r *resolver.Resolver

	mu    sync.Mutex
	known map[question]any // a *reply
}

type question struct{ kind, name string }

// A reply is an answer that may still be awaited.
type reply[T any] struct {
	once   sync.Once
	answer resolver.Answer[T]
	err    error
}

func newMemo(r *resolver.Resolver) *memo { return &memo{r: r, known: make(map[question]any)} }

// recall returns the answer to a DNS query, and sends the query only the first
// time.
func recall[T any](ctx context.Context, m *memo, kind, name string, ask func(context.Context, string) (resolver.Answer[T], error)) (resolver.Answer[T], error) {
	m.mu.Lock()
	r, ok := m.known[question{kind, name}].(*reply[T])
	if !ok {
		r = new(reply[T])
		m.known[question{kind, name}] = r
	}
	m.mu.Unlock()
	r.once.Do(func() { r.answer, r.err = ask(ctx, name) })
	return r.answer, r.err
}

func (m *memo) MX(ctx context.Context, name string) (resolver.Answer[resolver.MX], error) {
	return recall(ctx, m, "mx", name, m.r.MX)
}

func (m *memo) Addr(ctx context.Context, name string) (resolver.Answer[netip.Addr], error) {
	return recall(ctx, m, "addr", name, m.r.Addr)
}

func (m *memo) Alias(ctx context.Context, name string) (resolver.Answer[string], error) {
	return recall(ctx, m, "alias", name, m.r.Alias)
}

func (m *memo) TLSA(ctx context.Context, name string) (resolver.Answer[resolver.TLSA], error) {
	return recall(ctx, m, "tlsa", name, m.r.TLSA)
}

// again is the time between two checks of whether the resolver validates, while
// they have no result.
const again = 10 * time.Second

// remembering returns a function that reports whether the resolver validates. It
// calls ask until that has a result, and keeps the result. Until then it calls ask
// every so often, and not once for each of many domains.
func remembering(ask func(context.Context) error) func(context.Context) error {
	var (
		mu    sync.Mutex // held while ask runs: concurrent callers share its result
		known bool
		next  time.Time
		last  error
	)
	return func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if !known && !time.Now().Before(next) {
			last = ask(ctx)
			known = last == nil || isNotValidating(last)
			next = time.Now().Add(again)
		}
		return last
	}
}
