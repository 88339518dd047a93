package resolver

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// addrGrace is how long addresses of one kind wait for those of the other. RFC 8305, Section 3 has 50 ms,
// for people who wait. Here an address that is missing costs more than a moment.
const addrGrace = 250 * time.Millisecond

// A family is the answer about addresses of one kind.
type family struct {
	Answer[netip.Addr]
	err error
}

// Addr asks for the A and AAAA records at the same time; IPv4 comes first in the answer. If there are
// addresses of one kind only, Secure, Unknown and TTL are those of that kind. If one question fails and
// the other has addresses, those are the answer; if it has none, the failure is returned, since the name
// may have addresses of the other kind. Addresses of one kind wait a quarter of a second for an answer
// about the other, which then counts as failed. Observe gets the error of a canceled context for it.
func (r *Resolver) Addr(ctx context.Context, name string) (Answer[netip.Addr], error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		asking    sync.WaitGroup
		four, six family
	)
	done := make(chan *family, 2)
	ask := func(f *family, qtype uint16) {
		f.Answer, f.err = lookup(ctx, r, name, qtype, decodeAddr)
		done <- f
	}
	asking.Go(func() { ask(&four, dns.TypeA) })
	asking.Go(func() { ask(&six, dns.TypeAAAA) })
	if first := <-done; first.suffices() {
		grace := time.NewTimer(addrGrace)
		defer grace.Stop()
		select {
		case <-done:
		case <-grace.C:
			cancel()
		}
	}
	asking.Wait()
	return merge(four, six)
}

// suffices reports whether f is an answer without the other one: it has addresses, or the name does
// not exist (RFC 8020, Section 2).
func (f *family) suffices() bool { return f.err == nil && (f.NXDomain || len(f.Records) > 0) }

// merge returns one answer for both kinds.
func merge(four, six family) (Answer[netip.Addr], error) {
	switch {
	case four.err != nil && six.err != nil:
		e4, ok4 := errors.AsType[*Error](four.err)
		e6, ok6 := errors.AsType[*Error](six.err)
		if ok4 && ok6 && e6.Kind < e4.Kind {
			return Answer[netip.Addr]{}, six.err
		}
		return Answer[netip.Addr]{}, four.err
	case four.err != nil && six.suffices():
		return six.Answer, nil
	case six.err != nil && four.suffices():
		return four.Answer, nil
	case four.err != nil || six.err != nil:
		return Answer[netip.Addr]{}, cmp.Or(four.err, six.err)
	}
	both := four.Answer
	if len(four.Records) == 0 && len(six.Records) > 0 {
		both.Name, both.TTL, both.Secure, both.Unknown = six.Name, six.TTL, six.Secure, six.Unknown
	}
	if len(four.Records) == 0 == (len(six.Records) == 0) {
		both.TTL = min(four.TTL, six.TTL)
		both.Secure = four.Secure && six.Secure
		both.Unknown = cmp.Or(four.Unknown, six.Unknown)
	}
	both.NXDomain = four.NXDomain && six.NXDomain
	both.Records = append(both.Records, six.Records...)
	return both, nil
}
